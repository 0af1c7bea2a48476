"""A migration that waits for somebody's transaction keeps nobody else waiting for long. PostgreSQL only.

Whoever asks for a table stands behind the one who wants to change it, and that one behind every reader.
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

from {{cookiecutter.package_name}}.db import engine_options
from {{cookiecutter.package_name}}.settings import Settings

from .databases import PostgreSQL, with_a_migration

HEAD = """
from alembic import op

revision = "zzzz"
down_revision = BEFORE


def upgrade():
"""
CHANGE = f"""{HEAD}
    op.execute("ALTER TABLE notes ADD COLUMN colour TEXT")
"""
INDEX = f"""{HEAD}
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY texts ON notes (text)")
"""


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    return postgresql.migrated()


@contextmanager
def transaction(url: str, statement: str = "SELECT * FROM notes") -> Iterator[Connection]:
    """Do what a request does, and keep its transaction open."""
    timeout = Settings.model_fields["database_timeout"].default
    options = engine_options(url, threads=1, timeout=timeout, name="test")
    engine = create_engine(url, poolclass=NullPool, connect_args=options["connect_args"])
    with engine.connect() as connection:
        connection.execute(text(statement))
        yield connection


@pytest.fixture
def asked() -> Iterator[threading.Semaphore]:
    """What is released whenever a migration asks for the table."""
    asked = threading.Semaphore(0)

    def note(connection: object, cursor: object, statement: str, *others: object) -> None:
        if statement.startswith(("ALTER TABLE", "CREATE INDEX")):
            asked.release()

    event.listen(Engine, "before_cursor_execute", note)
    yield asked
    event.remove(Engine, "before_cursor_execute", note)


def test_requests_are_answered_while_a_migration_waits_for_a_reader(
    url: str, asked: threading.Semaphore, tmp_path: Path
) -> None:
    config = with_a_migration(CHANGE, tmp_path, url)

    with ThreadPoolExecutor(1) as thread:
        with transaction(url):
            migration = thread.submit(command.upgrade, config, "head")
            for _ in range(2):
                assert asked.acquire(timeout=20), "it tries again"
                with transaction(url):
                    assert not migration.done()
        migration.result(timeout=20)

    with transaction(url, "SELECT colour FROM notes"):
        pass


def test_an_index_is_built_concurrently_however_long_that_waits(
    url: str, asked: threading.Semaphore, tmp_path: Path
) -> None:
    config = with_a_migration(INDEX, tmp_path, url)

    with ThreadPoolExecutor(1) as thread:
        with transaction(url, "UPDATE notes SET text = ''") as writer:
            migration = thread.submit(command.upgrade, config, "head")
            assert asked.acquire(timeout=20)
            # Longer than a migration waits for anything in a transaction.
            writer.execute(text("SELECT pg_sleep(1.5)"))
        migration.result(timeout=20)

    with transaction(url) as connection:
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'texts'::regclass"
        assert connection.scalar(text(valid)) is True


def test_a_migration_that_never_gets_the_table_ends_with_the_reason(url: str, tmp_path: Path) -> None:
    config = with_a_migration(CHANGE, tmp_path, url)
    environment = tmp_path / "migrations" / "env.py"
    environment.write_text(environment.read_text().replace("PATIENCE = 60", "PATIENCE = 0"))

    with transaction(url), pytest.raises(SystemExit, match="a transaction has been in the way for 0 seconds"):
        command.upgrade(config, "head")

    with transaction(url) as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) != "zzzz"
