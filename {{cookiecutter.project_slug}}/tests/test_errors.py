"""Every failure is problem+json, tells nothing internal, and leaves a session that can be used."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, redirect, request
from sqlalchemy import QueuePool, create_engine, text
from werkzeug.exceptions import HTTPException, TooManyRequests
from werkzeug.test import TestResponse

from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.db import db, engines_of, transaction
from {{cookiecutter.package_name}}.errors import RETRY_AFTER, Problem, problem

from .conftest import make_settings
from .databases import Databases, wanted

PROBLEM = "application/problem+json"


def duplicate() -> None:
    """Break a constraint of a table that exists for this transaction only."""
    with transaction() as session:
        session.execute(text("CREATE TABLE once (id INTEGER PRIMARY KEY)"))
        session.execute(text("INSERT INTO once VALUES (1), (1)"))


OUT_OF_RANGE = {"postgresql": "SELECT 2147483647::integer + 1", "sqlite": "SELECT zeroblob(2147483647)"}


def out_of_range() -> None:
    db.session.execute(text(OUT_OF_RANGE[wanted()]))


def no_such_column() -> None:
    db.session.execute(text("SELECT secret_column"))


def lost_connection() -> None:
    driver: Any = db.session.connection().connection.dbapi_connection
    driver.close()
    db.session.execute(text("SELECT 1"))


def too_slow() -> None:
    db.session.execute(text("SET LOCAL statement_timeout = 20"))
    db.session.execute(text("SELECT pg_sleep(10)"))


def locked() -> None:
    """Write while another connection does, and do not wait for it."""
    db.session.execute(text("PRAGMA busy_timeout = 0"))
    with closing(sqlite3.connect(db.engine.url.database or "", isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        db.session.execute(text("CREATE TABLE locked (id INTEGER)"))


BUSY = {"postgresql": too_slow, "sqlite": locked}


def no_writes_any_more() -> None:
    """Write to a PostgreSQL server that has become read-only."""
    db.session.execute(text("SET default_transaction_read_only = on"))
    db.session.commit()
    db.session.execute(text("CREATE TABLE never (id INTEGER)"))


def forbidden_write() -> None:
    """Write in a transaction of PostgreSQL that was made read-only on purpose."""
    db.session.connection(execution_options={"postgresql_readonly": True})
    db.session.execute(text("CREATE TABLE never (id INTEGER)"))


def no_connection_in_time() -> None:
    """Ask a pool of one for a second connection."""
    options = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 0.01}
    engine = create_engine("sqlite://", **options)
    try:
        with engine.connect():
            engine.connect()
    finally:
        engine.dispose()


def bug() -> None:
    raise LookupError("the secret of /etc/app")


def too_many() -> None:
    raise TooManyRequests(retry_after=7)


def own_problem() -> None:
    raise Problem(402, "Pay first.", balance=30, type="https://example.com/pay")


class SeeOther(HTTPException):
    """An answer that is raised, and no failure."""

    code = 303


def see_other() -> None:
    raise SeeOther


def maintenance() -> None:
    raise Problem(503, "We are moving.")


FAILURES: dict[str, Callable[[], object]] = {
    "duplicate": duplicate,
    "out-of-range": out_of_range,
    "no-such-column": no_such_column,
    "busy": BUSY[wanted()],
    "lost-connection": lost_connection,
    "no-connection-in-time": no_connection_in_time,
    "bug": bug,
    "own-problem": own_problem,
    "maintenance": maintenance,
    "abort-500": lambda: abort(500, "the secret of /etc/app"),
    "json": lambda: request.get_json(),
    "data": lambda: request.get_data(),
    "too-many": too_many,
    "see-other": see_other,
    "redirect": lambda: redirect("/livez", 303),
    "abort-redirect": lambda: abort(redirect("/livez", 303)),
}

AWAY = ["busy", "no-connection-in-time", "lost-connection"]
WRONG = ["no-such-column"]
if wanted() == "postgresql":
    FAILURES |= {"no-writes-any-more": no_writes_any_more, "forbidden-write": forbidden_write}
    AWAY.append("no-writes-any-more")
    WRONG.append("forbidden-write")


@pytest.fixture(scope="module")
def app(own_databases: Databases) -> Iterator[Flask]:
    """The service as in production, with a path for each failure."""
    app = create_app(make_settings(own_databases.migrated(), app_env="production"))
    failures = Blueprint("failures", __name__)

    @failures.route("/fail/<name>", methods=["GET", "POST"])
    def fail(name: str) -> Any:
        return FAILURES[name]() or "no failure"

    @app.get("/directory/")
    def directory() -> str:
        return "found"

    @failures.after_request
    def use_the_session(response: Response) -> Response:
        response.headers["X-Session"] = str(db.session.scalar(text("SELECT 'usable'")))
        return response

    app.register_blueprint(failures)
    yield app
    for engine in engines_of(app):
        engine.dispose()


def assert_problem(response: TestResponse, status: int, title: str) -> dict[str, object]:
    assert response.status_code == status
    assert response.content_type == PROBLEM
    body: dict[str, object] = response.get_json(force=True)
    assert body["status"] == status
    assert body["title"] == title
    assert isinstance(body["type"], str)
    return body


def test_an_unknown_path_is_a_404(app: Flask) -> None:
    assert_problem(app.test_client().get("/nowhere"), 404, "Not Found")


def test_a_method_that_is_not_allowed_is_a_405_that_names_those_that_are(app: Flask) -> None:
    response = app.test_client().put("/livez")

    assert_problem(response, 405, "Method Not Allowed")
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_what_is_no_json_is_a_400(app: Flask) -> None:
    response = app.test_client().post("/fail/json", data="{", content_type="application/json")

    assert_problem(response, 400, "Bad Request")


def test_another_type_is_a_415(app: Flask) -> None:
    response = app.test_client().post("/fail/json", data="a=b", content_type="text/plain")

    assert_problem(response, 415, "Unsupported Media Type")


def test_a_body_of_more_than_a_megabyte_is_a_413(app: Flask) -> None:
    response = app.test_client().post("/fail/data", data=b" " * (1024 * 1024 + 1))

    assert_problem(response, 413, "Request Entity Too Large")


def test_a_broken_constraint_is_a_409(app: Flask) -> None:
    body = assert_problem(app.test_client().get("/fail/duplicate"), 409, "Conflict")

    assert body["detail"] == "This conflicts with what is stored already."


def test_a_value_that_the_database_refuses_is_a_422(app: Flask) -> None:
    assert_problem(app.test_client().get("/fail/out-of-range"), 422, "Unprocessable Entity")


@pytest.mark.parametrize("name", AWAY)
def test_a_database_that_cannot_answer_is_a_503_that_says_when_to_try_again(app: Flask, name: str) -> None:
    response = app.test_client().get(f"/fail/{name}")

    assert_problem(response, 503, "Service Unavailable")
    assert response.headers["Retry-After"] == str(RETRY_AFTER)


@pytest.mark.parametrize("name", WRONG)
def test_a_statement_that_is_wrong_is_a_500_on_every_database(app: Flask, name: str) -> None:
    response = app.test_client().get(f"/fail/{name}")

    assert_problem(response, 500, "Internal Server Error")
    assert "Retry-After" not in response.headers


def test_a_bug_is_a_500_that_tells_nothing(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    response = app.test_client().get("/fail/bug")

    body = assert_problem(response, 500, "Internal Server Error")
    assert body.pop("request_id") == response.headers["X-Request-ID"]
    assert body == {"type": "about:blank", "title": "Internal Server Error", "status": 500}
    assert "LookupError: the secret of /etc/app" in caplog.text


INTERNAL = [
    "secret",
    "SELECT",
    "INSERT",
    "once",
    "Exception",
    "Error:",
    "File",
    "/etc",
    "sqla",
    "psycopg",
    "sqlite",
]


@pytest.mark.parametrize("name", [name for name in FAILURES if name != "own-problem"])
def test_no_failure_tells_what_is_inside(app: Flask, name: str) -> None:
    told = app.test_client().get(f"/fail/{name}").text

    assert not [word for word in INTERNAL if word in told]


@pytest.mark.parametrize("name", FAILURES)
def test_the_session_is_rolled_back_before_anything_else_uses_it(app: Flask, name: str) -> None:
    assert app.test_client().get(f"/fail/{name}").headers["X-Session"] == "usable"


def test_the_transaction_of_a_failed_request_is_undone(app: Flask) -> None:
    client = app.test_client()

    assert [client.get("/fail/duplicate").status_code for _ in range(2)] == [409, 409]


def test_a_problem_tells_what_its_author_says(app: Flask) -> None:
    body = assert_problem(app.test_client().get("/fail/own-problem"), 402, "Payment Required")

    assert body["detail"] == "Pay first."
    assert body["balance"] == 30
    assert body["type"] == "https://example.com/pay"


def test_a_problem_of_the_service_is_told_when_its_author_says_it(app: Flask) -> None:
    body = assert_problem(app.test_client().get("/fail/maintenance"), 503, "Service Unavailable")

    assert body["detail"] == "We are moving."


def test_the_headers_of_an_error_are_kept(app: Flask) -> None:
    response = app.test_client().get("/fail/too-many")

    assert_problem(response, 429, "Too Many Requests")
    assert response.headers["Retry-After"] == "7"


def test_a_head_request_fails_without_a_body(app: Flask) -> None:
    response = app.test_client().head("/nowhere")

    assert (response.status_code, response.content_type, response.data) == (404, PROBLEM, b"")


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/fail/redirect", 303, "/livez"),
        ("/fail/abort-redirect", 303, "/livez"),
        ("/directory", 308, "http://localhost/directory/"),
    ],
)
def test_a_redirect_is_not_touched(app: Flask, path: str, status: int, location: str) -> None:
    response = app.test_client().get(path)

    assert (response.status_code, response.headers["Location"]) == (status, location)
    assert response.content_type != PROBLEM


def test_an_exception_that_is_no_failure_is_not_touched(app: Flask) -> None:
    response = app.test_client().get("/fail/see-other")

    assert response.status_code == 303
    assert response.content_type != PROBLEM


def test_a_status_without_a_name_is_still_a_problem() -> None:
    response = problem(499, "The client has left.")

    assert json.loads(response.data) == {
        "type": "about:blank",
        "title": "Error",
        "status": 499,
        "detail": "The client has left.",
    }
