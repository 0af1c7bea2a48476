"""The database: one base for the models, one session for each context, commits by hand."""

from __future__ import annotations

import logging
import sqlite3
import typing as t
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from flask import Flask, has_request_context, request
from flask.globals import app_ctx
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    Connection,
    DateTime,
    Dialect,
    Engine,
    ExceptionContext,
    MetaData,
    QueuePool,
    TypeDecorator,
    event,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from . import fork_safety
from .teardown import SafeTeardown

log = logging.getLogger(__name__)


class Base(DeclarativeBase):
    """What every model inherits. Constraints get names, so that a migration can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UTCDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets the zone of what it stores."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


def _current_context() -> object:
    """Key sessions by the context itself. Its id() is an address that the next context may get:
    a session that leaked was then committed by another request."""
    return t.cast(t.Any, app_ctx)._get_current_object()


class Database(SQLAlchemy):
    """Flask-SQLAlchemy, with an end of the session that cannot fail."""

    def _teardown_session(self, exc: BaseException | None) -> None:
        end_session(exc)


db = Database(
    metadata=Base.metadata,
    # Objects stay readable after the commit; `transaction()` forgets them before the next one.
    session_options={"expire_on_commit": False, "scopefunc": _current_context},
)


def init_app(app: Flask, *, timeout: int) -> None:
    """Connect the engines of the application. Opens no connection. The timeout is seconds for a statement."""
    db.init_app(app)
    app.before_request(fork_safety.leave_parent)
    for engine in engines_of(app):
        fork_safety.watch(engine)
        if engine.dialect.name == "sqlite":
            _begin_by_hand(engine)
            _leave_removed_file(engine)
        elif engine.dialect.name == "postgresql":
            # Imported here: a project that uses SQLite has no psycopg.
            from . import deadline

            deadline.bound(app, engine, timeout)
            _leave_read_only_server(engine)


def end_sessions(app: SafeTeardown) -> None:
    """Call at the end of `create_app`: what is registered last runs first, before any other teardown.

    It runs once more behind all of them, for a teardown that opened a session again.
    """
    app.teardown_appcontext(end_session)
    app.teardown_last = end_session


def engines_of(app: Flask) -> list[Engine]:
    """Return every engine of the application, binds included."""
    with app.app_context():
        return list(db.engines.values())


def end_session(exc: BaseException | None = None) -> None:
    """Roll back, give the connection back, forget the session. Never raises."""
    if not db.session.registry.has():
        return
    session = db.session()
    try:
        session.close()
    except Exception:
        # The connection died since its last statement. It must not go back to the pool.
        log.warning("the session did not close, its connection is dropped", exc_info=True)
        try:
            session.invalidate()
        except Exception:
            log.exception("the session could not be invalidated")
    finally:
        # scoped_session.remove() leaves the entry in place when close() raises.
        db.session.registry.clear()


@contextmanager
def transaction(**options: t.Any) -> Generator[Session]:
    """Commit what the block did, or roll it back if it raises; inside another one, join it.

    Options are execution options of the connection (`isolation_level="SERIALIZABLE"`). Raises
    `RuntimeError` when they come too late, because the transaction has begun.
    """
    session: Session = db.session()
    if session.info.get("transaction"):
        if options:
            raise RuntimeError("an outer transaction() has begun, its options cannot change any more")
        yield session
        return
    if options and session.in_transaction():
        raise RuntimeError("the session has begun a transaction, its options cannot change any more")
    session.info["transaction"] = True
    try:
        if options:
            session.connection(execution_options=options)
        # What was read before may have changed since: even SELECT ... FOR UPDATE would show the old
        # values. What was changed before belongs to this unit, and would be forgotten with them.
        session.flush()
        session.expire_all()
        yield session
        session.commit()
    except BaseException:
        session.rollback()
        raise
    finally:
        session.info.pop("transaction", None)


def engine_options(
    url: str, *, threads: int, timeout: int, name: str, pool: type[QueuePool] | None = None
) -> dict[str, t.Any]:
    """Return what the engine needs for the dialect of the URL; times are seconds.

    One connection for each thread, and two for requests that open a second one. Flask-SQLAlchemy
    makes integers of the pool's times: 0.5 would be 0.
    """
    measured = {"poolclass": pool} if pool else {}
    if url.startswith("sqlite"):
        return measured | {"connect_args": {"timeout": 5}}
    return measured | {
        "pool_size": threads,
        "max_overflow": 2,
        "pool_timeout": 2,
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "pool_use_lifo": True,
        "connect_args": {
            "connect_timeout": 2,
            "application_name": name,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "options": f"-c statement_timeout={timeout}s -c lock_timeout={timeout}s"
            " -c idle_in_transaction_session_timeout=60s",
        },
    }


def _leave_read_only_server(engine: Engine) -> None:
    """Take a write that the server refuses for the loss of the connection: another one is the primary now.

    The pool would keep its connections to the old primary. What connects anew finds the primary by
    `target_session_attrs=read-write`, or by a name that has moved.
    """

    @event.listens_for(engine, "handle_error")
    def leave(context: ExceptionContext) -> None:
        error: t.Any = context.original_exception
        if getattr(error, "sqlstate", None) == "25006" and not _is_writable(context.connection):
            context.is_disconnect = True


def _is_writable(connection: Connection | None) -> bool:
    """Say whether the server takes writes: then somebody had made the transaction read-only, a bug."""
    told: t.Any = connection and connection.connection.dbapi_connection
    reasons = ("in_hot_standby", "default_transaction_read_only")  # PostgreSQL 14 reports each change.
    return told is not None and all(told.info.parameter_status(name) == "off" for name in reasons)


def _begin_by_hand(engine: Engine) -> None:
    """Let SQLAlchemy say BEGIN: the driver begins too late, and updates get lost without an error."""

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later is refused when another one wrote in between.
        reads_only = has_request_context() and request.method in {"GET", "HEAD", "OPTIONS"}
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _leave_removed_file(engine: Engine) -> None:
    """Open a file of SQLite only where one is, and drop connections to one that is no longer there.

    What is written to a file that somebody has removed or replaced is acknowledged, and lost.
    """
    path = Path(engine.url.database or "")
    if not path.is_absolute():
        return  # Another bind of the application, in memory.

    @event.listens_for(engine, "do_connect")
    def open_existing(
        dialect: Dialect, record: ConnectionPoolEntry, args: object, params: dict[str, t.Any]
    ) -> sqlite3.Connection:
        record.info["file"] = _identity(path)
        # Migrations make the file; one that is made here would be empty.
        connection: sqlite3.Connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, **params)
        return connection

    @event.listens_for(engine, "checkout")
    def drop(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
        if record.info["file"] != _identity(path):
            raise DisconnectionError("the file has been removed or replaced")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
