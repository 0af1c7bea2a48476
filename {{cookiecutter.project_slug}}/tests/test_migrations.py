"""The schema comes from migrations alone, and any number of processes may bring it up to date."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, NullPool, create_engine, event, inspect, make_url, text

from {{cookiecutter.package_name}}.health import heads

from .conftest import SECRET
from .databases import PROJECT, Databases, alembic_config, migrate, with_a_migration

SCRIPTS = ScriptDirectory(str(PROJECT / "migrations"))


@pytest.fixture
def url(each_databases: Databases) -> str:
    """An empty database of each kind."""
    return each_databases.empty()


@contextmanager
def engine_on(url: str) -> Iterator[Engine]:
    engine = create_engine(url, poolclass=NullPool)
    yield engine
    engine.dispose()


def tables(url: str) -> set[str]:
    with engine_on(url) as engine:
        return set(inspect(engine).get_table_names())


def revision(url: str) -> str | None:
    with engine_on(url) as engine, engine.connect() as connection:
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found


def test_there_is_one_newest_revision() -> None:
    assert len(SCRIPTS.get_heads()) == 1
    assert heads() == frozenset(SCRIPTS.get_heads())


def test_an_empty_database_is_brought_to_the_newest_schema(url: str) -> None:
    migrate(url)

    assert revision(url) == SCRIPTS.get_current_head()
    assert tables(url) > {"alembic_version"}


def test_the_newest_schema_is_the_one_of_the_models(each_databases: Databases) -> None:
    command.check(alembic_config(each_databases.migrated()))


def test_a_difference_between_models_and_schema_is_found(each_databases: Databases) -> None:
    url = each_databases.migrated()
    with engine_on(url) as engine, engine.begin() as connection:
        connection.execute(text("CREATE TABLE forgotten (id INTEGER PRIMARY KEY)"))

    with pytest.raises(Exception, match="New upgrade operations detected") as raised:
        command.check(alembic_config(url))

    assert "forgotten" in str(raised.value)


def test_every_migration_can_be_undone_and_done_again(url: str) -> None:
    migrate(url)
    newest = tables(url)

    command.downgrade(alembic_config(url), "base")
    assert tables(url) == {"alembic_version"}
    assert revision(url) is None

    migrate(url)
    assert tables(url) == newest


def test_a_migration_to_where_the_schema_is_changes_nothing(url: str) -> None:
    migrate(url)
    migrate(url)

    assert revision(url) == SCRIPTS.get_current_head()


def test_a_migration_can_be_shown_as_sql(each_databases: Databases) -> None:
    config = alembic_config(each_databases.empty())
    config.output_buffer = io.StringIO()

    command.upgrade(config, "head", sql=True)

    sql = config.output_buffer.getvalue()
    assert "CREATE TABLE alembic_version" in sql
    assert f"VALUES ('{SCRIPTS.get_current_head()}')" in sql


def test_processes_that_migrate_at_once_all_succeed(url: str) -> None:
    environment = os.environ | {"DATABASE_URL": url, "SECRET_KEY": SECRET}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]

    try:
        outputs = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()

    assert [process.returncode for process in processes] == [0, 0], outputs
    assert revision(url) == SCRIPTS.get_current_head()


LOCK = zlib.crc32(b"{{cookiecutter.package_name}}:migrations")


@contextmanager
def lock_of_another_process(url: str) -> Iterator[None]:
    """Hold what a process holds that migrates this database."""
    statement = text("BEGIN IMMEDIATE" if url.startswith("sqlite") else f"SELECT pg_advisory_lock({LOCK})")
    with engine_on(url) as engine, engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(statement)
        yield


# Who has asked PostgreSQL twice was refused once; SQLite lets the first one wait.
ASKING = {"postgresql": ("pg_try_advisory_lock", 2), "sqlite": ("BEGIN IMMEDIATE", 1)}


def test_a_migration_waits_for_the_one_of_another_process(url: str) -> None:
    question, times = ASKING[make_url(url).get_backend_name()]
    asked = threading.Semaphore(0)

    def note(connection: object, cursor: object, statement: str, *others: object) -> None:
        if question in statement:
            asked.release()

    with ThreadPoolExecutor(1) as thread:
        with lock_of_another_process(url):
            event.listen(Engine, "before_cursor_execute", note)
            migration = thread.submit(migrate, url)
            assert all(asked.acquire(timeout=20) for _ in range(times))
            event.remove(Engine, "before_cursor_execute", note)
            assert not migration.done()
            assert tables(url) == set()
        migration.result(timeout=20)

    assert revision(url) == SCRIPTS.get_current_head()


FAILING = """
import sqlalchemy as sa
from alembic import op

revision = "zzzz"
down_revision = BEFORE


def upgrade():
    op.create_table("half_done", sa.Column("id", sa.Integer(), primary_key=True))
    op.execute("INSERT INTO half_done VALUES (1)")
    raise ArithmeticError("it fails")
"""


# SQLite is upgraded in one transaction, PostgreSQL in one for each migration.
LEFT = {"postgresql": SCRIPTS.get_current_head(), "sqlite": None}


def test_a_migration_that_fails_leaves_nothing_of_itself(url: str, tmp_path: Path) -> None:
    config = with_a_migration(FAILING, tmp_path, url)

    with pytest.raises(ArithmeticError, match="it fails"):
        command.upgrade(config, "head")

    assert "half_done" not in tables(url)
    assert (revision(url) if tables(url) else None) == LEFT[make_url(url).get_backend_name()]
    migrate(url)
    assert revision(url) == SCRIPTS.get_current_head()


def test_an_upgrade_that_fails_keeps_the_data(each_databases: Databases, tmp_path: Path) -> None:
    url = each_databases.migrated()
    with engine_on(url) as engine, engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (id INTEGER)"))
        connection.execute(text("INSERT INTO kept VALUES (1)"))

    with pytest.raises(ArithmeticError, match="it fails"):
        command.upgrade(with_a_migration(FAILING, tmp_path, url), "head")

    with engine_on(url) as engine, engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM kept")) == 1
    assert revision(url) == SCRIPTS.get_current_head()


def test_a_migration_without_settings_ends_with_78() -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "SECRET_KEY"}
    }

    result = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 78
    assert "configuration error: DATABASE_URL is missing" in result.stderr
    assert "Traceback" not in result.stderr
