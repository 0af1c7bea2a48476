"""SQLite: explicit BEGIN, write-ahead log, and no writes to a removed or replaced file."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import has_request_context, request
from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")


def begin_explicitly(engine: Engine, pragmas: Iterable[str] = PRAGMAS) -> None:
    """Begin each transaction explicitly: the driver begins too late, and updates would be silently lost."""

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later fails if another one wrote in between.
        reads_only = has_request_context() and request.method in {"GET", "HEAD", "OPTIONS"}
        reads_only |= connection.get_execution_options().get("reads_only", False)
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def leave_removed_file(engine: Engine) -> None:
    """Open only an existing file, and drop connections to a removed or replaced one: its writes are lost."""
    path = Path(engine.url.database or "")
    if not path.is_absolute():
        return  # Another bind, in memory.

    @event.listens_for(engine, "do_connect")
    def open_existing(
        dialect: Dialect, record: ConnectionPoolEntry, args: object, params: dict[str, Any]
    ) -> sqlite3.Connection:
        record.info["file"] = _identity(path)
        # Migrations create the file; a file created here would be empty.
        connection: sqlite3.Connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, **params)
        return connection

    @event.listens_for(engine, "checkout")
    def drop(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
        if record.info["file"] != _identity(path):
            raise DisconnectionError("the file has been removed or replaced")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
