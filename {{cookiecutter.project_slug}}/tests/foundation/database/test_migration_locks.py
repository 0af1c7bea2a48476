"""A migration that waits for an open transaction does not block requests for long. PostgreSQL only.

Locks are granted in order: a request waits for an earlier migration, and the migration for every earlier
reader.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text

from {{cookiecutter.package_name}}.foundation.configuration import ServiceSettings
from {{cookiecutter.package_name}}.foundation.database.engine import engine_options

from ..databases import PostgreSQL
from .conftest import AddMigration

CHANGE = """
def upgrade():
    op.execute("ALTER TABLE foundation_samples ADD COLUMN colour TEXT")
"""
INDEX = """
def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY texts ON foundation_samples (text)")
"""


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    return postgresql.sampled()


@contextmanager
def transaction(url: str, statement: str = "SELECT * FROM foundation_samples") -> Iterator[Connection]:
    """Query like a request, and keep the transaction open."""
    timeout = ServiceSettings.model_fields["database_timeout"].default
    options = engine_options(url, threads=1, timeout=timeout, name="test")
    engine = create_engine(url, poolclass=NullPool, connect_args=options["connect_args"])
    with engine.connect() as connection:
        connection.execute(text(statement))
        yield connection


@pytest.fixture
def asked() -> Iterator[threading.Semaphore]:
    """A semaphore that is released whenever a migration requests the lock of the table."""
    asked = threading.Semaphore(0)

    def note(connection: object, cursor: object, statement: str, *others: object) -> None:
        if statement.startswith(("ALTER TABLE", "CREATE INDEX")):
            asked.release()

    event.listen(Engine, "before_cursor_execute", note)
    yield asked
    event.remove(Engine, "before_cursor_execute", note)


def test_requests_succeed_while_a_migration_waits_for_a_reader(
    url: str, asked: threading.Semaphore, add_migration: AddMigration
) -> None:
    """Requests succeed while a migration retries because of an open reader, and then it completes."""
    config = add_migration(url, CHANGE)

    with ThreadPoolExecutor(1) as thread:
        with transaction(url):
            migration = thread.submit(command.upgrade, config, "head")
            for _ in range(2):
                assert asked.acquire(timeout=20), "it tries again"
                with transaction(url):
                    assert not migration.done()
        migration.result(timeout=20)

    with transaction(url, "SELECT colour FROM foundation_samples"):
        pass


def test_an_index_is_built_concurrently_however_long_that_waits(
    url: str, asked: threading.Semaphore, add_migration: AddMigration
) -> None:
    """An index is built concurrently, even if an open writer delays it beyond the lock timeout."""
    config = add_migration(url, INDEX)

    with ThreadPoolExecutor(1) as thread:
        with transaction(url, "UPDATE foundation_samples SET text = ''") as writer:
            migration = thread.submit(command.upgrade, config, "head")
            assert asked.acquire(timeout=20)
            # Longer than a migration waits for anything in a transaction.
            writer.execute(text("SELECT pg_sleep(1.5)"))
        migration.result(timeout=20)

    with transaction(url) as connection:
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'texts'::regclass"
        assert connection.scalar(text(valid)) is True
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "next"


def test_a_migration_that_never_gets_the_table_names_the_reason(
    url: str, tmp_path: Path, add_migration: AddMigration
) -> None:
    """A migration that never gets the table's lock exits with the reason and changes nothing."""
    config = add_migration(url, CHANGE)
    environment = tmp_path / "migrations" / "env.py"
    environment.write_text(environment.read_text().replace("PATIENCE = 60", "PATIENCE = 0"))

    with transaction(url), pytest.raises(SystemExit, match="a transaction has been in the way for 0 seconds"):
        command.upgrade(config, "head")

    with transaction(url) as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0001"
