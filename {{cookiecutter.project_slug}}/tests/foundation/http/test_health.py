"""The responses of the probes in every state of the database."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import QueuePool, create_engine, make_url, text
from werkzeug.test import TestResponse

from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.http import health

from ..databases import Databases, SQLite, wanted
from ..fixtures import make_settings
from ..sample.app import create_app

PASSWORD = "pa55word"  # noqa: S105  # It must not appear in a response or in the log.


@pytest.fixture
def service() -> Iterator[Callable[[str], Flask]]:
    """Build the service on any database."""
    built: list[Flask] = []

    def build(url: str) -> Flask:
        built.append(create_app(make_settings(url)))
        return built[-1]

    yield build
    for app in built:
        for engine in engines_of(app):
            engine.dispose()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine that is bound, and on which no process listens."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def unreachable_url(closed_port: int, tmp_path: Path) -> str:
    """The URL of an unreachable database: a closed port, or a folder instead of a file."""
    return {
        "postgresql": f"postgresql+psycopg://user:{PASSWORD}@127.0.0.1:{closed_port}/name",
        "sqlite": f"sqlite+pysqlite:///{tmp_path}",
    }[wanted()]


def execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def assert_not_ready(response: TestResponse, missing: str) -> str:
    """Check a 503 that names what is missing, and return its detail."""
    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    body = response.get_json(force=True)
    assert body["missing"] == [missing]
    return str(body["detail"])


def test_livez_answers_without_a_database(service: Callable[[str], Flask], unreachable_url: str) -> None:
    """Liveness returns 200 without a reachable database."""
    response = service(unreachable_url).test_client().get("/livez")

    assert (response.status_code, response.json) == (200, {"status": "alive"})


def test_livez_opens_no_connection(service: Callable[[str], Flask], unreachable_url: str) -> None:
    """Liveness opens no database connection."""
    app = service(unreachable_url)

    app.test_client().get("/livez")

    (engine,) = engines_of(app)
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedin() + engine.pool.checkedout() == 0


def test_readyz_is_ready_at_the_newest_schema(
    service: Callable[[str], Flask], each_databases: Databases
) -> None:
    """Readiness returns 200 at the newest schema, and its connection goes back to the pool."""
    app = service(each_databases.sampled())

    response = app.test_client().get("/readyz")

    assert (response.status_code, response.json) == (200, {"status": "ready"})
    (engine,) = engines_of(app)
    assert isinstance(engine.pool, QueuePool)
    assert (engine.pool.checkedout(), engine.pool.checkedin()) == (0, 1)


def test_readyz_names_the_schema_of_an_empty_database(
    service: Callable[[str], Flask], each_databases: Databases
) -> None:
    """On an empty database readiness returns 503 and names the revision that the code needs."""
    response = service(each_databases.empty()).test_client().get("/readyz")

    detail = assert_not_ready(response, "schema")
    assert detail == "The schema is at nothing, this code needs 0001: run the migrations."


@pytest.fixture
def newer(tmp_path: Path, sample_migrations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of the code that needs one more migration."""
    migrations = shutil.copytree(sample_migrations, tmp_path / "migrations")
    later = "revision = '9999'\ndown_revision = '0001'\n"
    (migrations / "versions" / "9999_later.py").write_text(later)
    monkeypatch.setattr(health, "MIGRATIONS", migrations)


@pytest.fixture(params=["no folder", "an empty folder"])
def no_migrations(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of the code without migrations; version control keeps no empty folders."""
    if request.param == "an empty folder":
        (tmp_path / "versions").mkdir()
    monkeypatch.setattr(health, "MIGRATIONS", tmp_path)


def test_readyz_is_ready_without_any_migration(
    service: Callable[[str], Flask], each_databases: Databases, no_migrations: None
) -> None:
    """Without any migration readiness returns 200 on an empty database, and on one that has a revision."""
    for url in (each_databases.empty(), each_databases.sampled()):
        assert service(url).test_client().get("/readyz").status_code == 200


def test_readyz_names_an_outdated_schema_until_it_is_migrated(
    service: Callable[[str], Flask], database_url: str, newer: None
) -> None:
    """Readiness reports a schema older than the code, and recovers when the schema is migrated."""
    client = service(database_url).test_client()
    assert "this code needs 9999" in assert_not_ready(client.get("/readyz"), "schema")

    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")

    assert client.get("/readyz").status_code == 200


def test_readyz_names_a_schema_without_a_revision(service: Callable[[str], Flask], database_url: str) -> None:
    """Readiness reports a schema that records no revision."""
    execute(database_url, "DELETE FROM alembic_version")

    assert "nothing" in assert_not_ready(service(database_url).test_client().get("/readyz"), "schema")


def test_readyz_is_ready_on_the_schema_of_a_newer_version(
    service: Callable[[str], Flask], database_url: str
) -> None:
    """Readiness returns 200 on the schema of a newer version of the code."""
    # A deployment migrates before it starts the new code: the running pods must stay ready.
    execute(database_url, "UPDATE alembic_version SET version_num = 'later'")

    assert service(database_url).test_client().get("/readyz").status_code == 200


def test_readyz_names_an_unreachable_database(service: Callable[[str], Flask], unreachable_url: str) -> None:
    """Readiness reports an unreachable database."""
    response = service(unreachable_url).test_client().get("/readyz")

    assert assert_not_ready(response, "database") == "The database cannot be reached."


def test_readyz_names_a_lost_database_until_it_is_back(
    service: Callable[[str], Flask], sqlite: SQLite
) -> None:
    """Readiness reports a lost database, and recovers when it is back."""
    url = sqlite.sampled()
    path = Path(make_url(url).database or "")
    content = path.read_bytes()
    app = service(url)
    path.write_bytes(b"garbage" * 1000)
    assert_not_ready(app.test_client().get("/readyz"), "database")

    path.write_bytes(content)

    assert app.test_client().get("/readyz").status_code == 200


def test_a_failed_probe_reveals_no_password(
    service: Callable[[str], Flask], unreachable_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed probe logs its cause, but neither its response nor the log contains the password."""
    response = service(unreachable_url).test_client().get("/readyz")

    assert PASSWORD not in response.text
    assert PASSWORD not in caplog.text
    assert "not ready: the database cannot be reached" in caplog.text
