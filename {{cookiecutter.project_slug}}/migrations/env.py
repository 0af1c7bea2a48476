"""How migrations run: on an engine of their own, one process at a time.

The service's engine would end a long migration with its statement timeout.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from alembic import context
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.exc import OperationalError

from {{cookiecutter.package_name}}.db import Base
from {{cookiecutter.package_name}}.notes import models  # noqa: F401  # Alembic compares what is imported.
from {{cookiecutter.package_name}}.settings import load_or_exit

LOCK = zlib.crc32(b"{{cookiecutter.package_name}}:migrations")
PATIENCE = 60  # seconds others may take: with their migrations, or with a transaction that is in the way
LOCK_TIMEOUT = 1  # seconds; every request for a table waits behind the migration that waits for it


def database_url() -> str:
    """Return the URL a test handed over, or the one in the environment."""
    return context.config.attributes.get("database_url") or load_or_exit().database_url


def migrate() -> None:
    """Bring the database to the revision that was asked for."""
    url = database_url()
    options: dict[str, Any] = {"target_metadata": Base.metadata, "compare_server_default": True}
    if context.is_offline_mode():
        context.configure(url=url, literal_binds=True, **options)
        with context.begin_transaction():
            context.run_migrations()
    elif url.startswith("sqlite"):
        with alone_on_sqlite(url) as connection:
            context.configure(connection=connection, render_as_batch=True, transactional_ddl=True, **options)
            with context.begin_transaction():
                context.run_migrations()
    else:
        with alone_on_postgresql(url) as engine:
            deadline = time.monotonic() + PATIENCE
            while not comes_through(engine, options):
                if time.monotonic() > deadline:
                    raise SystemExit(
                        f"a transaction has been in the way for {PATIENCE} seconds: see pg_stat_activity"
                    )
                time.sleep(LOCK_TIMEOUT)  # Now those go on who have waited behind it.


def comes_through(engine: Engine, options: dict[str, Any]) -> bool:
    """Run the migrations that are left; say whether none of them met a lock of another transaction."""
    try:
        with engine.connect() as connection:
            context.configure(connection=connection, transaction_per_migration=True, **options)
            with context.begin_transaction():
                context.run_migrations()
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
            raise
        return False
    return True


@contextmanager
def alone_on_postgresql(url: str) -> Generator[Engine]:
    """Hold an advisory lock; two pods may start at once.

    It is asked for again and again: a statement that waits for it would hold a snapshot, and
    CREATE INDEX CONCURRENTLY in the other process would wait for that snapshot.
    """
    settings = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
    engine = create_engine(url, poolclass=NullPool, connect_args={"options": settings})

    @event.listens_for(engine, "begin")
    def wait_briefly(connection: Connection) -> None:
        # What runs outside a transaction, as CREATE INDEX CONCURRENTLY, keeps nobody waiting: it may wait.
        if not getattr(connection.connection.dbapi_connection, "autocommit", False):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")

    with engine.connect() as keeper:
        keeper = keeper.execution_options(isolation_level="AUTOCOMMIT")
        deadline = time.monotonic() + PATIENCE
        while not keeper.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}):
            if time.monotonic() > deadline:
                raise SystemExit(f"another process has been migrating for {PATIENCE} seconds")
            time.sleep(0.2)
        yield engine


@contextmanager
def alone_on_sqlite(url: str) -> Generator[Connection]:
    """Hold SQLite's write lock from before the schema is read until it is changed, or not at all.

    Foreign keys are not enforced meanwhile: a table that is rebuilt is dropped for a moment.
    """
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": PATIENCE})
    begin_by_hand(engine)
    with engine.begin() as connection:
        yield connection


def begin_by_hand(engine: Engine) -> None:
    """Let a transaction include the schema; the driver would commit before each change of it."""
    event.listen(engine, "connect", lambda driver, record: setattr(driver, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))


migrate()
