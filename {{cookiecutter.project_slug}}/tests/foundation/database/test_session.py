"""One session per context, explicit commits, and a session that is always closed."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, appcontext_tearing_down
from sqlalchemy import (
    CheckConstraint,
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    QueuePool,
    Table,
    delete,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from {{cookiecutter.package_name}}.foundation.configuration import ServiceSettings
from {{cookiecutter.package_name}}.foundation.database import Base, UTCDateTime, db, transaction
from {{cookiecutter.package_name}}.foundation.database.engine import engine_options
from {{cookiecutter.package_name}}.foundation.database.session import end_session, engines_of

from ..databases import Databases, SQLite
from ..fixtures import make_settings
from ..sample.app import create_app


class OwnBase(DeclarativeBase):
    """Tables unknown to the migrations and the service."""


class Counter(OwnBase):
    """A row to write to."""

    __tablename__ = "foundation_counters"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(default=0)
    read_at: Mapped[datetime | None] = mapped_column(UTCDateTime)


@contextmanager
def service(url: str) -> Iterator[Flask]:
    """Build the service on a database, and let the counter begin at 0."""
    app = create_app(make_settings(url))
    with app.app_context():
        OwnBase.metadata.create_all(db.engine)
        with transaction() as session:
            session.execute(delete(Counter))
            session.add(Counter(id=1, number=0))
    yield app
    for engine in engines_of(app):
        engine.dispose()


@pytest.fixture(scope="module")
def url(own_databases: Databases) -> str:
    """A database that the tests of this module share."""
    return own_databases.sampled()


@pytest.fixture
def own_app(url: str) -> Iterator[Flask]:
    """A service for a single test."""
    with service(url) as app:
        yield app


@pytest.fixture
def sqlite_app(sqlite: SQLite) -> Iterator[Flask]:
    """The same on SQLite, even if the project uses another database."""
    with service(sqlite.sampled()) as app:
        yield app


@pytest.fixture
def engine(own_app: Flask) -> Engine:
    (engine,) = engines_of(own_app)
    return engine


def number(app: Flask) -> int:
    """Return the number that another session reads."""
    with app.app_context():
        return db.session.get_one(Counter, 1).number


def connections(engine: Engine) -> tuple[int, int]:
    """Return the number of connections in use, and of those in the pool."""
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedout(), engine.pool.checkedin()


def add_one(session: Session) -> None:
    counter = session.get_one(Counter, 1, with_for_update=True)
    counter.number += 1


def add_one_and_raise(session: Session, error: type[BaseException]) -> None:
    add_one(session)
    session.flush()
    raise error


def test_a_transaction_is_committed_at_its_end(own_app: Flask) -> None:
    """A transaction is committed at the end of its block."""
    with own_app.app_context():
        with transaction() as session:
            add_one(session)

        assert number(own_app) == 1


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_transaction_that_raises_is_rolled_back(own_app: Flask, raised: type[BaseException]) -> None:
    """A transaction whose block raises is rolled back and does not stay open."""
    with own_app.app_context():
        with pytest.raises(raised), transaction() as session:
            add_one_and_raise(session, raised)

        assert not db.session().in_transaction()
    assert number(own_app) == 0


def test_the_next_transaction_works_after_one_that_raised(own_app: Flask) -> None:
    """The next transaction works after one that raised."""
    with own_app.app_context():
        with pytest.raises(IntegrityError), transaction() as session:
            session.add(Counter(id=1))
        with transaction() as session:
            add_one(session)

    assert number(own_app) == 1


def test_a_commit_that_is_refused_is_rolled_back(own_app: Flask) -> None:
    """A transaction whose commit raises is rolled back and does not stay open."""

    def refuse(session: Session) -> None:
        raise LookupError

    with own_app.app_context():
        event.listen(db.session(), "before_commit", refuse)
        with pytest.raises(LookupError), transaction() as session:
            add_one(session)

        assert not db.session().in_transaction()
    assert number(own_app) == 0


def test_nested_transactions_are_one_and_committed_once(own_app: Flask, engine: Engine) -> None:
    """Nested transactions share one session and are committed once, at the end of the outermost."""
    commits: list[object] = []
    event.listen(engine, "commit", commits.append)

    with own_app.app_context(), transaction() as outer:
        add_one(outer)
        with transaction() as inner:
            assert inner is outer
            add_one(inner)
        assert commits == []

    assert len(commits) == 1
    assert number(own_app) == 2


def test_an_error_after_a_nested_transaction_undoes_it_too(own_app: Flask) -> None:
    """An error after a nested transaction rolls that one back, too."""

    def use_another(outer: Session) -> None:
        with transaction() as inner:
            add_one(inner)
        raise LookupError

    with own_app.app_context(), pytest.raises(LookupError), transaction() as session:
        use_another(session)

    assert number(own_app) == 0


ISOLATION: dict[str, tuple[str, str, list[object]]] = {
    "postgresql": ("SERIALIZABLE", "SHOW transaction_isolation", ["read committed", "serializable"]),
    "sqlite": ("READ UNCOMMITTED", "PRAGMA read_uncommitted", [0, 1]),
}


def test_options_are_for_one_transaction(own_app: Flask, engine: Engine) -> None:
    """Execution options apply to one transaction only."""
    level, question, (usual, changed) = ISOLATION[engine.dialect.name]

    with own_app.app_context():
        with transaction(isolation_level=level) as session:
            assert session.scalar(text(question)) == changed
        with transaction() as session:
            assert session.scalar(text(question)) == usual


def test_options_of_a_nested_transaction_are_refused(own_app: Flask) -> None:
    """Execution options of a nested transaction raise an error."""
    with (
        own_app.app_context(),
        transaction(),
        pytest.raises(RuntimeError, match="an outer transaction"),
        transaction(isolation_level="SERIALIZABLE"),
    ):
        pass


def test_options_after_the_first_statement_are_refused(own_app: Flask) -> None:
    """Execution options after the first statement raise an error."""
    with own_app.app_context():
        db.session.execute(text("SELECT 1"))
        with pytest.raises(RuntimeError, match="has begun"), transaction(isolation_level="SERIALIZABLE"):
            pass


def test_objects_can_be_read_after_the_commit(own_app: Flask, engine: Engine) -> None:
    """Objects can be read after the commit without another statement."""
    statements: list[str] = []
    with own_app.app_context():
        with transaction() as session:
            counter = session.get_one(Counter, 1)
            counter.number = 5
        event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

        assert counter.number == 5
        assert statements == []


def test_a_transaction_does_not_see_rows_read_by_an_earlier_one(own_app: Flask) -> None:
    """A transaction reads current rows, not those read by an earlier one."""
    with own_app.app_context():
        with transaction() as session:
            counter = session.get_one(Counter, 1)
        with own_app.app_context(), transaction() as another:
            add_one(another)

        with transaction() as session:
            assert counter.number == 1
            add_one(session)

    assert number(own_app) == 2


def test_a_change_made_before_the_transaction_is_not_lost(own_app: Flask) -> None:
    """A change made before the transaction is committed with it."""
    with own_app.app_context():
        counter = db.session.get_one(Counter, 1)
        counter.number = 7
        with transaction():
            pass

    assert number(own_app) == 7


def test_a_change_made_before_the_transaction_is_undone_with_it(own_app: Flask) -> None:
    """A change made before the transaction is rolled back with it."""
    with own_app.app_context():
        db.session.add(Counter(id=1))
        with pytest.raises(IntegrityError), transaction():
            pass

        assert not db.session().in_transaction()
        with transaction() as session:
            add_one(session)

    assert number(own_app) == 1


def test_no_update_is_lost_between_threads(each_databases: Databases) -> None:
    """No update is lost between threads that write at the same time."""
    with service(each_databases.sampled()) as app:

        def add_five(_: int) -> None:
            with app.app_context():
                for _ in range(5):
                    with transaction() as session:
                        add_one(session)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(add_five, range(4)))

        assert number(app) == 20


def test_a_context_has_one_session_and_a_nested_one_has_its_own(own_app: Flask) -> None:
    """A context has one session, and a nested context has another."""
    with own_app.app_context():
        outer = db.session()
        with own_app.app_context():
            assert db.session() is not outer
        assert db.session() is outer


def test_a_leaked_session_is_not_found_by_a_later_context(
    own_app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later context at the same memory address does not find a leaked session."""

    def leak() -> bool:
        """Open a session in a context whose end does nothing; return whether one was there already."""
        with own_app.app_context():
            found = "leaked" in db.session().info
            db.session().info["leaked"] = True
            return found

    monkeypatch.setattr(own_app, "do_teardown_appcontext", lambda *args: None)
    # CPython soon puts a context where one was before.
    found = [leak() for _ in range(200)]
    db.session.registry.registry.clear()

    assert not any(found)


def test_a_context_ends_without_session_or_connection(own_app: Flask, engine: Engine) -> None:
    """At the end of a context its connection is back in the pool and its session is gone."""
    engine.dispose()

    with own_app.app_context():
        db.session.execute(text("SELECT 1"))
        assert connections(engine) == (1, 0)

    assert connections(engine) == (0, 1)
    assert not db.session.registry.registry


def kill(session: Session) -> object:
    """Break the session's connection unnoticed, as far as its kind of database allows; return it."""
    session.execute(text("SELECT 1"))
    connection: Any = session.connection().connection.dbapi_connection
    if isinstance(connection, sqlite3.Connection):
        connection.close()
    else:
        with db.engine.connect() as another:
            statement = text("SELECT pg_terminate_backend(:pid, 10000)")
            assert another.scalar(statement, {"pid": connection.info.backend_pid})
    return connection


def test_a_connection_that_died_does_not_return_to_the_pool(
    own_app: Flask, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A dead connection is dropped, logged and not returned to the pool, and its session is forgotten."""
    returned: list[object] = []
    event.listen(engine, "checkin", lambda connection, record: returned.append(connection))

    with own_app.app_context():
        dead = kill(db.session())

    assert "the session did not close, its connection is dropped" in caplog.text
    assert not db.session.registry.registry
    assert connections(engine)[0] == 0
    assert dead not in returned
    assert number(own_app) == 0


def test_a_session_that_cannot_be_closed_is_forgotten(
    own_app: Flask, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that cannot be closed is logged and forgotten, and keeps no connection."""

    def refuse(*args: object) -> None:
        raise ValueError

    with own_app.app_context():
        db.session.execute(text("SELECT 1"))
        event.listen(db.session(), "after_transaction_end", refuse)

    assert "the session did not close" in caplog.text
    assert not db.session.registry.registry
    assert connections(engine)[0] == 0


def test_the_end_of_a_context_without_a_session_opens_none(own_app: Flask) -> None:
    """A context without a session opens none at its end."""
    with own_app.app_context():
        end_session()

        assert not db.session.registry.registry


def query(*args: object, **kwargs: object) -> None:
    """Open a session after the context has ended its own."""
    db.session.execute(text("SELECT 1"))


def test_the_connection_is_back_before_any_other_teardown_runs(own_app: Flask, engine: Engine) -> None:
    """The connection is back in the pool before any other teardown runs."""
    engine.dispose()
    found: list[tuple[int, int]] = []
    # Flask runs the last one first.
    own_app.teardown_appcontext_funcs.append(lambda error: found.append(connections(engine)))

    with own_app.app_context():
        query()

    assert found == [(0, 1)]


def test_a_teardown_that_opens_a_session_again_leaks_nothing(own_app: Flask, engine: Engine) -> None:
    """A teardown that opens a session again leaks neither a session nor a connection."""
    # Flask runs the first one last, after the one of Flask-SQLAlchemy.
    own_app.teardown_appcontext_funcs.insert(0, query)

    with own_app.app_context():
        query()

    assert connections(engine)[0] == 0
    assert not db.session.registry.registry


def test_a_signal_receiver_that_opens_a_session_leaks_nothing(own_app: Flask, engine: Engine) -> None:
    """A signal receiver that opens a session again leaks neither a session nor a connection."""
    with appcontext_tearing_down.connected_to(query, own_app), own_app.app_context():
        query()
    gc.collect()

    assert connections(engine)[0] == 0
    assert not db.session.registry.registry


def test_a_postgresql_engine_fits_the_threads_and_bounds_waits() -> None:
    """A PostgreSQL engine has one connection per thread and a timeout for every wait."""
    options = engine_options("postgresql+psycopg://host/name", threads=7, timeout=3, name="notes")

    assert options["pool_size"] == 7
    assert options["max_overflow"] == 2
    assert options["pool_timeout"] == 2
    assert options["pool_pre_ping"] is True
    assert options["connect_args"]["connect_timeout"] <= 3
    assert options["connect_args"]["application_name"] == "notes"
    assert "-c statement_timeout=3s -c lock_timeout=3s" in options["connect_args"]["options"]
    assert "-c idle_in_transaction_session_timeout=60s" in options["connect_args"]["options"]


def test_a_sqlite_engine_waits_for_other_writers() -> None:
    """A SQLite engine waits up to five seconds for other writers."""
    options = engine_options("sqlite+pysqlite:////app.db", threads=7, timeout=3, name="notes")

    assert options == {"connect_args": {"timeout": 5}}


DEADLINES: dict[str, tuple[str, object]] = {
    "postgresql": ("SHOW statement_timeout", f"{ServiceSettings.model_fields['database_timeout'].default}s"),
    "sqlite": ("PRAGMA busy_timeout", 5000),
}


def test_the_options_reach_the_database(own_app: Flask, engine: Engine) -> None:
    """The engine's timeouts reach the database."""
    question, answer = DEADLINES[engine.dialect.name]

    with own_app.app_context():
        assert db.session.scalar(text(question)) == answer


def test_constraints_are_named() -> None:
    """Every constraint and index gets a name by convention."""
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    Table("parents", metadata, Column("id", Integer, primary_key=True))
    table = Table(
        "children",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("parent_id", ForeignKey("parents.id"), index=True),
        Column("name", Integer, unique=True),
        CheckConstraint("name > 0", name="positive"),
    )

    assert {str(constraint.name) for constraint in table.constraints} == {
        "pk_children",
        "fk_children_parent_id_parents",
        "uq_children_name",
        "ck_children_positive",
    }
    assert [index.name for index in table.indexes] == ["ix_children_parent_id"]


def test_a_moment_comes_back_in_utc(each_databases: Databases) -> None:
    """A time in any zone is read back as the same moment in UTC."""
    moment = datetime(2024, 5, 17, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=45)))

    with service(each_databases.sampled()) as app, app.app_context():
        with transaction() as session:
            session.get_one(Counter, 1).read_at = moment
        db.session.expire_all()
        read = db.session.get_one(Counter, 1).read_at

    assert read == moment
    assert read is not None
    assert read.utcoffset() == UTC.utcoffset(None)


def test_sqlite_enforces_foreign_keys_and_writes_ahead(sqlite_app: Flask) -> None:
    """SQLite enforces foreign keys and uses a write-ahead log."""
    with sqlite_app.app_context():
        assert db.session.scalar(text("PRAGMA foreign_keys")) == 1
        assert db.session.scalar(text("PRAGMA journal_mode")) == "wal"


@pytest.mark.parametrize(
    ("method", "locked"),
    [("GET", False), ("HEAD", False), ("OPTIONS", False), ("POST", True), ("PATCH", True), ("DELETE", True)],
)
def test_only_requests_that_may_write_take_sqlites_write_lock(
    sqlite_app: Flask, method: str, locked: bool
) -> None:
    """Only requests whose method may write take SQLite's write lock."""
    path = make_url(sqlite_app.config["SQLALCHEMY_DATABASE_URI"]).database or ""

    with sqlite_app.test_request_context(method=method):
        db.session.execute(text("SELECT 1 FROM foundation_counters"))

        assert _is_locked(path) is locked


def test_work_outside_of_requests_takes_sqlites_write_lock(sqlite_app: Flask) -> None:
    """A transaction outside of requests takes SQLite's write lock."""
    path = make_url(sqlite_app.config["SQLALCHEMY_DATABASE_URI"]).database or ""

    with sqlite_app.app_context(), transaction():
        db.session.execute(text("SELECT 1 FROM foundation_counters"))

        assert _is_locked(path)


def _is_locked(path: str) -> bool:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False


def test_a_sqlite_file_is_neither_made_nor_kept_once_replaced(sqlite_app: Flask, sqlite: SQLite) -> None:
    """A missing SQLite file is never created, and a replaced file is never kept open."""
    assert number(sqlite_app) == 0
    file = Path(make_url(sqlite_app.config["SQLALCHEMY_DATABASE_URI"]).database or "")
    with service(sqlite.sampled()) as another, another.app_context(), transaction() as session:
        add_one(session)
        backup = Path(make_url(another.config["SQLALCHEMY_DATABASE_URI"]).database or "")

    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()
    with pytest.raises(OperationalError, match="unable to open database file"):
        number(sqlite_app)
    assert not file.exists()

    backup.rename(file)
    assert number(sqlite_app) == 1


def test_sqlite_undoes_a_change_of_the_schema_and_a_savepoint(sqlite_app: Flask) -> None:
    """A rollback on SQLite undoes a change of the schema and a released savepoint."""
    with sqlite_app.app_context():
        db.session.execute(text("CREATE TABLE half_done (id INTEGER)"))
        with db.session.begin_nested():
            db.session.execute(text("UPDATE foundation_counters SET number = 9"))
        db.session.rollback()

        assert db.session.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = 'half_done'")) == 0
    assert number(sqlite_app) == 0
