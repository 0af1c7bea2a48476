"""What every test may ask for: a real database, the service on it, a client, a session.

No application context is pushed for a test: requests would find it, and share its session.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.db import db
from {{cookiecutter.package_name}}.settings import Settings

from . import databases
from .databases import Databases, PostgreSQL, SQLite

# It is about what only a server on the other side of a network can do.
ABOUT_POSTGRESQL = ["test_deadline.py", "test_migration_locks.py"]
collect_ignore = [] if "postgresql" in databases.names() else ABOUT_POSTGRESQL

SECRET = "a key for tests that is long enough"  # noqa: S105


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A real PostgreSQL server."""
    with databases.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> SQLite:
    """SQLite files."""
    return SQLite(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def own_databases(request: pytest.FixtureRequest) -> Databases:
    """The kind of database that this run is about."""
    found: Databases = request.getfixturevalue(databases.wanted())
    return found


@pytest.fixture(params=databases.names())
def each_databases(request: pytest.FixtureRequest) -> Databases:
    """Every kind of database in turn, for what must be the same on all of them."""
    found: Databases = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def database_url(own_databases: Databases) -> str:
    """A migrated database that belongs to the test alone."""
    return own_databases.migrated()


def make_settings(url: str, **changes: Any) -> Settings:
    """Return settings for a test, with changes."""
    given = {"app_env": "testing", "log_level": "warning", "database_url": url, "secret_key": SECRET}
    return Settings(**given | changes)


@pytest.fixture(scope="session")
def app(own_databases: Databases) -> Iterator[Flask]:
    """The service, on a database that `isolated` keeps as it is."""
    app = create_app(make_settings(own_databases.migrated()))
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def isolated(app: Flask) -> Iterator[None]:
    """Undo what the test does to the database, commits included.

    Every session joins one connection, whose transaction is rolled back at the end; a commit only
    ends a SAVEPOINT. Source: SQLAlchemy, "Joining a Session into an External Transaction".
    """
    with app.app_context():
        engines: dict[str | None, Any] = db.engines  # type: ignore[assignment]
    originals = dict(engines)
    db.session.session_factory.configure(join_transaction_mode="create_savepoint")
    for key, engine in originals.items():
        engines[key] = engine.connect()
        engines[key].begin()
    yield
    for key, engine in originals.items():
        engines[key].close()
        engines[key] = engine
    db.session.session_factory.configure(join_transaction_mode="conditional_savepoint")


@pytest.fixture
def client(app: Flask, isolated: None) -> FlaskClient:
    """A client of the service."""
    return app.test_client()


@pytest.fixture
def session(app: Flask, isolated: None) -> Iterator[Session]:
    """A session that sees what requests committed, and whose commits they see."""
    with app.app_context():
        connection: Any = db.engine
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        yield session


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be lacking (CI), a skipped test is a failed one."""
    report = yield
    if report.skipped and os.environ.get("FORBID_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"FORBID_SKIPS is set, and this was skipped: {report.longrepr}"
    return report
