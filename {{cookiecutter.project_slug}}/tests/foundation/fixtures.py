"""Fixtures of every test: real databases, and a client and a session of the service `app`.

The owner's and the foundation's tests each define `app` in their own conftest.py. No application context is
pushed for a test: requests would see it and share its session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.foundation.configuration import ServiceSettings
from {{cookiecutter.package_name}}.foundation.database import db
from {{cookiecutter.package_name}}.foundation.http import Authentication

from . import databases
from .databases import Databases, PostgreSQL, SQLite

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
    """The main kind of database of this run."""
    found: Databases = request.getfixturevalue(databases.wanted())
    return found


@pytest.fixture(params=databases.names())
def each_databases(request: pytest.FixtureRequest) -> Databases:
    """Every kind of database in turn, for behaviour that must not differ."""
    found: Databases = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def database_url(own_databases: Databases) -> str:
    """A migrated database for this test only."""
    return own_databases.migrated()


def make_settings(url: str, **changes: Any) -> ServiceSettings:
    """Return settings of the foundation for a test, with changes."""
    return ServiceSettings(**required_settings(url) | changes)


def required_settings(url: str) -> dict[str, Any]:
    """Return the settings that a service needs in tests; pass them to its own settings class."""
    return {"app_env": "testing", "log_level": "warning", "database_url": url, "secret_key": SECRET}


@pytest.fixture
def isolated(app: Flask) -> Iterator[None]:
    """Roll back the test's changes to the database, including commits.

    Every session joins one connection, whose transaction is rolled back at the end; a commit only releases a
    SAVEPOINT. Source: SQLAlchemy, "Joining a Session into an External Transaction".
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


SignIn = Callable[[Authentication[Any], object], FlaskClient]


@pytest.fixture
def sign_in(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> SignIn:
    """Return a client whose requests have a user: `sign_in(bearer, User("ada"))`."""

    def sign_in(authentication: Authentication[Any], user: object) -> FlaskClient:
        monkeypatch.setattr(authentication, "identify", lambda request: user)
        return client

    return sign_in


@pytest.fixture
def session(app: Flask, isolated: None) -> Iterator[Session]:
    """A session that sees commits of requests, and whose commits they see."""
    with app.app_context():
        connection: Any = db.engine
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        yield session


@pytest.fixture
def statements(app: Flask, isolated: None) -> list[str]:
    """The SQL of each statement of `client` and `session`; `statements.clear()` empties the list.

    The SAVEPOINTs of `isolated` are not included.
    """
    found: list[str] = []

    def record(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "SAVEPOINT" not in statement:
            found.append(statement)

    with app.app_context():
        connections = list(db.engines.values())
    for connection in connections:  # `isolated` closes them, which removes the listener.
        event.listen(connection, "before_cursor_execute", record)
    return found
