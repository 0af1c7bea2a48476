"""A database that answers nothing holds no request for longer than a deadline.

When the server is frozen, or the network drops packets, no timeout of the server comes into
force, and the connection looks alive. Only the client can stop waiting. PostgreSQL only.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Callable
from contextvars import ContextVar

import psycopg
from flask import Flask
from psycopg.errors import ConnectionTimeout, OperationalError
from sqlalchemy import Engine, event

GRACE = 0.5  # seconds after which the server's own timeout should have ended a statement
SILENCE = 1.0  # seconds in which nobody asks again, so that threads stay free for other requests

_in_request: ContextVar[bool] = ContextVar("in_request", default=False)


class NoAnswer(OperationalError):
    """The database has not answered within the deadline, to this request or to one just before."""


class ImpatientConnection(psycopg.Connection[t.Any]):
    """A connection on which a request waits only so long for an answer; then it is closed."""

    seconds: float
    silent_until = 0.0

    def wait(self, gen: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        if not _in_request.get():  # A command may take its time.
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(gen, *args, **kwargs | {"timeout": self.seconds})
        except OperationalError as error:
            if type(error).__name__ != "_WaitTimeout":
                raise
            self.begin_silence()
            self.close()
            raise NoAnswer(f"the database has not answered for {self.seconds} seconds") from None

    @classmethod
    def begin_silence(cls) -> None:
        cls.silent_until = time.monotonic() + SILENCE


def bound(app: Flask, engine: Engine, seconds: float) -> None:
    """Let no request of the application wait for an answer of the database longer than that, and a bit."""

    class Connection(ImpatientConnection):
        pass

    Connection.seconds = seconds + GRACE
    open_connection: Callable[..., Connection] = Connection.connect

    @app.before_request
    def begin() -> None:
        # Each request has a context of its own (middleware.py), so this ends with it.
        _in_request.set(True)

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: object, record: object, args: tuple[t.Any, ...], params: dict[str, t.Any]
    ) -> Connection:
        if _in_request.get() and time.monotonic() < Connection.silent_until:
            raise NoAnswer("the database has just not answered another request")
        try:
            return open_connection(*args, **params)
        except ConnectionTimeout:
            Connection.begin_silence()
            raise
