"""The answers of the probes, whatever state the database is in."""

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

from {{cookiecutter.package_name}} import health
from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.db import engines_of
from {{cookiecutter.package_name}}.health import MIGRATIONS, heads, known

from .conftest import make_settings
from .databases import Databases, SQLite, wanted

PASSWORD = "pa55word"  # noqa: S105  # It must not be found in anything that is told.


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
    """A port of this machine that is taken, and on which nobody listens."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def unreachable_url(closed_port: int, tmp_path: Path) -> str:
    """The URL of a database that is not there: nobody listens, or a folder stands where the file was."""
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
    """Check a refusal, and return what it says."""
    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    body = response.get_json(force=True)
    assert body["missing"] == [missing]
    return str(body["detail"])


def test_livez_answers_without_a_database(service: Callable[[str], Flask], unreachable_url: str) -> None:
    response = service(unreachable_url).test_client().get("/livez")

    assert (response.status_code, response.json) == (200, {"status": "alive"})


def test_livez_opens_no_connection(service: Callable[[str], Flask], unreachable_url: str) -> None:
    app = service(unreachable_url)

    app.test_client().get("/livez")

    (engine,) = engines_of(app)
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedin() + engine.pool.checkedout() == 0


def test_readyz_is_ready_at_the_newest_schema_and_keeps_no_connection(
    service: Callable[[str], Flask], each_databases: Databases
) -> None:
    app = service(each_databases.migrated())

    response = app.test_client().get("/readyz")

    assert (response.status_code, response.json) == (200, {"status": "ready"})
    (engine,) = engines_of(app)
    assert isinstance(engine.pool, QueuePool)
    assert (engine.pool.checkedout(), engine.pool.checkedin()) == (0, 1)


def test_readyz_names_the_schema_of_an_empty_database(
    service: Callable[[str], Flask], each_databases: Databases
) -> None:
    response = service(each_databases.empty()).test_client().get("/readyz")

    told = assert_not_ready(response, "schema")
    assert told == f"The schema is at nothing, this code needs {', '.join(heads())}: run the migrations."


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A version of the code that needs one migration more."""
    shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    (tmp_path / "migrations" / "versions" / "9999_later.py").write_text(
        f"revision = '9999'\ndown_revision = {min(heads())!r}\n"
    )
    monkeypatch.setattr(health, "MIGRATIONS", tmp_path / "migrations")
    heads.cache_clear()
    known.cache_clear()
    yield
    heads.cache_clear()
    known.cache_clear()


def test_readyz_names_the_schema_that_is_older_than_this_code_and_notices_when_it_is_not(
    service: Callable[[str], Flask], database_url: str, newer: None
) -> None:
    client = service(database_url).test_client()
    assert "this code needs 9999" in assert_not_ready(client.get("/readyz"), "schema")

    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")

    assert client.get("/readyz").status_code == 200


def test_readyz_names_a_schema_without_a_revision(service: Callable[[str], Flask], database_url: str) -> None:
    execute(database_url, "DELETE FROM alembic_version")

    assert "nothing" in assert_not_ready(service(database_url).test_client().get("/readyz"), "schema")


def test_readyz_is_ready_on_the_schema_of_a_newer_version(
    service: Callable[[str], Flask], database_url: str
) -> None:
    # The migrations of a deployment run before its code does: the pods that are there have to go on.
    execute(database_url, "UPDATE alembic_version SET version_num = 'later'")

    assert service(database_url).test_client().get("/readyz").status_code == 200


def test_readyz_names_a_database_that_is_not_there(
    service: Callable[[str], Flask], unreachable_url: str
) -> None:
    response = service(unreachable_url).test_client().get("/readyz")

    assert assert_not_ready(response, "database") == "The database cannot be reached."


def test_readyz_names_a_database_that_has_gone_and_notices_that_it_is_back(
    service: Callable[[str], Flask], sqlite: SQLite
) -> None:
    url = sqlite.migrated()
    path = Path(make_url(url).database or "")
    content = path.read_bytes()
    app = service(url)
    path.write_bytes(b"garbage" * 1000)
    assert_not_ready(app.test_client().get("/readyz"), "database")

    path.write_bytes(content)

    assert app.test_client().get("/readyz").status_code == 200


def test_a_probe_that_fails_tells_no_password(
    service: Callable[[str], Flask], unreachable_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    response = service(unreachable_url).test_client().get("/readyz")

    assert PASSWORD not in response.text
    assert PASSWORD not in caplog.text
    assert "not ready: the database cannot be reached" in caplog.text
