"""A workshop of migrations: the project's env.py and template, without revisions, for models of a test."""

from __future__ import annotations

import enum
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from {{cookiecutter.package_name}}.foundation.database import Base

from ..databases import PROJECT
from .conftest import configured

Parts = Iterable[Any]
RUFF = Path(sys.executable).with_name("ruff")


class Colour(enum.Enum):
    """The colours of a thing."""

    RED = "red"
    BLUE = "blue"


class Workshop:
    """A database and a folder of migrations, which begin empty."""

    def __init__(self, folder: Path) -> None:
        self.migrations = folder / "migrations"
        (self.migrations / "versions").mkdir(parents=True)
        for name in ("env.py", "script.py.mako"):
            shutil.copy(PROJECT / "migrations" / name, self.migrations)
        shutil.copy(PROJECT / "pyproject.toml", folder)

    def config(self, url: str, metadata: sa.MetaData) -> Config:
        config = configured(url, self.migrations)
        config.attributes["metadata"] = metadata
        return config

    def files(self) -> set[Path]:
        return set((self.migrations / "versions").glob("*.py"))

    def generate(self, url: str, metadata: sa.MetaData, name: str = "a change") -> str:
        """Make a migration and return its text, which is as the linters want it."""
        before = self.files()
        command.revision(self.config(url, metadata), name, autogenerate=True)
        (file,) = self.files() - before
        for arguments in (["check", "--no-cache"], ["format", "--check"]):
            subprocess.run([RUFF, *arguments, str(file)], check=True)
        return file.read_text()

    def run(self, url: str, old: sa.MetaData, new: sa.MetaData) -> None:
        """Upgrade, downgrade and upgrade; each time the schema is the one of the models."""
        command.upgrade(self.config(url, new), "head")
        command.check(self.config(url, new))
        command.downgrade(self.config(url, old), "-1")
        check_after_downgrade(self, url, old)
        command.upgrade(self.config(url, new), "head")
        command.check(self.config(url, new))


def check_after_downgrade(workshop: Workshop, url: str, metadata: sa.MetaData) -> None:
    """Compare a database with older models: Alembic compares the newest revision alone, so stamp it."""
    config = workshop.config(url, metadata)
    with engine_on(url) as engine, engine.begin() as connection:
        revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    command.stamp(config, "head")
    command.check(config)
    command.stamp(config, revision)


@contextmanager
def engine_on(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


def models(*parts: Any) -> sa.MetaData:
    """Return models with a table of things, which has the parts, and a table of owners."""
    metadata = sa.MetaData(naming_convention=Base.metadata.naming_convention)
    sa.Table("owners", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table("things", metadata, sa.Column("id", sa.Integer, primary_key=True), *parts)
    return metadata


def begin(workshop: Workshop, url: str, metadata: sa.MetaData, **values: Any) -> None:
    """Create the schema of the models by a migration, with a row of things."""
    workshop.generate(url, metadata, "begin")
    command.upgrade(workshop.config(url, metadata), "head")
    with engine_on(url) as engine, engine.begin() as connection:
        connection.execute(metadata.tables["things"].insert().values(id=1, **values))
