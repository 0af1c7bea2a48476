"""Fixtures of tests about migrations: the project's env.py, with the revisions of the sample service."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from ..databases import PROJECT

AddMigration = Callable[[str, str], Config]


def configured(url: str, migrations: Path) -> Config:
    """Return Alembic's configuration for a database and the migrations in a folder."""
    config = Config(toml_file=PROJECT / "pyproject.toml")
    config.set_main_option("script_location", str(migrations))
    config.attributes["database_url"] = url
    return config


def refused(url: str, migrations: Path) -> str:
    """Return the line with which a migration is refused."""
    with pytest.raises(SystemExit) as raised:
        command.upgrade(configured(url, migrations), "head")
    (line,) = str(raised.value).splitlines()
    return line


@pytest.fixture
def add_migration(sample_migrations: Path, tmp_path: Path) -> AddMigration:
    """Copy the sample's migrations, add one with the given `upgrade()`, and configure them for a database."""

    def add_migration(url: str, source: str) -> Config:
        migrations = shutil.copytree(sample_migrations, tmp_path / "migrations")
        header = 'from alembic import op\n\nrevision = "next"\ndown_revision = "0001"\n'
        (migrations / "versions" / "next.py").write_text(header + source)
        return configured(url, migrations)

    return add_migration
