"""Fork safety: connections stay in their process, because two processes on one socket read each other's rows.

Python's fork hook discards inherited connections in the child; uWSGI needs py-call-uwsgi-fork-hooks for it,
so each request checks for a fork without a hook. As a last resort, a watched pool drops connections of
another process, and its engine refuses any that was in use across the fork. The state of the process is at
the top. Source: SQLAlchemy, "Using Connection Pools with Multiprocessing or os.fork()".
"""

import logging
import os
import sysconfig
import threading
import traceback
import weakref
from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

log = logging.getLogger(__name__)

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_sockets: weakref.WeakSet[Any] = weakref.WeakSet()
_first_opened: weakref.WeakKeyDictionary[Engine, str] = weakref.WeakKeyDictionary()
# The parent's objects are kept, never closed: a destructor would send a termination message on its socket.
_inherited: dict[int, object] = {}
_process = os.getpid()
_discarding = threading.Lock()


class ConnectionCrossedFork(RuntimeError):
    """A connection or session is used outside the process that opened it."""


def watch(engine: Engine) -> None:
    """Keep the engine's connections in their process. Call this for every engine that you create yourself."""
    _engines.add(engine)

    @event.listens_for(engine, "connect")
    def note_owner(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info.update(pid=os.getpid(), opened_at=_calling_line())
        _first_opened.setdefault(engine, record.info["opened_at"])
        if hasattr(connection, "fileno"):
            _sockets.add(connection)

    event.listen(engine, "checkout", _drop_inherited)
    event.listen(engine, "before_cursor_execute", _refuse_inherited)
    event.listen(engine, "commit", _refuse_inherited)
    event.listen(engine, "rollback", _cut_before_rollback)
    # A connection that a child discards must neither roll back nor terminate the parent's.
    for end in ("reset", "invalidate", "close"):
        event.listen(engine, end, _cut_if_inherited)


def discard_inherited_connections() -> None:
    """Discard inherited connections if no fork hook ran: the pool pings before its own check."""
    if os.getpid() != _process:
        with _discarding:
            if os.getpid() != _process:
                _discard()


def close_early_connections(engines: list[Engine]) -> None:
    """Close connections opened while the application was built: every worker would inherit them."""
    for engine in engines:
        if opened_at := _first_opened.pop(engine, None):
            log.warning(
                "a database connection was opened at %s while the application was being built;"
                " it is closed again. Query inside requests and commands, not at import.",
                opened_at,
            )
            engine.dispose()


def _is_inherited(info: Mapping[str, Any]) -> bool:
    return bool(info.get("pid", os.getpid()) != os.getpid())


def _drop_inherited(connection: object, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
    if _is_inherited(record.info):
        _cut(connection)
        # SQLAlchemy's documented recipe: with both set to None, the pool opens another connection.
        entry, fairy = cast(Any, record), cast(Any, proxy)
        entry.dbapi_connection = fairy.dbapi_connection = None
        raise DisconnectionError("opened in another process")


def _refuse_inherited(connection: Connection, *_: object) -> None:
    if _is_inherited(connection.info):
        _cut(connection.connection.dbapi_connection)
        raise ConnectionCrossedFork(
            f"a connection opened in process {connection.info['pid']} at {connection.info['opened_at']} is"
            f" used in process {os.getpid()}: a session or connection was made before the server forked, and"
            " kept. Keep none in a global; use db.session inside the request."
        )


def _cut_before_rollback(connection: Connection) -> None:
    if not connection.invalidated and _is_inherited(connection.info):
        _cut(connection.connection.dbapi_connection)


def _cut_if_inherited(connection: object, record: ConnectionPoolEntry | None, _: object = None) -> None:
    if record is not None and _is_inherited(record.info):
        _cut(connection)


def _cut(connection: object) -> None:
    """Redirect the child's copy of the parent's socket to /dev/null, so that no clean-up writes to it."""
    if id(connection) in _inherited:
        return
    _inherited[id(connection)] = connection
    if hasattr(connection, "fileno") and not getattr(connection, "closed", False):
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, connection.fileno(), inheritable=False)
        os.close(null)


def _discard() -> None:
    global _process
    for connection in list(_sockets):
        _cut(connection)
    for engine in list(_engines):
        _inherited[id(engine.pool)] = engine.pool
        engine.dispose(close=False)
    _process = os.getpid()


os.register_at_fork(after_in_child=_discard)


def _calling_line() -> str:
    """Return the file and line of the innermost caller outside installed packages."""
    installed = (*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), __file__)
    for frame in reversed(traceback.extract_stack(limit=60)):
        if not frame.filename.startswith((*installed, "<")):
            return f"{frame.filename}:{frame.lineno}"
    return "an unknown line"
