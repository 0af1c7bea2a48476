"""A database that answers nothing holds no request for longer than a deadline.

When the server is frozen, or the network drops packets, no timeout of the server comes into
force, and the connection looks alive. Only the client can stop waiting. PostgreSQL only.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from contextvars import ContextVar

import psycopg
from flask import Flask
from psycopg.errors import OperationalError
from sqlalchemy import Engine, event

GRACE = 0.5  # seconds after which a statement should have been ended by the server's own timeout


class Request:
    """What is known of the database in the course of one request."""

    gave_up = False


_request: ContextVar[Request | None] = ContextVar("request", default=None)


class NoAnswer(OperationalError):
    """The database has not answered within the deadline."""


class ImpatientConnection(psycopg.Connection[t.Any]):
    """A connection that waits for the database only so long; then it is closed, and its request fails."""

    seconds: float

    def wait(self, gen: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
        request = _request.get()
        if request is None:  # A command or a migration may take its time.
            return super().wait(gen, *args, **kwargs)
        try:
            # Who has waited once in vain does not wait for the clean-up as well.
            return super().wait(gen, *args, **kwargs | {"timeout": 0 if request.gave_up else self.seconds})
        except OperationalError as error:
            if type(error).__name__ != "_WaitTimeout":
                raise
            request.gave_up = True
            self.close()
            raise NoAnswer(f"the database has not answered for {self.seconds} seconds") from None


def bound(app: Flask, engine: Engine, seconds: float) -> None:
    """Let no request of the application wait for one answer of the database longer than that, and a bit."""

    class Connection(ImpatientConnection):
        pass

    Connection.seconds = seconds + GRACE

    @app.before_request
    def begin() -> None:
        _request.set(Request())

    @event.listens_for(engine, "do_connect")
    def connect(dialect: object, record: object, args: tuple[t.Any, ...], params: dict[str, t.Any]) -> t.Any:
        if (request := _request.get()) and request.gave_up:
            raise NoAnswer("the database has not answered this request before")
        connection: Callable[..., t.Any] = Connection.connect
        return connection(*args, **params)
