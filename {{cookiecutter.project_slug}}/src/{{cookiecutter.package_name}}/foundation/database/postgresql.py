"""PostgreSQL: a deadline for an unresponsive server, and the replacement of stale connections.

No timeout of a frozen server takes effect, and its connections look alive: only the client can stop waiting.
"""

import select
import time
from collections.abc import Callable
from typing import Any

import psycopg
from flask import has_request_context, request

# Private: imported by name, so that a release without them fails the tests instead of requests.
from psycopg._preparing import PrepareManager
from psycopg.errors import ConnectionTimeout, OperationalError, _WaitTimeout
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, ExceptionContext, event

from ..edge.context import in_request

GRACE = 0.5  # seconds after which the server's own timeout should have ended a statement
SILENCE = 1.0  # seconds before another attempt, so that threads stay free for other requests
NO_STATEMENTS = PrepareManager()
ROUTINE = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "SAVEPOINT", "RELEASE")  # create nothing
REST = 30.0  # idle seconds after which the network may have silently dropped a connection


class NoAnswer(OperationalError):
    """The database missed the deadline of this request or of a recent one."""


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that closes when a request waits past the deadline, and keeps its prepared statements.

    psycopg deallocates them at each rollback, because the transaction may have created an object that is
    then created again with another id. A read ends with a rollback, so nothing would ever stay prepared.
    """

    _prepared: PrepareManager
    seconds: float
    silent_until = 0.0
    pinged_at = float("-inf")
    is_routine = True  # Whether the transaction has run ROUTINE statements only.

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        if not in_request.get():  # Commands have no deadline.
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(gen, *args, **kwargs | {"timeout": self.seconds})
        except _WaitTimeout:
            self.begin_silence()
            self.close()
            raise NoAnswer(f"the database has not answered for {self.seconds} seconds") from None

    def rollback(self) -> None:
        # A failed transaction may have used a statement that no longer works.
        if not self.is_routine or self.pgconn.transaction_status != TransactionStatus.INTRANS:
            super().rollback()
            return
        statements, self._prepared = self._prepared, NO_STATEMENTS
        try:
            super().rollback()
        finally:
            self._prepared = statements

    @classmethod
    def begin_silence(cls) -> None:
        cls.silent_until = time.monotonic() + SILENCE


def limit_wait(engine: Engine, seconds: float) -> None:
    """Limit how long a request waits for the engine's database: the server's timeout plus a grace period."""

    class EngineConnection(ImpatientConnection):
        """The connections of one engine, which share its deadline and the pause after a timeout."""

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
    """Poll a connection's socket before use, instead of a round trip to the server.

    A server that ends a connection sends a message or closes the socket, so the socket becomes readable. A
    statement is sent only then, or if the connection was idle for long.
    """
    send_ping: Callable[[Any], bool] = engine.dialect.do_ping

    def ping(connection: ImpatientConnection) -> bool:
        now, before = time.monotonic(), connection.pinged_at
        connection.pinged_at = now
        return (now - before < REST and _is_quiet(connection)) or send_ping(connection)

    engine.dialect.do_ping = ping  # type: ignore[method-assign, assignment]


def _is_quiet(connection: ImpatientConnection) -> bool:
    """Return whether the socket has nothing to read, not even EOF."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return not poll.poll(0)


def leave_stale_connections(engine: Engine) -> None:
    """Drop connections to a server that has become read-only, and those with plans from before a migration.

    A new connection finds the primary by `target_session_attrs=read-write`, or by the new address of its host
    name.
    """

    @event.listens_for(engine, "handle_error")
    def leave(context: ExceptionContext) -> None:
        error: Any = context.original_exception
        is_read_only = getattr(error, "sqlstate", None) == "25006" and not _is_writable(context.connection)
        if is_read_only or _has_stale_plan(error):
            context.is_disconnect = True


def execute_statements(engine: Engine) -> None:
    """Execute each statement, and record whether its transaction has run ROUTINE statements only.

    A read with a plan from before a migration is retried, if it is the first in its transaction. Any other
    request gets a 503 with Retry-After, because the server has aborted its transaction.
    """

    @event.listens_for(engine, "do_execute")
    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        connection: ImpatientConnection = cursor.connection
        is_first = connection.pgconn.transaction_status == TransactionStatus.IDLE
        is_routine = statement.lstrip()[:9].upper().startswith(ROUTINE)
        connection.is_routine = is_routine and (is_first or connection.is_routine)
        try:
            cursor.execute(statement, parameters)
        except psycopg.Error as error:
            is_read = has_request_context() and request.method in {"GET", "HEAD"}
            if not (is_first and is_read and _has_stale_plan(error)):
                raise
            connection.rollback()
            context.root_connection.connection.invalidate(soft=True)  # Dropped after this request.
            cursor.execute(statement, parameters, prepare=False)
        return True


def _has_stale_plan(error: Any) -> bool:
    """Return whether a prepared statement no longer fits the schema, or is gone."""
    diagnostics = getattr(error, "diag", None)
    # The message may be translated: "cached plan must not change result type".
    return diagnostics is not None and (
        diagnostics.source_function == "RevalidateCachedQuery" or diagnostics.sqlstate == "26000"
    )


def _is_writable(connection: Connection | None) -> bool:
    """Return whether the server accepts writes. If so, only the transaction is read-only, which is a bug."""
    driver: Any = connection and connection.connection.dbapi_connection
    reasons = ("in_hot_standby", "default_transaction_read_only")  # Reported since PostgreSQL 14.
    return driver is not None and all(driver.info.parameter_status(name) == "off" for name in reasons)
