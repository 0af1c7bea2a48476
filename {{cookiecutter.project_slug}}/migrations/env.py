"""The environment of migrations: a separate engine, and one process at a time.

The service's engine would end a long migration with its statement timeout.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

from alembic import context
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from migrations import autogenerate, row_ids
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    NullPool,
    Text,
    cast,
    create_engine,
    event,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, OperationalError

import {{cookiecutter.package_name}}
from {{cookiecutter.package_name}}.foundation.database.base import Base, import_models
from {{cookiecutter.package_name}}.foundation.database.engine import connect_args
from {{cookiecutter.package_name}}.foundation.database.sqlite import begin_explicitly
from {{cookiecutter.package_name}}.foundation.serving.project import load_settings

import_models({{cookiecutter.package_name}})

LOCK = zlib.crc32(b"{{cookiecutter.package_name}}:migrations")
PATIENCE = 60  # seconds others may take: with their migrations, or with a transaction that is in the way
NO_DEADLINES = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
LOCK_TIMEOUT = 1  # seconds; every request for a table waits behind the migration that waits for it


# A test hands over others.
metadata: MetaData = context.config.attributes.get("metadata", Base.metadata)


def database_url() -> str:
    """Return the URL a test handed over, or the one in the environment."""
    if url := context.config.attributes.get("database_url"):
        return str(url)
    settings = load_settings()
    return settings.migration_database_url or settings.database_url


def is_pooled() -> bool:
    """Return whether a pooler such as PgBouncer stands before the database."""
    if "database_url" in context.config.attributes:
        return bool(context.config.attributes.get("is_pooled"))
    settings = load_settings()
    return settings.database_pool == "external" and not settings.migration_database_url


def migrate() -> None:
    """Bring the database to the revision that was asked for."""
    url = database_url()
    options: dict[str, Any] = {
        "target_metadata": metadata,
        "compare_server_default": compare_default,
        "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
        "render_item": autogenerate.render_item,
        "render_as_batch": True,  # A migration that PostgreSQL has made runs on SQLite, too.
        "process_revision_directives": complete_migration,
    }
    if context.is_offline_mode():
        context.configure(url=url, literal_binds=True, **options)
        with context.begin_transaction():
            context.run_migrations()
    elif url.startswith("sqlite"):
        with row_ids.kept(), alone_on_sqlite(url) as connection:
            context.configure(connection=connection, transactional_ddl=True, **options)
            # An index that PostgreSQL builds CONCURRENTLY is built in the transaction here.
            migration: Any = context.get_context()
            migration.autocommit_block = nullcontext
            with context.begin_transaction():
                context.run_migrations()
    else:
        with alone_on_postgresql(url, is_pooled=is_pooled()) as engine:
            deadline = time.monotonic() + PATIENCE
            while not comes_through(engine, options):
                if time.monotonic() > deadline:
                    raise SystemExit(
                        f"a transaction has been in the way for {PATIENCE} seconds: see pg_stat_activity"
                    )
                time.sleep(LOCK_TIMEOUT)  # Requests that waited behind the lock run now.


def comes_through(engine: Engine, options: dict[str, Any]) -> bool:
    """Run the migrations that are left; say whether none of them met a lock of another transaction."""
    try:
        with engine.connect() as connection:
            context.configure(connection=connection, transaction_per_migration=True, **options)
            if is_pooled():
                migration: Any = context.get_context()
                migration.autocommit_block = refuse_autocommit
            with context.begin_transaction():
                context.run_migrations()
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
            raise
        return False
    return True


def complete_migration(
    migration: MigrationContext, revision: object, directives: list[MigrationScript]
) -> None:
    """Complete a new migration, or write none where it would be empty."""
    script = directives[0]
    autogenerate.complete(migration, script, metadata)
    # `alembic check` has no message, and needs the script.
    if script.message and script.upgrade_ops and script.upgrade_ops.is_empty():
        directives.clear()
        print("migration: the database has the schema of the models already: no file written")  # noqa: T201


def compare_default(
    migration: MigrationContext,
    inspected: Column[Any],
    column: Column[Any],
    found: str | None,
    default: object,
    rendered: str | None,
) -> bool | None:
    """Return whether the default in the database differs from the model's, in spelling and in value.

    SQLite keeps the spelling of the migration, where `false` is not the model's 0. On PostgreSQL Alembic's
    own comparison raises for JSON and for apostrophes (tried with 1.20.1).
    """
    impl: Any = migration.impl
    connection, dialect = migration.connection, migration.dialect
    wanted = dialect.ddl_compiler(dialect, None).get_column_default_string(column)  # type: ignore[arg-type]
    if connection is None or found is None or wanted is None:
        return None  # Only one has a default, or none: Alembic knows.
    one, other = (cast(literal_column(f"({spelling})"), Text) for spelling in (found, wanted))

    def differs(comparison: Callable[[], Any]) -> bool:
        try:
            with connection.begin_nested():
                return bool(comparison())
        except DBAPIError:
            return True

    compare: Callable[..., Any] = impl.compare_server_default
    return differs(lambda: compare(inspected, column, rendered, found)) and differs(
        lambda: not connection.scalar(select(one == other))
    )


@contextmanager
def alone_on_postgresql(url: str, *, is_pooled: bool) -> Generator[Engine]:
    """Hold an advisory lock; two pods may start at once.

    It is asked for again and again: a statement that waits for it would hold a snapshot, and CREATE INDEX
    CONCURRENTLY in the other process would wait for that snapshot. Behind a pooler it ends with a
    transaction, because the pooler would keep one that ends with a connection.
    """
    arguments = connect_args(url, NO_DEADLINES, is_pooled=is_pooled)
    engine = create_engine(url, poolclass=NullPool, connect_args=arguments)
    level, function = ("READ COMMITTED", "xact_lock") if is_pooled else ("AUTOCOMMIT", "lock")

    @event.listens_for(engine, "begin")
    def wait_briefly(connection: Connection) -> None:
        # A statement outside a transaction, as CREATE INDEX CONCURRENTLY, blocks no other one: it may wait.
        if not getattr(connection.connection.dbapi_connection, "autocommit", False):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")
            if is_pooled:
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")

    with engine.connect() as keeper:
        keeper = keeper.execution_options(isolation_level=level)
        deadline = time.monotonic() + PATIENCE
        attempt = text(f"SELECT pg_try_advisory_{function}(:key)")  # One of two words.
        while not keeper.scalar(attempt, {"key": LOCK}):
            keeper.rollback()
            if time.monotonic() > deadline:
                raise SystemExit(f"another process has been migrating for {PATIENCE} seconds")
            time.sleep(0.2)
        yield engine


def refuse_autocommit() -> NoReturn:
    """End a migration with a statement outside of transactions: it would wait for this process's lock."""
    raise SystemExit("migrations: autocommit_block() needs a way past the pooler: set MIGRATION_DATABASE_URL")


@contextmanager
def alone_on_sqlite(url: str) -> Generator[Connection]:
    """Hold SQLite's write lock from before the schema is read until it is changed, or not at all.

    Foreign keys are not enforced during a migration, because a table that is rebuilt is dropped for a moment.
    """
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": PATIENCE})
    begin_explicitly(engine, pragmas=())
    with engine.begin() as connection:
        yield connection


def problem(error: Exception) -> str | None:
    """Return one line for a problem of the database's operator, or nothing for one of a migration."""
    if isinstance(error, DBAPIError):
        reason = " ".join(str(error.orig).split())
        if getattr(error.orig, "sqlstate", None) == "42501":  # insufficient_privilege
            return f"the role of DATABASE_URL may not change the schema: {reason.partition(' LINE ')[0]}"
        if error.statement in {None, "BEGIN IMMEDIATE"}:
            return f"DATABASE_URL's database can't be used: {reason}"
    elif "Relative revision" in str(error):
        return "there are fewer migrations to undo than that"
    return None


try:
    migrate()
except (DBAPIError, CommandError) as error:
    if line := problem(error):
        raise SystemExit(f"migrations: {line}") from None
    raise
