"""No two processes use the same connection, however the second was forked."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, text
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.foundation.database import db, fork_safety
from {{cookiecutter.package_name}}.foundation.database.session import engines_of

from ..databases import PROJECT, Databases
from ..fixtures import SECRET, make_settings
from ..forks import Fork, fork_without_hooks, in_child
from ..sample.app import create_app


@pytest.fixture(params=[os.fork, fork_without_hooks], ids=["hooks", "no hooks"])
def fork(request: pytest.FixtureRequest) -> Fork:
    """Each way to fork: with Python's hooks, and without."""
    way: Fork = request.param
    return way


@pytest.fixture(scope="module")
def apps() -> Iterator[dict[int, Flask]]:
    """The services of this module, one per kind of database."""
    built: dict[int, Flask] = {}
    yield built
    for app in built.values():
        for engine in engines_of(app):
            engine.dispose()


@pytest.fixture
def own_app(each_databases: Databases, apps: dict[int, Flask]) -> Iterator[Flask]:
    """The service without connections, with an empty table and a view that identifies its connection."""
    if id(each_databases) not in apps:
        apps[id(each_databases)] = build(each_databases.sampled())
    app = apps[id(each_databases)]
    (engine,) = engines_of(app)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM foundation_things"))
    yield app
    engine.dispose()


def build(url: str) -> Flask:
    app = create_app(make_settings(url))

    @app.get("/connection")
    def connection() -> str:
        return describe(db.session.connection())

    with app.app_context(), db.engine.begin() as connection_:
        connection_.execute(text("CREATE TABLE foundation_things (id INTEGER)"))
    return app


def describe(connection: Connection) -> str:
    """Return the process that opened a connection, and its server process."""
    assert connection.scalar(text("SELECT 1")) == 1
    driver: Any = connection.connection.dbapi_connection
    return f"{connection.info['pid']} {driver.info.backend_pid if hasattr(driver, 'info') else 'file'}"


@pytest.fixture
def held(own_app: Flask) -> Iterator[Session]:
    """A session in the middle of a transaction."""
    (engine,) = engines_of(own_app)
    with Session(engine) as session:
        session.execute(text("INSERT INTO foundation_things VALUES (1)"))
        yield session


def count(app: Flask) -> object:
    """Return the number of rows that another connection sees."""
    with app.test_request_context():
        return db.session.scalar(text("SELECT count(*) FROM foundation_things"))


def test_a_child_uses_no_connection_of_its_parents_pool(own_app: Flask, fork: Fork) -> None:
    """A child process uses no connection from its parent's pool."""
    client = own_app.test_client()
    before = client.get("/connection").text
    assert before.startswith(f"{os.getpid()} ")

    in_the_child = in_child(fork, lambda: f"{os.getpid()} is {client.get('/connection').text}")

    child, owner, backend = re.fullmatch(r"(\d+) is (\d+) (.+)", in_the_child).groups()  # type: ignore[union-attr]
    assert child == owner != str(os.getpid())
    assert backend == "file" or backend != before.split()[1]
    assert client.get("/connection").text == before


def last_spoken(engine: Engine, backend: str) -> object:
    """Return the time of the last activity on a connection, if its kind of database records it."""
    if backend == "file":
        return None
    another = create_engine(engine.url, poolclass=NullPool)
    with another.connect() as connection:
        statement = text("SELECT state_change FROM pg_stat_activity WHERE pid = :backend")
        return connection.scalar(statement, {"backend": int(backend)})


def test_a_child_sends_no_ping_on_its_parents_connection(own_app: Flask, fork: Fork) -> None:
    """A child process does not even ping its parent's connection."""
    client = own_app.test_client()
    (engine,) = engines_of(own_app)
    _, backend = client.get("/connection").text.split()
    before = last_spoken(engine, backend)

    in_child(fork, lambda: client.get("/connection").text)

    assert last_spoken(engine, backend) == before


def test_a_grandchild_opens_its_own_connections(own_app: Flask, fork: Fork) -> None:
    """The child of a child process opens its own connections, too."""
    client = own_app.test_client()
    client.get("/connection")

    def fork_again() -> str:
        inner = client.get("/connection").text
        return f"{os.getpid()} {inner} {in_child(fork, lambda: client.get('/connection').text)}"

    child, inner, inner_backend, innermost, innermost_backend = in_child(fork, fork_again).split()

    assert child == inner != innermost
    assert inner_backend == "file" or inner_backend != innermost_backend


def test_where_hooks_run_a_child_begins_with_an_empty_pool(own_app: Flask) -> None:
    """Where Python's fork hooks run, a child process begins with an empty pool."""
    (engine,) = engines_of(own_app)

    def waiting() -> int:
        assert isinstance(engine.pool, QueuePool)
        return engine.pool.checkedin()

    assert waiting() == 1
    assert in_child(os.fork, waiting) == "0"
    assert waiting() == 1


def test_outside_of_requests_the_pool_opens_another_connection(own_app: Flask, fork: Fork) -> None:
    """Outside of requests, the pool opens another connection in a child process."""
    (engine,) = engines_of(own_app)
    with engine.connect() as connection:
        before = describe(connection)

    def connect() -> str:
        with engine.connect() as connection:
            return describe(connection)

    in_the_child = in_child(fork, connect)

    assert re.fullmatch(r"\d+ (file|\d+)", in_the_child)
    assert in_the_child.split()[0] != before.split()[0]
    with engine.connect() as connection:
        assert describe(connection) == before


def test_a_session_held_across_a_fork_is_refused(held: Session, fork: Fork) -> None:
    """A session held across a fork raises an error that names the processes, the line and the fix."""
    refusal = in_child(fork, lambda: held.execute(text("SELECT 1")))

    assert refusal.startswith(
        f"ConnectionCrossedFork: a connection opened in process {os.getpid()} at {__file__}:"
    )
    assert re.search(r"test_fork_safety\.py:\d+ is used in process \d+: ", refusal)
    assert "a session or connection was made before the server forked, and kept" in refusal
    assert refusal.endswith("Keep none in a global; use db.session inside the request.")


def forget(session: Session) -> None:
    session.__dict__.clear()
    gc.collect()


def execute_and_roll_back(session: Session) -> None:
    with pytest.raises(fork_safety.ConnectionCrossedFork):
        session.execute(text("DELETE FROM foundation_things"))
    session.rollback()


def dispose(session: Session) -> None:
    session.get_bind().engine.dispose()
    session.close()


CLEAN_UPS: dict[str, Callable[[Session], object]] = {
    "nothing": lambda session: None,
    "roll back": lambda session: session.rollback(),
    "commit": lambda session: session.commit(),
    "close": lambda session: session.close(),
    "invalidate": lambda session: session.invalidate(),
    "execute": lambda session: session.execute(text("DELETE FROM foundation_things")),
    "execute and roll back": execute_and_roll_back,
    "dispose of the engine": dispose,
    "forget": forget,
}


@pytest.mark.parametrize("clean_up", CLEAN_UPS.values(), ids=CLEAN_UPS)
def test_nothing_a_child_does_with_a_session_disturbs_its_parent(
    own_app: Flask, held: Session, fork: Fork, clean_up: Callable[[Session], object]
) -> None:
    """No operation of a child process on its parent's session disturbs the parent's transaction."""
    in_child(fork, lambda: clean_up(held))

    assert count(own_app) == 0
    assert held.scalar(text("SELECT count(*) FROM foundation_things")) == 1
    held.commit()
    assert count(own_app) == 1


def test_a_child_works_during_its_parents_transaction(own_app: Flask, held: Session, fork: Fork) -> None:
    """A child process can use the database while its parent is in the middle of a transaction."""
    assert in_child(fork, lambda: count(own_app)) == "0"

    held.commit()
    assert in_child(fork, lambda: count(own_app)) == "1"


PARENT = """
import ctypes, os, sys
from sqlalchemy import text
from sqlalchemy.orm import Session
from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from tests.foundation.sample.app import create_app

(engine,) = engines_of(create_app())
session = Session(engine)
session.execute(text("CREATE TABLE foundation_parent (id INTEGER)"))
with engine.connect():
    pass
for number, fork in enumerate([os.fork, ctypes.PyDLL(None).fork]):
    child = fork()
    if not child:
        sys.exit()
    assert os.waitpid(child, 0) == (child, 0)
    session.execute(text(f"INSERT INTO foundation_parent VALUES ({number})"))
    session.commit()
    with engine.connect() as connection:
        print(connection.scalar(text("SELECT count(*) FROM foundation_parent")), flush=True)
"""


def test_a_child_that_exits_leaves_its_parents_connections_alone(each_databases: Databases) -> None:
    """A child that exits leaves its parent's session and pool usable, whether fork hooks ran or not."""
    settings = {"DATABASE_URL": each_databases.sampled(), "SECRET_KEY": SECRET}
    folders = f"{PROJECT / 'src'}{os.pathsep}{PROJECT}"

    parent = subprocess.run(
        [sys.executable, "-c", PARENT],
        env=os.environ | settings | {"PYTHONPATH": folders},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (parent.returncode, parent.stdout) == (0, "1\n2\n"), parent.stderr


def guarded(engine: Engine) -> set[str]:
    """Return the events of an engine and its pool that fork safety uses and that have a listener."""
    events = {
        engine: ("before_cursor_execute", "commit", "rollback"),
        engine.pool: ("checkout", "reset", "invalidate", "close"),
    }
    return {name for target, names in events.items() for name in names if getattr(target.dispatch, name)}


def test_only_watched_engines_have_listeners(own_app: Flask) -> None:
    """An engine created by the owner has no listeners of the foundation until it is watched."""
    (engine,) = engines_of(own_app)
    another = create_engine(engine.url)

    assert guarded(another) == set()

    fork_safety.watch(another)
    assert len(guarded(another)) == 7
    another.dispose()


def test_connections_of_an_unwatched_engine_are_untouched(own_app: Flask) -> None:
    """A connection of an unwatched engine carries no data of the foundation."""
    (engine,) = engines_of(own_app)
    another = create_engine(engine.url)

    with another.connect() as connection:
        assert "pid" not in connection.info
    another.dispose()


def test_connections_opened_while_building_are_closed_and_named(
    own_app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections opened while the application was built are closed, and a warning names the line."""
    (engine,) = engines_of(own_app)
    pool = engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedin() == 1

    fork_safety.close_early_connections([engine])

    (record,) = caplog.records
    assert re.match(
        rf"a database connection was opened at {re.escape(__file__)}:\d+ while the application was",
        record.getMessage(),
    )
    assert (pool.checkedin(), pool.checkedout()) == (0, 0)
    assert engine.pool is not pool


def test_an_application_that_opened_nothing_gives_no_warning(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that opens no connection while it is built logs no warning."""
    app = create_app(make_settings(database_url))

    fork_safety.close_early_connections(engines_of(app))

    assert caplog.records == []


def test_a_warning_about_early_connections_comes_once(
    own_app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing early connections again logs no second warning."""
    fork_safety.close_early_connections(engines_of(own_app))
    caplog.clear()

    fork_safety.close_early_connections(engines_of(own_app))

    assert caplog.records == []
