"""A connection belongs to the process that opened it: two processes on one socket read each other's rows.

Servers differ, so there are layers. Python's fork hook cuts and empties everything in the child, where
the server runs it (uWSGI needs py-call-uwsgi-fork-hooks for that); each request looks whether that
has happened, and does it if not. Behind them, each pool drops what another process opened, and
engines refuse a connection or session that was in use across the fork.
Source: SQLAlchemy, "Using Connection Pools with Multiprocessing or os.fork()".
"""

from __future__ import annotations

import logging
import os
import sysconfig
import threading
import traceback
import typing as t
import weakref

from sqlalchemy import Connection, Engine, PoolResetState, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

log = logging.getLogger(__name__)

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_sockets: weakref.WeakSet[t.Any] = weakref.WeakSet()
_first_opened: weakref.WeakKeyDictionary[Engine, str] = weakref.WeakKeyDictionary()
# What the parent opened is kept, never closed: a destructor would say goodbye on the parent's socket.
_inherited: list[object] = []
_process = os.getpid()
_leaving = threading.Lock()


class ConnectionCrossedFork(RuntimeError):
    """A connection or session is used in another process than the one that opened it."""


def watch(engine: Engine) -> None:
    """Empty the engine's pool in every child process, and remember what opened its first connection."""
    _engines.add(engine)

    @event.listens_for(engine, "connect")
    def note_first(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        _first_opened.setdefault(engine, record.info["opened_at"])


def leave_parent() -> None:
    """Cut and empty what the parent opened, if the server has forked and not said so.

    The pools' own check would be too late: they ping a connection before they hand it out.
    """
    if os.getpid() != _process:
        with _leaving:
            if os.getpid() != _process:
                _leave_parent()


def close_early_connections(engines: list[Engine]) -> None:
    """Close what was opened while the application was built, and name the line that did it.

    The server forks next, and a connection opened before would be in every worker.
    """
    for engine in engines:
        if opened_at := _first_opened.pop(engine, None):
            log.warning(
                "a database connection was opened at %s while the application was being built;"
                " it is closed again. Query inside requests and commands, not at import.",
                opened_at,
            )
            engine.dispose()


@event.listens_for(Pool, "connect")
def _note_owner(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    record.info["pid"] = os.getpid()
    record.info["opened_at"] = _calling_line()
    if hasattr(connection, "fileno"):
        _sockets.add(connection)


@event.listens_for(Pool, "checkout")
def _drop_parents(
    connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: PoolProxiedConnection
) -> None:
    if record.info.get("pid", os.getpid()) != os.getpid():
        _cut(connection)
        # The recipe of SQLAlchemy's documentation: with both empty, the pool opens another one.
        entry, fairy = t.cast(t.Any, record), t.cast(t.Any, proxy)
        entry.dbapi_connection = fairy.dbapi_connection = None
        raise DisconnectionError("opened in another process")


@event.listens_for(Engine, "before_cursor_execute")
def _refuse_parents(connection: Connection, *_: object) -> None:
    owner = connection.info.get("pid", os.getpid())
    if owner != os.getpid():
        _cut(connection.connection.dbapi_connection)
        raise ConnectionCrossedFork(
            f"a connection opened in process {owner} at {connection.info.get('opened_at')} is used in process"
            f" {os.getpid()}: a session or connection was made before the server forked, and kept."
            " Keep none in a global; use db.session inside the request."
        )


@event.listens_for(Engine, "commit")
def _refuse_parents_commit(connection: Connection) -> None:
    _refuse_parents(connection)


@event.listens_for(Engine, "rollback")
def _cut_parents_rollback(connection: Connection) -> None:
    if not connection.invalidated and connection.info.get("pid", os.getpid()) != os.getpid():
        _cut(connection.connection.dbapi_connection)


# What is thrown away in a child must not roll its parent back, nor say goodbye for it.


@event.listens_for(Pool, "reset")
def _reset_without_parents(
    connection: DBAPIConnection, record: ConnectionPoolEntry, state: PoolResetState
) -> None:
    _cut_if_parents(connection, record)


@event.listens_for(Pool, "invalidate")
def _invalidate_without_parents(
    connection: DBAPIConnection, record: ConnectionPoolEntry, error: BaseException | None
) -> None:
    _cut_if_parents(connection, record)


@event.listens_for(Pool, "close")
def _close_without_parents(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    _cut_if_parents(connection, record)


def _cut_if_parents(connection: DBAPIConnection, record: ConnectionPoolEntry | None) -> None:
    if record is not None and record.info.get("pid", os.getpid()) != os.getpid():
        _cut(connection)


def _cut(connection: object) -> None:
    """Point the child's copy of the parent's socket at nothing, so that no clean-up can speak on it."""
    if connection in _inherited:
        return
    _inherited.append(connection)
    if hasattr(connection, "fileno") and not getattr(connection, "closed", False):
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, connection.fileno(), inheritable=False)
        os.close(null)


def _leave_parent() -> None:
    global _process
    for connection in list(_sockets):
        _cut(connection)
    for engine in list(_engines):
        _inherited.append(engine.pool)
        engine.dispose(close=False)
    _process = os.getpid()


os.register_at_fork(after_in_child=_leave_parent)


def _calling_line() -> str:
    """Return file and line of the innermost caller that belongs to no installed package."""
    installed = (*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), __file__)
    for frame in reversed(traceback.extract_stack(limit=60)):
        if not frame.filename.startswith((*installed, "<")):
            return f"{frame.filename}:{frame.lineno}"
    return "an unknown line"
