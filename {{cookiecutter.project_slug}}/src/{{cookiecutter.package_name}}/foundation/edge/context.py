"""A `contextvars.Context` per request, and clean-ups that run when the response is closed.

State: `in_request` and `_late_failure` in the context, the list of clean-ups in the WSGI environment.
"""

import contextvars
import importlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

# Whether this context serves a request: commands have no database deadline.
in_request: contextvars.ContextVar[bool] = contextvars.ContextVar("in_request", default=False)
_late_failure: contextvars.ContextVar[Exception | None] = contextvars.ContextVar("late_failure", default=None)


class OwnContext:
    """Run each request, its response and its clean-ups in a new `contextvars.Context`.

    Otherwise an unclosed stream leaves its application context, and its session, to the next request of the
    thread (pallets/flask#6123).
    """

    def __init__(self, wsgi_app: WSGIApplication) -> None:
        self.wsgi_app = wsgi_app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "REQUEST_METHOD" not in environ:  # uWSGI forwards an empty request line.
            start_response("400 Bad Request", [("Content-Length", "0")])
            return []
        context = contextvars.Context()
        context.run(in_request.set, True)
        last: list[Callable[[], None]] = []
        environ[_AT_CLOSE] = last
        try:
            body = context.run(self.wsgi_app, environ, start_response)
        except BaseException:
            context.run(_call_each, last)
            raise
        return ResponseInContext(context, body, environ)


_AT_CLOSE = "own_context.at_close"


def at_close(environ: WSGIEnvironment, function: Callable[[], None]) -> None:
    """Call a function in the request's context after its response is closed; the last one first."""
    environ[_AT_CLOSE].append(function)


def _call_each(functions: list[Callable[[], None]]) -> None:
    try:
        while functions:
            functions.pop()()
    finally:
        if functions:
            _call_each(functions)


def break_off(error: Exception) -> None:
    """Abort the body of this response with an error, because its status has already been sent."""
    _late_failure.set(error)


class ResponseInContext(Iterator[bytes]):
    """The body of a response, produced in its request's context. An error aborts it and is logged."""

    def __init__(self, context: contextvars.Context, body: Iterable[bytes], environ: WSGIEnvironment) -> None:
        self.context, self.body, self.last = context, body, environ[_AT_CLOSE]
        self.parts = iter(body)
        self.request = f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')}"
        self.on_uwsgi = "uwsgi.version" in environ

    def __next__(self) -> bytes:
        try:
            return self.context.run(self._next)
        except StopIteration:
            raise
        except Exception as error:
            # Every server prints the traceback, but none names the request.
            self.context.run(log.error, "%s is broken off: %r", self.request, error)
            if self.on_uwsgi:
                _reset_connection()
            raise

    def _next(self) -> bytes:
        for part in self.parts:
            return part
        if error := _late_failure.get():
            raise error
        raise StopIteration

    def close(self) -> None:
        close, self.body, self.parts = getattr(self.body, "close", None), (), iter(())
        try:
            if close is not None:
                self.context.run(close)
        finally:
            if self.last:
                self.context.run(_call_each, self.last)

    def __del__(self) -> None:
        # A middleware that hides close() must not leave the request's session open.
        self.close()


def uwsgi_connection() -> socket.socket:
    """Return a copy of the connection of this request under uWSGI."""
    return socket.socket(fileno=os.dup(importlib.import_module("uwsgi").connection_fd()))


def _reset_connection() -> None:
    # uWSGI closes the connection after a failed response just as after a complete one.
    with uwsgi_connection() as copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
