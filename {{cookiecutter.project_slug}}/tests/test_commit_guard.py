"""A forgotten commit fails the request, and a failed request commits nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from flask import Flask, Response, abort, redirect, stream_with_context
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.commit_guard import CommitAfterFailure, UncommittedWork
from {{cookiecutter.package_name}}.db import db, engines_of, transaction
from {{cookiecutter.package_name}}.errors import Problem, problem

from .conftest import make_settings
from .databases import Databases, wanted


class OwnBase(DeclarativeBase):
    """What migrations and the service know nothing of."""


class Thing(OwnBase):
    """A row to write to."""

    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture(scope="module")
def url(own_databases: Databases) -> str:
    """A database that the tests of this module share."""
    return own_databases.migrated()


@pytest.fixture
def build(url: str) -> Iterator[Callable[..., Flask]]:
    """Build services that find one thing in the database, whose name is `kept`."""
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
    """Let POST /work do some work in the request's session, and then answer."""

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


# What was committed before the second change was forgotten.
LEFT: dict[Work, list[str]] = {
    commit_and_change_again: ["kept", "new"],
    commit_and_change_an_object_again: ["changed"],
}

CTE = {
    "postgresql": "WITH gone AS (DELETE FROM things RETURNING id) SELECT count(*) FROM gone",
    "sqlite": "WITH old AS (SELECT id FROM things) DELETE FROM things WHERE id IN (SELECT id FROM old)",
}

FORGOTTEN: dict[str, tuple[Work, str]] = {
    "pending add": (add, "new <"),
    "flush": (flush, "INSERT INTO things"),
    "change": (change, "changed <"),
    "delete": (remove, "deleted <"),
    "released savepoint": (only_release_a_savepoint, "INSERT INTO things"),
    "second change": (commit_and_change_again, "INSERT INTO things"),
    "second change of an object": (commit_and_change_an_object_again, "changed <"),
    "Core insert": (lambda s: s.execute(insert(Thing).values(name="new")), "INSERT INTO things"),
    "bulk update": (lambda s: s.execute(update(Thing).values(name="changed")), "UPDATE things"),
    "bulk delete": (lambda s: s.execute(delete(Thing)), "DELETE FROM things"),
    "legacy bulk update": (lambda s: s.query(Thing).update({"name": "changed"}), "UPDATE things"),
    "bulk objects": (lambda s: s.bulk_save_objects([Thing(name="new")]), "INSERT INTO things"),
    "text": (execute("INSERT INTO things (name) VALUES ('new')"), "INSERT INTO things"),
    "lower case": (execute("\n  delete from things"), "delete from things"),
    "comment first": (execute("/* audit */ -- of\n DELETE FROM things"), "DELETE FROM things"),
    "CTE": (execute(CTE[wanted()]), "WITH "),
    "driver": (lambda s: s.connection().exec_driver_sql("DELETE FROM things"), "DELETE FROM things"),
}


@pytest.mark.parametrize(("work", "named"), FORGOTTEN.values(), ids=FORGOTTEN)
def test_a_forgotten_commit_fails_the_request_and_names_it(own_app: Flask, work: Work, named: str) -> None:
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
    serve(own_app, flush, answer)

    with pytest.raises(UncommittedWork, match="answers 303"):
        own_app.test_client().post("/work")


def test_what_another_after_request_function_wrote_counts_too(own_app: Flask) -> None:
    serve(own_app, lambda session: None)

    @own_app.after_request
    def write(response: Response) -> Response:
        flush(db.session())
        return response

    with pytest.raises(UncommittedWork, match="INSERT INTO things"):
        own_app.test_client().post("/work")


def test_where_errors_are_not_passed_on_the_client_gets_a_500(build: Callable[..., Flask]) -> None:
    app = build(app_env="development")
    serve(app, flush)

    assert app.test_client().post("/work").status_code == 500
    assert stored(app) == ["kept"]


def read(session: Session) -> None:
    session.scalars(select(Thing).with_for_update()).all()
    session.execute(text("SELECT name AS updated FROM things"))


LOCKING_READ = {
    "postgresql": "WITH old AS (SELECT id FROM things FOR UPDATE OF things) SELECT 'delete' AS set FROM old",
    "sqlite": "WITH old AS (SELECT id FROM things) SELECT id, 'delete' FROM old",
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
    session.execute(text("DELETE FROM things"))
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
    "commit by hand": (commit_by_hand, ["changed"]),
    "read after the commit": (read_after_the_commit, ["kept", "new"]),
    "rollback": (roll_back, ["kept"]),
    "same value": (set_the_same_value, ["kept"]),
    "own transaction": (use_an_own_transaction, ["kept", "own"]),
    "own connection": (close_an_own_connection, ["kept"]),
}


@pytest.mark.parametrize(("work", "left"), HONEST.values(), ids=HONEST)
def test_an_honest_request_is_let_alone(own_app: Flask, work: Work, left: list[str]) -> None:
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
    serve(own_app, flush, answer)

    assert own_app.test_client().post("/work").status_code == 409
    assert stored(own_app) == ["kept"]


def test_log_answers_and_logs(build: Callable[..., Flask], caplog: pytest.LogCaptureFixture) -> None:
    app = build(uncommitted_work="log")
    serve(app, flush)

    assert app.test_client().post("/work").status_code == 201

    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("POST /work answers 201 and has not committed: INSERT INTO things")
    assert stored(app) == ["kept"]


def test_off_says_nothing(build: Callable[..., Flask], caplog: pytest.LogCaptureFixture) -> None:
    app = build(uncommitted_work="off")
    serve(app, flush)

    assert app.test_client().post("/work").status_code == 201
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def stream(app: Flask, work: Work, write_on: Work) -> None:
    """Let POST /stream do some work, and then more of it while its answer is sent."""

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
    app = build(uncommitted_work=mode)
    stream(app, commit, commit_by_hand)

    assert app.test_client().post("/stream").text == "onetwo"
    assert stored(app) == ["changed", "new"]


def test_a_stream_cannot_commit_without_what_the_view_wrote(build: Callable[..., Flask]) -> None:
    app = build(uncommitted_work="log")
    stream(app, flush, commit_by_hand)

    with pytest.raises(CommitAfterFailure, match=r"^POST /stream has failed"):
        app.test_client().post("/stream", buffered=True)
    assert stored(app) == ["kept"]


def test_a_commit_that_a_stream_forgot_fails_it(own_app: Flask) -> None:
    stream(own_app, nothing, flush)

    with pytest.raises(UncommittedWork, match=r"^POST /stream answers 200 .*: INSERT INTO things"):
        own_app.test_client().post("/stream", buffered=True)
    assert stored(own_app) == ["kept"]


def test_log_logs_a_commit_that_a_stream_forgot(
    build: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
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
def test_an_after_request_function_cannot_commit_what_was_refused(
    build: Callable[..., Flask], answer: Callable[[], object], mode: str
) -> None:
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
    serve(own_app, flush, lambda: abort(409))

    @own_app.teardown_request
    @own_app.teardown_appcontext
    def commit_late(error: BaseException | None) -> None:
        late_commit()

    assert own_app.test_client().post("/work").status_code == 409
    assert caplog.text.count("CommitAfterFailure: POST /work has failed") == 2
    assert stored(own_app) == ["kept"]


def test_a_session_of_its_own_may_commit_after_a_failure(own_app: Flask) -> None:
    serve(own_app, flush, lambda: abort(409))

    @own_app.after_request
    def audit(response: Response) -> Response:
        with Session(db.engine) as session, session.begin():
            session.add(Thing(name="audit"))
        return response

    assert own_app.test_client().post("/work").status_code == 409
    assert stored(own_app) == ["audit", "kept"]


def test_the_next_request_may_commit_again(own_app: Flask) -> None:
    serve(own_app, flush, lambda: abort(409))

    @own_app.post("/next")
    def write() -> str:
        commit(db.session())
        return "done"

    client = own_app.test_client()

    assert [client.post(path).status_code for path in ("/work", "/next")] == [409, 200]
    assert stored(own_app) == ["kept", "new"]
