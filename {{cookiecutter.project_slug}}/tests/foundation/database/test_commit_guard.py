"""A forgotten commit fails the request, and a failed request commits nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, abort, redirect, stream_with_context
from flask.testing import FlaskClient
from sqlalchemy import Column, Integer, MetaData, Table, delete, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from {{cookiecutter.package_name}}.foundation.database import db, transaction
from {{cookiecutter.package_name}}.foundation.database.commit_guard import (
    CommitAfterFailure,
    FailureAfterCommit,
    UncommittedWork,
)
from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.http.errors import Problem, problem

from ..databases import Databases, wanted
from ..fixtures import make_settings
from ..sample.app import create_app
from ..sample.samples import FoundationSample


class OwnBase(DeclarativeBase):
    """Tables unknown to the migrations and the service."""


class Thing(OwnBase):
    """A row to write to."""

    __tablename__ = "foundation_things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture(scope="module")
def url(own_databases: Databases) -> str:
    """A database that the tests of this module share."""
    return own_databases.sampled()


@pytest.fixture
def build(url: str) -> Iterator[Callable[..., Flask]]:
    """Build services on a database with one thing, named `kept`."""
    built: list[Flask] = []

    def build(**changes: str) -> Flask:
        app = create_app(make_settings(url, **changes))
        with app.app_context(), transaction() as session:
            OwnBase.metadata.create_all(session.connection())
            session.execute(delete(Thing))
            session.add(Thing(id=1000, name="kept"))
        built.append(app)
        return app

    yield build
    for app in built:
        for engine in engines_of(app):
            engine.dispose()


@pytest.fixture
def own_app(build: Callable[..., Flask]) -> Flask:
    return build()


def stored(app: Flask) -> list[str]:
    with app.app_context():
        return sorted(db.session.scalars(select(Thing.name)))


Work = Callable[[Session], object]


def serve(app: Flask, work: Work, answer: Callable[[], object] = lambda: ("", 201)) -> None:
    """Make POST /work do some work in the request's session, and then respond."""

    @app.post("/work")
    def view() -> Response:
        work(db.session())
        return app.make_response(answer())  # type: ignore[arg-type]


def add(session: Session) -> None:
    session.add(Thing(name="new"))


def flush(session: Session) -> None:
    session.add(Thing(name="new"))
    session.flush()


def change(session: Session) -> None:
    session.get_one(Thing, 1000).name = "changed"


def remove(session: Session) -> None:
    session.delete(session.get_one(Thing, 1000))


def only_release_a_savepoint(session: Session) -> None:
    with session.begin_nested():
        session.add(Thing(name="new"))


def commit_and_change_again(session: Session) -> None:
    with transaction():
        flush(session)
    flush(session)


def commit_and_change_an_object_again(session: Session) -> None:
    with transaction():
        thing = session.get_one(Thing, 1000)
        thing.name = "changed"
    thing.name = "changed again"


def execute(statement: str) -> Work:
    return lambda session: session.execute(text(statement))


# The rows committed before the forgotten second change.
LEFT: dict[Work, list[str]] = {
    commit_and_change_again: ["kept", "new"],
    commit_and_change_an_object_again: ["changed"],
}

CTE = {
    "postgresql": "WITH gone AS (DELETE FROM foundation_things RETURNING id) SELECT count(*) FROM gone",
    "sqlite": "WITH old AS (SELECT 1 AS id) DELETE FROM foundation_things WHERE id > (SELECT id FROM old)",
}

INSERT, UPDATE, DELETE = (f"{verb} foundation_things" for verb in ("INSERT INTO", "UPDATE", "DELETE FROM"))

FORGOTTEN: dict[str, tuple[Work, str]] = {
    "pending add": (add, "new <"),
    "flush": (flush, INSERT),
    "change": (change, "changed <"),
    "delete": (remove, "deleted <"),
    "released savepoint": (only_release_a_savepoint, INSERT),
    "second change": (commit_and_change_again, INSERT),
    "second change of an object": (commit_and_change_an_object_again, "changed <"),
    "Core insert": (lambda s: s.execute(insert(Thing).values(name="new")), INSERT),
    "bulk update": (lambda s: s.execute(update(Thing).values(name="changed")), UPDATE),
    "bulk delete": (lambda s: s.execute(delete(Thing)), DELETE),
    "legacy bulk update": (lambda s: s.query(Thing).update({"name": "changed"}), UPDATE),
    "bulk objects": (lambda s: s.bulk_save_objects([Thing(name="new")]), INSERT),
    "text": (execute(f"{INSERT} (name) VALUES ('new')"), INSERT),
    "lower case": (execute(f"\n  {DELETE.lower()}"), DELETE.lower()),
    "comment first": (execute(f"/* audit */ -- of\n {DELETE}"), DELETE),
    "CTE": (execute(CTE[wanted()]), "WITH "),
    "driver": (lambda s: s.connection().exec_driver_sql(DELETE), DELETE),
}


@pytest.mark.parametrize(("work", "named"), FORGOTTEN.values(), ids=FORGOTTEN)
def test_a_forgotten_commit_fails_the_request_and_names_it(own_app: Flask, work: Work, named: str) -> None:
    """A forgotten commit fails the request with an error that names the work, and nothing is stored."""
    serve(own_app, work)

    with pytest.raises(UncommittedWork) as raised:
        own_app.test_client().post("/work")

    assert str(raised.value).startswith("POST /work answers 201 and has not committed: ")
    assert named in str(raised.value)
    assert stored(own_app) == LEFT.get(work, ["kept"])


REDIRECTS: dict[str, Callable[[], object]] = {
    "returned": lambda: redirect("/elsewhere", 303),
    "raised": lambda: abort(redirect("/elsewhere", 303)),
}


@pytest.mark.parametrize("answer", REDIRECTS.values(), ids=REDIRECTS)
def test_a_redirect_has_to_commit_too(own_app: Flask, answer: Callable[[], object]) -> None:
    """A redirect with uncommitted work fails, too."""
    serve(own_app, flush, answer)

    with pytest.raises(UncommittedWork, match="answers 303"):
        own_app.test_client().post("/work")


def test_work_of_another_after_request_function_counts_too(own_app: Flask) -> None:
    """Uncommitted work of another after-request function fails the request, too."""
    serve(own_app, lambda session: None)

    @own_app.after_request
    def write(response: Response) -> Response:
        flush(db.session())
        return response

    with pytest.raises(UncommittedWork, match=INSERT):
        own_app.test_client().post("/work")


def test_where_errors_are_not_passed_on_the_client_gets_a_500(build: Callable[..., Flask]) -> None:
    """Where exceptions are not propagated, the client gets a 500 for a forgotten commit."""
    app = build(app_env="development")
    serve(app, flush)

    assert app.test_client().post("/work").status_code == 500
    assert stored(app) == ["kept"]


def read(session: Session) -> None:
    session.scalars(select(Thing).with_for_update()).all()
    session.execute(text("SELECT name AS updated FROM foundation_things"))


LOCKING_READ = {
    "postgresql": (
        "WITH old AS (SELECT id FROM foundation_things FOR UPDATE OF foundation_things)"
        " SELECT 'delete' AS set FROM old"
    ),
    "sqlite": "WITH old AS (SELECT id FROM foundation_things) SELECT id, 'delete' FROM old",
}


def commit(session: Session) -> None:
    with transaction():
        flush(session)


def commit_by_hand(session: Session) -> None:
    change(session)
    session.commit()


def read_after_the_commit(session: Session) -> None:
    commit(session)
    read(session)


def roll_back(session: Session) -> None:
    flush(session)
    session.execute(text("DELETE FROM foundation_things"))
    session.rollback()


def set_the_same_value(session: Session) -> None:
    session.get_one(Thing, 1000).name = "kept"


def use_an_own_transaction(session: Session) -> None:
    with db.engine.begin() as connection:
        connection.execute(insert(Thing).values(name="own"))


def close_an_own_connection(session: Session) -> None:
    with db.engine.connect() as connection:
        connection.execute(insert(Thing).values(name="own"))
        connection.rollback()


HONEST: dict[str, tuple[Work, list[str]]] = {
    "read": (read, ["kept"]),
    "read by a CTE": (execute(LOCKING_READ[wanted()]), ["kept"]),
    "commit": (commit, ["kept", "new"]),
    "explicit commit": (commit_by_hand, ["changed"]),
    "read after the commit": (read_after_the_commit, ["kept", "new"]),
    "rollback": (roll_back, ["kept"]),
    "same value": (set_the_same_value, ["kept"]),
    "own transaction": (use_an_own_transaction, ["kept", "own"]),
    "own connection": (close_an_own_connection, ["kept"]),
}


@pytest.mark.parametrize(("work", "left"), HONEST.values(), ids=HONEST)
def test_a_request_that_forgets_no_commit_succeeds(own_app: Flask, work: Work, left: list[str]) -> None:
    """A request that only reads, commits, rolls back or uses its own transaction succeeds."""
    serve(own_app, work)

    assert own_app.test_client().post("/work").status_code == 201
    assert stored(own_app) == left


def refuse() -> object:
    raise Problem(409, "It is too late.")


REFUSALS: dict[str, Callable[[], object]] = {
    "abort": lambda: abort(409),
    "problem raised": refuse,
    "problem returned": lambda: problem(409),
    "plain answer": lambda: ("too late", 409),
    "abort with a response": lambda: abort(Response("too late", 409)),
}


@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS)
def test_a_refused_request_needs_no_commit(own_app: Flask, answer: Callable[[], object]) -> None:
    """A rejected request needs no commit, and its work is not stored."""
    serve(own_app, flush, answer)

    assert own_app.test_client().post("/work").status_code == 409
    assert stored(own_app) == ["kept"]


def test_log_sends_the_response_and_logs(
    build: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    """UNCOMMITTED_WORK=log sends the response, logs the uncommitted work and does not store it."""
    app = build(uncommitted_work="log")
    serve(app, flush)

    assert app.test_client().post("/work").status_code == 201

    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith(f"POST /work answers 201 and has not committed: {INSERT}")
    assert stored(app) == ["kept"]


def test_off_logs_nothing(build: Callable[..., Flask], caplog: pytest.LogCaptureFixture) -> None:
    """UNCOMMITTED_WORK=off sends the response and logs nothing."""
    app = build(uncommitted_work="off")
    serve(app, flush)

    assert app.test_client().post("/work").status_code == 201
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def stream(app: Flask, work: Work, write_on: Work) -> None:
    """Make POST /stream do some work, and then more while its response is sent."""

    @app.post("/stream")
    def view() -> Response:
        work(db.session())

        def parts() -> Iterator[str]:
            yield "one"
            write_on(db.session())
            yield "two"

        return Response(stream_with_context(parts()))


def nothing(session: Session) -> None:
    pass


@pytest.mark.parametrize("mode", ["raise", "log", "off"])
def test_a_stream_may_commit_what_it_writes(build: Callable[..., Flask], mode: str) -> None:
    """A stream may commit its own work, whatever UNCOMMITTED_WORK is."""
    app = build(uncommitted_work=mode)
    stream(app, commit, commit_by_hand)

    assert app.test_client().post("/stream").text == "onetwo"
    assert stored(app) == ["changed", "new"]


def test_a_stream_cannot_commit_without_what_the_view_wrote(build: Callable[..., Flask]) -> None:
    """A stream cannot commit if its view left work uncommitted, which is lost."""
    app = build(uncommitted_work="log")
    stream(app, flush, commit_by_hand)

    with pytest.raises(CommitAfterFailure, match=r"^POST /stream has failed"):
        app.test_client().post("/stream", buffered=True)
    assert stored(app) == ["kept"]


def test_a_commit_that_a_stream_forgot_fails_it(own_app: Flask) -> None:
    """A stream that forgets a commit fails with an error that names the work, and nothing is stored."""
    stream(own_app, nothing, flush)

    with pytest.raises(UncommittedWork, match=f"^POST /stream answers 200 .*: {INSERT}"):
        own_app.test_client().post("/stream", buffered=True)
    assert stored(own_app) == ["kept"]


def test_log_logs_a_commit_that_a_stream_forgot(
    build: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    """UNCOMMITTED_WORK=log sends a stream to its end and logs its forgotten commit."""
    app = build(uncommitted_work="log")
    stream(app, nothing, add)

    assert app.test_client().post("/stream").text == "onetwo"

    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("POST /stream answers 200 and has not committed: new <")


def late_commit() -> None:
    db.session.add(Thing(name="late"))
    db.session.commit()


@pytest.mark.parametrize("mode", ["raise", "off"])
@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS)
def test_an_after_request_function_cannot_commit_refused_work(
    build: Callable[..., Flask], answer: Callable[[], object], mode: str
) -> None:
    """An after-request function cannot commit the work of a rejected request."""
    app = build(uncommitted_work=mode)
    serve(app, flush, answer)

    @app.after_request
    def commit_late(response: Response) -> Response:
        late_commit()
        return response

    with pytest.raises(CommitAfterFailure, match=r"^POST /work has failed"):
        app.test_client().post("/work")
    assert stored(app) == ["kept"]


def test_work_is_not_committed_after_an_error_that_was_handled(own_app: Flask) -> None:
    """The work of a failed request is not committed later, even if an error handler has run."""

    def fail() -> object:
        raise LookupError

    serve(own_app, flush, fail)
    own_app.register_error_handler(LookupError, lambda error: ("no such thing", 422))

    @own_app.after_request
    def commit_late(response: Response) -> Response:
        late_commit()
        return response

    with pytest.raises(CommitAfterFailure, match=r"^POST /work has failed"):
        own_app.test_client().post("/work")
    assert stored(own_app) == ["kept"]


def test_a_handler_of_an_error_finds_nothing_half_done(own_app: Flask) -> None:
    """The request's work is rolled back before error handlers run."""

    def fail() -> object:
        raise LookupError

    found: list[list[str]] = []
    serve(own_app, flush, fail)

    @own_app.errorhandler(LookupError)
    def handle(error: LookupError) -> tuple[str, int]:
        found.append(list(db.session.scalars(select(Thing.name))))
        return "no such thing", 422

    assert own_app.test_client().post("/work").status_code == 422
    assert found == [["kept"]]


def test_a_teardown_cannot_commit_what_was_refused(own_app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A teardown cannot commit the work of a rejected request, and the log names the request."""
    serve(own_app, flush, lambda: abort(409))

    @own_app.teardown_request
    @own_app.teardown_appcontext
    def commit_late(error: BaseException | None) -> None:
        late_commit()

    assert own_app.test_client().post("/work").status_code == 409
    assert caplog.text.count("CommitAfterFailure: POST /work has failed") == 2
    assert stored(own_app) == ["kept"]


def test_a_separate_session_may_commit_after_a_failure(own_app: Flask) -> None:
    """A separate session may commit after the request has failed."""
    serve(own_app, flush, lambda: abort(409))

    @own_app.after_request
    def audit(response: Response) -> Response:
        with Session(db.engine) as session, session.begin():
            session.add(Thing(name="audit"))
        return response

    assert own_app.test_client().post("/work").status_code == 409
    assert stored(own_app) == ["audit", "kept"]


def test_the_next_request_may_commit_again(own_app: Flask) -> None:
    """The next request after a rejected one may commit again."""
    serve(own_app, flush, lambda: abort(409))

    @own_app.post("/next")
    def write() -> str:
        commit(db.session())
        return "done"

    client = own_app.test_client()

    assert [client.post(path).status_code for path in ("/work", "/next")] == [409, 200]
    assert stored(own_app) == ["kept", "new"]


def failing(answer: Callable[[], Any]) -> Callable[[Session], Any]:
    """Return a view function that writes in a transaction, and responds from inside it."""

    def work(session: Session) -> Any:
        with transaction() as same:
            same.add(Thing(name="half"))
            same.flush()
            return answer()

    return work


@pytest.mark.parametrize("policy", ["raise", "log", "off"])
def test_a_problem_inside_a_transaction_rolls_back(build: Callable[..., Flask], policy: str) -> None:
    """A view that returns `problem()` from inside `transaction()` stores nothing."""
    app = build(uncommitted_work=policy)
    app.add_url_rule("/fail", view_func=lambda: failing(lambda: problem(422, "No."))(db.session()))

    assert app.test_client().get("/fail").status_code == 422
    assert stored(app) == ["kept"]


def test_a_problem_after_a_transaction_keeps_it(own_app: Flask) -> None:
    """A commit before a problem is returned or raised is kept, such as a counter of failed logins."""

    def count_failure() -> Response:
        with transaction() as session:
            session.add(Thing(name="failed login"))
        return problem(401, "Wrong password.")

    own_app.add_url_rule("/login", view_func=count_failure)

    assert own_app.test_client().get("/login").status_code == 401
    assert stored(own_app) == ["failed login", "kept"]


OTHER_ERRORS: list[Callable[[], Any]] = [lambda: ("no", 422), lambda: Response("no", 500)]


@pytest.mark.parametrize("answer", OTHER_ERRORS, ids=["pair", "response"])
def test_another_error_after_a_commit_is_named(own_app: Flask, answer: Callable[[], Any]) -> None:
    """Any other error response after a commit fails the request, and the error names the view."""
    own_app.add_url_rule("/fail", "the_view", lambda: failing(answer)(db.session()))

    with pytest.raises(FailureAfterCommit, match=r"the_view answers \d+ and has committed: INSERT"):
        own_app.test_client().get("/fail")


def test_another_error_is_named_under_test_fixtures(app: Flask, client: FlaskClient) -> None:
    """A test whose fixtures roll everything back sees the same error."""

    def view() -> tuple[str, int]:
        with transaction() as session:
            session.add(FoundationSample(text="half"))
        return "no", 422

    app.view_functions["samples.list_samples"], original = view, app.view_functions["samples.list_samples"]
    try:
        with pytest.raises(FailureAfterCommit):
            client.get("/samples")
    finally:
        app.view_functions["samples.list_samples"] = original


def test_another_error_without_a_commit_is_none(own_app: Flask) -> None:
    """An error response without a commit is sent unchanged."""
    own_app.add_url_rule("/fail", view_func=lambda: ("no", 422))

    assert own_app.test_client().get("/fail").status_code == 422


def test_in_production_the_error_is_logged(
    build: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    """In production a commit before an error response is logged."""
    app = build(uncommitted_work="log")
    app.add_url_rule("/fail", "the_view", lambda: failing(lambda: ("no", 422))(db.session()))

    assert app.test_client().get("/fail").status_code == 422
    assert "the_view answers 422 and has committed" in caplog.text


def roll_back_savepoint(session: Session) -> None:
    """Write in a SAVEPOINT, and roll it back."""
    savepoint = session.begin_nested()
    session.execute(insert(Thing).values(name="undone"))
    savepoint.rollback()


def write_then_roll_back_savepoint(session: Session) -> None:
    """Write, and roll back only a later SAVEPOINT."""
    session.execute(insert(Thing).values(name="forgotten"))
    roll_back_savepoint(session)


def write_temporary_table(session: Session) -> None:
    """Write to a table that is dropped with its connection."""
    session.execute(text("CREATE TEMPORARY TABLE scratch_things (id INTEGER)"))
    session.execute(text("INSERT INTO scratch_things VALUES (1)"))
    table = Table("scratch_things", MetaData(), Column("id", Integer))
    session.execute(insert(table).values(id=2))
    session.execute(text("UPDATE scratch_things SET id = 3"))
    session.execute(text('DELETE FROM "scratch_things"'))
    session.execute(text("DROP TABLE scratch_things"))


@pytest.mark.parametrize("work", [roll_back_savepoint, write_temporary_table])
def test_what_cannot_be_committed_is_not_forgotten(own_app: Flask, work: Work) -> None:
    """A rolled back SAVEPOINT and a temporary table do not count as a forgotten commit."""
    serve(own_app, work)

    assert own_app.test_client().post("/work").status_code == 201


def test_work_before_a_savepoint_is_forgotten(own_app: Flask) -> None:
    """The rollback of a SAVEPOINT does not hide earlier writes."""
    serve(own_app, write_then_roll_back_savepoint)

    with pytest.raises(UncommittedWork, match="INSERT INTO foundation_things"):
        own_app.test_client().post("/work")
