"""Every failure is problem+json, reveals nothing internal, and leaves a usable session."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, redirect, request
from sqlalchemy import Index, MetaData, QueuePool, UniqueConstraint, create_engine, insert, text
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.exceptions import HTTPException, TooManyRequests
from werkzeug.test import TestResponse

from {{cookiecutter.package_name}}.foundation.application import create_service
from {{cookiecutter.package_name}}.foundation.database import Base, db, transaction
from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.http import errors
from {{cookiecutter.package_name}}.foundation.http.errors import RETRY_AFTER, Problem, problem

from ..databases import Databases, wanted
from ..fixtures import make_settings
from ..sample.app import create_app

PROBLEM = "application/problem+json"


def duplicate() -> None:
    """Violate a constraint of a table that exists only in this transaction."""
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
    """Write while another connection is writing, without waiting for it."""
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
    """Request a second connection from a pool of one."""
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
    """A raised response that is not a failure."""

    code = 303


def see_other() -> None:
    raise SeeOther


def maintenance() -> None:
    raise Problem(503, "We are moving.")


class OwnBase(Base):
    """Tables of this module, in metadata that no migration compares."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class FoundationAccount(OwnBase):
    """A table with unique columns."""

    __tablename__ = "foundation_accounts"
    __table_args__ = (
        UniqueConstraint("tenant", "name"),
        Index("uq_foundation_accounts_lower_nick", text("lower(nick)"), unique=True),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True, info={"field": "emailAddress"})
    tenant: Mapped[int] = mapped_column(default=0)
    name: Mapped[str | None]
    code: Mapped[str | None] = mapped_column(index=True, unique=True)
    nick: Mapped[str | None]


def taken() -> None:
    """Add a row, and a second one with the values of the request."""
    with transaction() as session:
        OwnBase.metadata.create_all(session.connection())
        session.execute(insert(FoundationAccount).values(id=1, email="a", name="x", code="c", nick="n"))
        session.execute(insert(FoundationAccount).values(**{"id": 2} | request.get_json()))


FAILURES: dict[str, Callable[[], object]] = {
    "duplicate": duplicate,
    "taken": taken,
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
    """The service in production, with a path for each failure."""
    app = create_app(make_settings(own_databases.sampled(), app_env="production"))
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
    """An unknown path returns 404."""
    assert_problem(app.test_client().get("/nowhere"), 404, "Not Found")


def test_a_405_names_the_allowed_methods(app: Flask) -> None:
    """A method that is not allowed returns 405, whose Allow header names the allowed methods."""
    response = app.test_client().put("/livez")

    assert_problem(response, 405, "Method Not Allowed")
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_malformed_json_is_a_400(app: Flask) -> None:
    """A body that is not JSON returns 400."""
    response = app.test_client().post("/fail/json", data="{", content_type="application/json")

    assert_problem(response, 400, "Bad Request")


def test_another_type_is_a_415(app: Flask) -> None:
    """A body of another content type returns 415."""
    response = app.test_client().post("/fail/json", data="a=b", content_type="text/plain")

    assert_problem(response, 415, "Unsupported Media Type")


def test_a_body_of_more_than_a_megabyte_is_a_413(app: Flask) -> None:
    """A body of more than a megabyte returns 413."""
    response = app.test_client().post("/fail/data", data=b" " * (1024 * 1024 + 1))

    assert_problem(response, 413, "Request Entity Too Large")


def test_a_broken_constraint_is_a_409(app: Flask) -> None:
    """A violated constraint returns 409 with a general detail."""
    body = assert_problem(app.test_client().get("/fail/duplicate"), 409, "Conflict")

    assert body["detail"] == "This conflicts with what is stored already."


def test_a_value_that_the_database_refuses_is_a_422(app: Flask) -> None:
    """A value that the database rejects returns 422."""
    assert_problem(app.test_client().get("/fail/out-of-range"), 422, "Unprocessable Entity")


@pytest.mark.parametrize("name", AWAY)
def test_an_unavailable_database_is_a_503_with_retry_after(app: Flask, name: str) -> None:
    """An unavailable database returns 503 with a Retry-After header."""
    response = app.test_client().get(f"/fail/{name}")

    assert_problem(response, 503, "Service Unavailable")
    assert response.headers["Retry-After"] == str(RETRY_AFTER)


@pytest.mark.parametrize("name", WRONG)
def test_a_statement_that_is_wrong_is_a_500_on_every_database(app: Flask, name: str) -> None:
    """An invalid statement returns 500 without a Retry-After header on every database."""
    response = app.test_client().get(f"/fail/{name}")

    assert_problem(response, 500, "Internal Server Error")
    assert "Retry-After" not in response.headers


def test_a_bug_is_a_500_without_details(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A bug returns 500 with a request id as its only detail, and the log has its traceback."""
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
def test_no_failure_reveals_internals(app: Flask, name: str) -> None:
    """The response to a failure reveals no SQL, path, exception or secret."""
    body = app.test_client().get(f"/fail/{name}").text

    assert not [word for word in INTERNAL if word in body]


@pytest.mark.parametrize("name", FAILURES)
def test_the_session_is_rolled_back_before_anything_else_uses_it(app: Flask, name: str) -> None:
    """After every failure the session is rolled back before anything else uses it."""
    assert app.test_client().get(f"/fail/{name}").headers["X-Session"] == "usable"


def test_the_transaction_of_a_failed_request_is_undone(app: Flask) -> None:
    """The transaction of a failed request is rolled back."""
    client = app.test_client()

    assert [client.get("/fail/duplicate").status_code for _ in range(2)] == [409, 409]


def test_a_problem_keeps_its_members(app: Flask) -> None:
    """A Problem's response contains its detail, type and members."""
    body = assert_problem(app.test_client().get("/fail/own-problem"), 402, "Payment Required")

    assert body["detail"] == "Pay first."
    assert body["balance"] == 30
    assert body["type"] == "https://example.com/pay"


def test_a_problem_with_a_server_status_keeps_its_detail(app: Flask) -> None:
    """A Problem with a 5xx status also contains its detail."""
    body = assert_problem(app.test_client().get("/fail/maintenance"), 503, "Service Unavailable")

    assert body["detail"] == "We are moving."


def test_the_headers_of_an_error_are_kept(app: Flask) -> None:
    """An HTTP error keeps its headers."""
    response = app.test_client().get("/fail/too-many")

    assert_problem(response, 429, "Too Many Requests")
    assert response.headers["Retry-After"] == "7"


def test_a_head_request_fails_without_a_body(app: Flask) -> None:
    """A failed HEAD request has the headers of a problem and no body."""
    response = app.test_client().head("/nowhere")

    assert (response.status_code, response.content_type, response.data) == (404, PROBLEM, b"")


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/fail/redirect", 303, "/livez"),
        ("/fail/abort-redirect", 303, "/livez"),
        ("/directory", 308, "/directory/"),
    ],
)
def test_a_redirect_is_not_touched(app: Flask, path: str, status: int, location: str) -> None:
    """A redirect, returned or raised, is not changed."""
    response = app.test_client().get(path)

    assert (response.status_code, response.headers["Location"]) == (status, location)
    assert response.content_type != PROBLEM


def test_an_exception_that_is_no_failure_is_not_touched(app: Flask) -> None:
    """An HTTP exception that is not a failure is not changed."""
    response = app.test_client().get("/fail/see-other")

    assert response.status_code == 303
    assert response.content_type != PROBLEM


def test_a_status_without_a_name_is_still_a_problem() -> None:
    """A status without a registered name is still a problem, with the title Error."""
    response = problem(499, "The client has left.")

    assert json.loads(response.data) == {
        "type": "about:blank",
        "title": "Error",
        "status": 499,
        "detail": "The client has left.",
    }


@pytest.mark.parametrize(
    ("values", "pointers"),
    [
        ({"email": "a"}, ["#/emailAddress"]),
        ({"email": "b", "name": "x"}, ["#/tenant", "#/name"]),
        ({"email": "b", "code": "c"}, ["#/code"]),
        ({"email": "b", "id": 1}, ["#/id"]),
        ({"email": "b", "nick": "N"}, None),
        ({"email": None}, None),
    ],
)
def test_a_taken_value_is_named(app: Flask, values: dict[str, Any], pointers: list[str] | None) -> None:
    """A unique constraint or index names the fields whose values are taken; another constraint names none."""
    response = app.test_client().post("/fail/taken", json=values)

    body = response.get_json(force=True)
    assert response.status_code == 409
    assert [error["pointer"] for error in body.get("errors", [])] == (pointers or [])


def own_shape(members: dict[str, Any]) -> Response:
    """Return a failure as a list of sentences."""
    return jsonify_with(members["status"], {"failures": [members.get("detail", members["title"])]})


def jsonify_with(status: int, body: object) -> Response:
    """Return JSON with a status."""
    return Response(json.dumps(body), status, mimetype="application/json")


def test_a_part_of_the_paths_may_have_another_shape(own_databases: Databases) -> None:
    """Failures below a prefix have its shape: unknown paths, constraints and bugs. Others keep theirs."""
    blueprint = Blueprint("old", __name__, url_prefix="/old")

    @blueprint.get("/duplicate")
    def conflict() -> str:
        duplicate()
        return ""

    @blueprint.get("/bug")
    def bug() -> str:
        raise ZeroDivisionError

    settings = make_settings(own_databases.sampled(), app_env="production")
    shapes = {"/old": own_shape, "/old/er": errors.problem_json}
    app = create_service(__name__, settings, features=[blueprint], error_shapes=shapes)

    client = app.test_client()
    found = {
        path: client.open(f"/old{path}", method=method)
        for method, path in [
            ("GET", ""),
            ("GET", "/x"),
            ("POST", "/bug"),
            ("GET", "/bug"),
            ("GET", "/duplicate"),
        ]
    }

    assert {path: (answer.status_code, list(answer.get_json())) for path, answer in found.items()} == {
        "": (404, ["failures"]),
        "/x": (404, ["failures"]),
        "/bug": (500, ["failures"]),
        "/duplicate": (409, ["failures"]),
    }
    assert client.get("/older").content_type == PROBLEM
    assert client.get("/old/er/x").content_type == PROBLEM
    for engine in engines_of(app):
        engine.dispose()


PRIVATE = f"PRIVATE-{4711}"  # A traceback shows the line that uses it.


def missing_table() -> None:
    """Use values of a client in a statement that fails."""
    db.session.execute(text("INSERT INTO never (name) VALUES (:name)"), {"name": PRIVATE})


def violated_check() -> None:
    """Violate a constraint whose message quotes the row."""
    with transaction() as session:
        session.execute(
            text("CREATE TABLE checked (name TEXT, CONSTRAINT ck_short CHECK (length(name) < 3))")
        )
        session.execute(text("INSERT INTO checked VALUES (:name)"), {"name": PRIVATE})


def taken_value() -> None:
    """Violate a constraint whose message quotes the key."""
    with transaction() as session:
        session.execute(text("CREATE TABLE taken (name TEXT UNIQUE)"))
        for _ in range(2):
            session.execute(text("INSERT INTO taken VALUES (:name)"), {"name": PRIVATE})


@pytest.mark.parametrize("failure", [missing_table, violated_check, taken_value])
def test_values_of_clients_are_not_logged(
    app: Flask, failure: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A statement that fails is logged without its parameters, and a constraint without the row."""
    FAILURES["private"] = failure

    with caplog.at_level("INFO"):
        assert app.test_client().post("/fail/private").status_code in {409, 500}

    assert PRIVATE not in caplog.text
    assert "never" in caplog.text or "refused by a constraint" in caplog.text


@pytest.mark.parametrize(
    ("path", "location"),
    [("/directory", "/directory/"), ("/fail//bug?a=1", "/fail/bug?a=1"), ("/fail///bug", "/fail/bug")],
)
def test_a_redirect_names_no_host(app: Flask, path: str, location: str) -> None:
    """A redirect from routing is a path, because the client chooses the Host."""
    response = app.test_client().get(path, headers={"Host": "evil.example"})

    assert (response.status_code, response.headers["Location"]) == (308, location)


def test_a_header_that_no_response_can_have_is_dropped(own_databases: Databases) -> None:
    """A header that an after_request function gives to errors, too, is dropped from the problem."""
    app = create_app(make_settings(own_databases.sampled()))
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.after_request
    def name_the_service(response: Response) -> Response:
        response.headers["X-Service"] = "us\N{LATIN SMALL LETTER L WITH STROKE}uga"
        return response

    answer = app.test_client().get("/livez")

    assert (answer.status_code, answer.mimetype) == (500, PROBLEM)
    assert "X-Service" not in answer.headers
