"""PostgreSQL: a deadline for a server that does not answer, and the end of connections that are stale.

No timeout of a frozen server applies, and its connection looks alive: only the client can stop waiting.
"""

import select
import time
from collections.abc import Callable
from typing import Any

import psycopg
from flask import has_request_context, request

# Private: imported by name, so that a release without it fails the tests and not a request.
from psycopg.errors import ConnectionTimeout, OperationalError, _WaitTimeout
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, ExceptionContext, event

from ..edge.context import in_request

GRACE = 0.5  # seconds after which the server's own timeout should have ended a statement
SILENCE = 1.0  # seconds without another attempt, so that threads stay free for other requests
REST = 30.0  # seconds without use after which a network may have dropped a connection silently


class NoAnswer(OperationalError):
    """The database has not answered within the deadline, to this request or to one just before."""


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that closes itself when a request waits longer than the deadline."""

    seconds: float
    silent_until = 0.0
    pinged_at = float("-inf")

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        if not in_request.get():  # A command may take its time.
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(gen, *args, **kwargs | {"timeout": self.seconds})
        except _WaitTimeout:
            self.begin_silence()
            self.close()
            raise NoAnswer(f"the database has not answered for {self.seconds} seconds") from None

    @classmethod
    def begin_silence(cls) -> None:
        cls.silent_until = time.monotonic() + SILENCE


def limit_wait(engine: Engine, seconds: float) -> None:
    """Limit how long a request waits for an answer of the engine's database, plus a grace."""

    class EngineConnection(ImpatientConnection):
        """The connections of one engine, which share its deadline and its silence."""

    EngineConnection.seconds = seconds + GRACE
    open_connection: Callable[..., EngineConnection] = EngineConnection.connect

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: object, record: object, args: tuple[Any, ...], params: dict[str, Any]
    ) -> EngineConnection:
        if in_request.get() and time.monotonic() < EngineConnection.silent_until:
            raise NoAnswer("the database has just not answered another request")
        try:
            return open_connection(*args, **params)
        except ConnectionTimeout:
            EngineConnection.begin_silence()
            raise


def ping_without_waiting(engine: Engine) -> None:
    """Poll a connection's socket before use, in place of a round trip to the server.

    A server that ends a connection sends a message or closes the socket, so the socket becomes readable. Only
    then, and after a rest, a statement is sent.
    """
    send_ping: Callable[[Any], bool] = engine.dialect.do_ping

    def ping(connection: ImpatientConnection) -> bool:
        now, before = time.monotonic(), connection.pinged_at
        connection.pinged_at = now
        return (now - before < REST and _is_quiet(connection)) or send_ping(connection)

    engine.dialect.do_ping = ping  # type: ignore[method-assign, assignment]


def _is_quiet(connection: ImpatientConnection) -> bool:
    """Return whether the socket has nothing to read, not even its end."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return not poll.poll(0)


def leave_stale_connections(engine: Engine) -> None:
    """Drop connections whose server rejects writes now, and those with plans from before a migration.

    A new connection finds the primary by `target_session_attrs=read-write`, or by a host name that has moved.
    """

    @event.listens_for(engine, "handle_error")
    def leave(context: ExceptionContext) -> None:
        error: Any = context.original_exception
        is_read_only = getattr(error, "sqlstate", None) == "25006" and not _is_writable(context.connection)
        if is_read_only or _has_stale_plan(error):
            context.is_disconnect = True


def repeat_stale_reads(engine: Engine) -> None:
    """Run a read again whose plan is from before a migration, if it is the first of its transaction.

    Any other request gets a 503 with Retry-After: what it has read or written before belongs to the old plan.
    """

    @event.listens_for(engine, "do_execute")
    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        is_first = cursor.connection.pgconn.transaction_status == TransactionStatus.IDLE
        try:
            cursor.execute(statement, parameters)
        except psycopg.Error as error:
            is_read = has_request_context() and request.method in {"GET", "HEAD"}
            if not (is_first and is_read and _has_stale_plan(error)):
                raise
            cursor.connection.rollback()
            context.root_connection.connection.invalidate(soft=True)  # It is dropped after this request.
            cursor.execute(statement, parameters, prepare=False)
        return True


def _has_stale_plan(error: Any) -> bool:
    """Return whether a prepared statement does not fit the schema any more, or is gone."""
    diagnostics = getattr(error, "diag", None)
    # The message is translated by some servers: "cached plan must not change result type".
    return diagnostics is not None and (
        diagnostics.source_function == "RevalidateCachedQuery" or diagnostics.sqlstate == "26000"
    )


def _is_writable(connection: Connection | None) -> bool:
    """Return whether the server accepts writes: then the transaction alone is read-only, which is a bug."""
    driver: Any = connection and connection.connection.dbapi_connection
    reasons = ("in_hot_standby", "default_transaction_read_only")  # PostgreSQL 14 reports each change.
    return driver is not None and all(driver.info.parameter_status(name) == "off" for name in reasons)
