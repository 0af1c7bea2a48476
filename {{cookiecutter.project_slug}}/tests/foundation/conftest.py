"""Fixtures of the foundation's tests, on the sample service instead of the owner's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from flask import Flask

from {{cookiecutter.package_name}}.foundation.database import db
from {{cookiecutter.package_name}}.foundation.http import health

from . import databases
from .databases import PROJECT, SAMPLE, Databases
from .fixtures import make_settings
from .sample.app import create_app

# Only a networked server can fail in the way that these tests need.
ABOUT_POSTGRESQL = [
    "database/test_embedded_postgresql.py",
    "database/test_migration_locks.py",
    "database/test_migrations_postgresql.py",
    "database/test_postgresql.py",
    "database/test_postgresql_settings.py",
    "test_notebook_postgresql.py",
]
# A project generated without the template's hook has tests of missing parts.
ABOUT_PACKAGES = {
    "opentelemetry": ["observability/test_tracing.py"],
    "gunicorn": ["serving/test_gunicorn_conf.py"],
    "pyuwsgi": ["serving/test_uwsgi_ini.py"],
}
collect_ignore = [] if "postgresql" in databases.names() else ABOUT_POSTGRESQL
collect_ignore += [
    name for package, names in ABOUT_PACKAGES.items() if find_spec(package) is None for name in names
]


@pytest.fixture(scope="session")
def sample_migrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of migrations with the project's env.py and the revisions of the sample service."""
    folder = tmp_path_factory.mktemp("sample") / "migrations"
    folder.mkdir()
    shutil.copy(PROJECT / "migrations" / "env.py", folder)
    shutil.copytree(SAMPLE / "migrations", folder / "versions")
    return folder


@pytest.fixture(autouse=True)
def sample_schema(monkeypatch: pytest.MonkeyPatch, sample_migrations: Path) -> None:
    """Make /readyz compare the schema with the sample's revisions instead of the project's."""
    monkeypatch.setattr(health, "MIGRATIONS", sample_migrations)


@pytest.fixture
def database_url(own_databases: Databases) -> str:
    """A database with the sample service's schema, for this test only."""
    return own_databases.sampled()


@pytest.fixture(scope="session")
def app(own_databases: Databases) -> Iterator[Flask]:
    """The sample service, on a database whose changes `isolated` rolls back."""
    app = create_app(make_settings(own_databases.sampled()))
    yield app
    with app.app_context():
        db.engine.dispose()
