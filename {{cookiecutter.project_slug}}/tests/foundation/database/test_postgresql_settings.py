"""Databases and roles with unusual settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from pydantic import ValidationError
from sqlalchemy import make_url, text

from {{cookiecutter.package_name}}.foundation.database import db
from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.serving import doctor

from ..databases import SAMPLE, PostgreSQL, migrate
from ..fixtures import make_settings
from ..sample.app import create_app

Build = Callable[[str], Flask]
MIGRATION = "ALTER TABLE foundation_samples ALTER COLUMN version TYPE bigint"
CHANGES = 8  # psycopg prepares a statement when it runs for the sixth time


@pytest.fixture
def build() -> Iterator[Build]:
    """Build services on databases."""
    built: list[Flask] = []

    def build(url: str) -> Flask:
        built.append(create_app(make_settings(url, web_threads=1)))
        return built[-1]

    yield build
    for app in built:
        for engine in engines_of(app):
            engine.dispose()


def name_of(url: str) -> str:
    """Return the quoted name of a database."""
    return f'"{make_url(url).database}"'


def test_timestamps_are_in_utc_whatever_the_zone_of_the_role(postgresql: PostgreSQL, build: Build) -> None:
    """A session in another time zone returns the same timestamps as the response to the POST."""
    url = postgresql.sampled()
    postgresql.run(f"ALTER DATABASE {name_of(url)} SET timezone = 'Asia/Kathmandu'")
    client = build(url).test_client()

    created = client.post("/samples", json={"text": "now"})
    read: Any = client.get(created.headers["Location"]).json

    assert read == created.json
    assert read["created_at"].endswith("Z")


def test_a_database_without_an_encoding_returns_text(postgresql: PostgreSQL, build: Build) -> None:
    """A database in SQL_ASCII is migrated and stores and returns text."""
    url = make_url(postgresql.empty())
    name = f"{url.database}_ascii"
    create = f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    postgresql.run(create)
    postgresql.made.append(name)
    ascii_url = url.set(database=name).render_as_string(hide_password=False)
    migrate(ascii_url, versions=SAMPLE / "migrations")
    client = build(ascii_url).test_client()

    created: Any = client.post("/samples", json={"text": "Größe"}).json

    page: Any = client.get("/samples").json
    assert [sample["text"] for sample in page["items"]] == [created["text"]] == ["Größe"]
    assert client.get("/readyz").status_code == 200


def test_a_role_that_may_not_read_the_revision_is_told(postgresql: PostgreSQL, build: Build) -> None:
    """Readiness names the missing grant instead of reporting an unreachable database."""
    url = postgresql.sampled()
    role = f"role_of_{make_url(url).database}"
    postgresql.run(f"CREATE ROLE {role}", f"ALTER DATABASE {name_of(url)} SET role = '{role}'")
    try:
        response = build(url).test_client().get("/readyz")
    finally:
        postgresql.run(f"ALTER DATABASE {name_of(url)} RESET role", f"DROP ROLE {role}")

    assert response.status_code == 503
    body = response.get_json(force=True)
    assert body["missing"] == ["schema"]
    assert "grant the role SELECT on alembic_version" in body["detail"]


@pytest.fixture
def warm(postgresql: PostgreSQL, build: Build) -> tuple[Any, str, str]:
    """A client whose connection has prepared the statements of a sample, its path and its ETag.

    A rollback, at the end of each read, would make psycopg forget what it has prepared.
    """
    client = build(postgresql.sampled()).test_client()
    created = client.post("/samples", json={"text": "kept"})
    path, etag = created.headers["Location"], created.headers["ETag"]
    for number in range(CHANGES):
        changed = client.patch(path, json={"text": str(number)}, headers={"If-Match": etag})
        etag = changed.headers["ETag"]
    return client, path, etag


def change_type(client: Any) -> None:
    """Run a migration on another connection."""
    with client.application.app_context():
        url = db.engine.url
    engine = PostgreSQL(url.render_as_string(hide_password=False))
    engine.run(MIGRATION)
    engine.engine.dispose()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_with_an_old_plan_is_run_again(
    warm: tuple[Any, str, str], method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A read whose plan is older than a migration is answered, and its connection is replaced."""
    client, path, _ = warm
    change_type(client)

    assert client.open(path, method=method).status_code == 200

    assert client.get(path).status_code == 200
    assert "the database failed" not in caplog.text


def test_a_write_with_an_old_plan_is_a_503(warm: tuple[Any, str, str]) -> None:
    """A write whose plan is older than a migration gets a 503 with Retry-After, and the next one succeeds."""
    client, path, etag = warm
    change_type(client)
    change = {"json": {"text": "new"}, "headers": {"If-Match": etag}}

    first = client.patch(path, **change)

    assert (first.status_code, first.headers.get("Retry-After")) == (503, "2")
    assert client.patch(path, **change).status_code == 200


def with_parameters(url: str, **parameters: str) -> str:
    """Return a database's URL with parameters."""
    return make_url(url).update_query_dict(parameters).render_as_string(hide_password=False)


@pytest.mark.parametrize("place", ["URL", "PGOPTIONS"])
def test_options_of_the_owner_have_an_effect(
    postgresql: PostgreSQL, build: Build, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Options of the URL or the environment apply to migrations and requests, beside the deadlines."""
    url = postgresql.empty()
    engine = PostgreSQL(url)
    engine.run("CREATE SCHEMA tenant_a")
    options = "-csearch_path=tenant_a"
    if place == "URL":
        url = with_parameters(url, options=options)
    else:
        monkeypatch.setenv("PGOPTIONS", options)

    migrate(url, versions=SAMPLE / "migrations")
    app = build(url)

    assert app.test_client().post("/samples", json={"text": "apart"}).status_code == 201
    with app.app_context(), db.engine.connect() as connection:
        assert connection.scalar(text("SELECT text FROM tenant_a.foundation_samples")) == "apart"
        assert connection.scalar(text("SHOW statement_timeout")) == "2s"
        assert connection.scalar(text("SELECT to_regclass('public.foundation_samples')")) is None
    engine.engine.dispose()


def test_parameters_of_the_owner_replace_defaults(postgresql: PostgreSQL, build: Build) -> None:
    """A parameter of the URL replaces the default of the service."""
    app = build(with_parameters(postgresql.sampled(), application_name="own", connect_timeout="9"))

    with app.app_context(), db.engine.connect() as connection:
        assert connection.scalar(text("SHOW application_name")) == "own"
        driver: Any = connection.connection.dbapi_connection
        assert driver.info.get_parameters()["connect_timeout"] == "9"


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("options=-c%20lock_timeout%3D9s", "sets lock_timeout in options"),
        ("options=-cstatement_timeout%20=%200", "sets statement_timeout in options"),
        ("sslmod=require", "has the parameter sslmod, which has no effect: perhaps sslmode is meant"),
        ("prepare_threshold=0", "has the parameter prepare_threshold, which has no effect"),
        ("pool_size=5", "has the parameter pool_size, which has no effect: remove it"),
    ],
)
def test_a_parameter_without_effect_is_refused(parameter: str, reason: str) -> None:
    """A parameter of the URL that the driver does not know is refused, with a similar one that it knows."""
    with pytest.raises(ValidationError, match=reason):
        make_settings(f"postgresql://user@host/name?{parameter}")


@pytest.mark.parametrize(
    ("parameters", "variables", "reason"),
    [
        ("sslmode=bogus", {}, 'invalid sslmode value: "bogus"'),
        ("target_session_attrs=x&host=one:1&host=two:2", {}, "invalid target_session_attrs"),
        ("sslrootcert=system&sslmode=require", {}, 'weak sslmode "require"'),
        ("connect_timeout=2s", {}, "connect_timeout is not a number"),
        ("service=no-such-service", {}, 'definition of service "no-such-service" not found'),
        ("", {"PGSSLMODE": "bogus"}, 'invalid sslmode value: "bogus"'),
        ("sslmode=require&connect_timeout=-1", {}, None),
        ("hostaddr=192.0.2.1&port=6543", {"PGDATA": "/nowhere"}, None),
    ],
)
def test_a_value_that_libpq_refuses_is_refused_at_startup(
    monkeypatch: pytest.MonkeyPatch, parameters: str, variables: dict[str, str], reason: str | None
) -> None:
    """A value with which no connection can be opened is rejected at startup, with libpq's reason."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    url = f"postgresql://user:own@/name?{parameters}"

    if reason is None:
        make_settings(url)
    else:
        with pytest.raises(ValidationError, match=re.escape(reason)):
            make_settings(url)


def test_options_are_refused_behind_a_pooler() -> None:
    """Options, which a pooler rejects, are rejected at startup with the fix."""
    with pytest.raises(ValidationError, match=r"ALTER ROLE … SET search_path"):
        make_settings("postgresql://host/name?options=-csearch_path%3Da", database_pool="external")


@pytest.mark.parametrize("deadline", ["0", "2s"])
def test_the_doctor_finds_a_role_without_a_deadline(postgresql: PostgreSQL, deadline: str) -> None:
    """With a pooler, the doctor checks that the role or the database has a statement timeout."""
    url = postgresql.sampled()
    postgresql.run(f"ALTER DATABASE {name_of(url)} SET statement_timeout = '{deadline}'")

    found = [*doctor._pooled(make_settings(url, database_pool="external"))]

    assert [finding.name for finding in found] == (["DATABASE_POOL"] if deadline == "0" else [])


def test_the_doctor_says_when_the_role_is_unknown(postgresql: PostgreSQL) -> None:
    """An unreachable database is a finding, not a traceback."""
    url = make_url(postgresql.empty()).set(database="missing").render_as_string(hide_password=False)

    (found,) = doctor._pooled(make_settings(url, database_pool="external"))

    assert found.name == "DATABASE_URL"
    assert "cannot be reached" in found.problem
