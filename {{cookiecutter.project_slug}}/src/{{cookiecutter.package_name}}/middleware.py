"""What stands between the server and Flask: whole bodies, whole answers, requests that share nothing."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import io
import logging
import os
import socket
import struct
import typing as t
from collections.abc import Callable, Iterable, Iterator

from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge
from werkzeug.wsgi import LimitedStream, get_content_length

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


log = logging.getLogger(__name__)

LONGEST_REST = 8 * 1024 * 1024  # bytes that are read of a body nobody wanted

_late_failure: contextvars.ContextVar[Exception | None] = contextvars.ContextVar("late_failure", default=None)


class WholeBodies:
    """Refuse a request body that was cut short or is too long; read one that uWSGI would hand on empty.

    gunicorn and gevent mark every body as complete by itself (`wsgi.input_terminated`), so one
    that the client broke off looks whole (gunicorn#3234). Werkzeug ends a chunked body without a
    word where it becomes too long. uWSGI leaves chunks to the application. What the application
    has not read is read before the connection is closed: a client that is still sending would get
    a reset in place of its 401 or 413.
    """

    def __init__(self, wsgi_app: WSGIApplication, longest: int) -> None:
        self.wsgi_app = wsgi_app
        self.longest = longest

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        server_input = environ["wsgi.input"]
        if not environ.get("HTTP_TRANSFER_ENCODING"):
            # Werkzeug's own counting: it raises ClientDisconnected, a 400, for what is missing.
            body: io.RawIOBase = LimitedStream(server_input, get_content_length(environ) or 0)
        elif "uwsgi.version" in environ:
            body = Chunks(UWSGIChunks(), self.longest)
        else:
            body = Chunks(server_input, self.longest)
        environ["wsgi.input"] = io.BufferedReader(body)
        environ["wsgi.input_terminated"] = True
        at_close(environ, lambda: _read_rest(body))
        return self.wsgi_app(environ, start_response)


def _read_rest(body: io.RawIOBase) -> None:
    if isinstance(body, Chunks):
        body.longest = body.count + LONGEST_REST
    elif isinstance(body, LimitedStream) and body.limit > LONGEST_REST:
        return
    with contextlib.suppress(HTTPException):
        while body.read(65536):
            pass


class Chunks(io.RawIOBase):
    """A chunked body. What breaks it off is the client's fault, a 400; what is too long is a 413."""

    def __init__(self, source: t.Any, longest: int) -> None:
        self.source, self.longest, self.count = source, longest, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        data = self._next(len(buffer))
        self.count += len(data)
        # Werkzeug stops asking at the limit: whether more would come has to be found out before.
        if self.count > self.longest or (self.count == self.longest and self._next(1)):
            raise RequestEntityTooLarge()
        buffer[: len(data)] = data
        return len(data)

    def _next(self, size: int) -> bytes:
        try:
            return t.cast(bytes, self.source.read(size))
        except (OSError, ValueError) as error:
            raise ClientDisconnected() from error


class UWSGIChunks:
    """What uWSGI has received of a chunked body, which it decodes only when asked chunk by chunk."""

    def __init__(self) -> None:
        self.uwsgi = importlib.import_module("uwsgi")
        self.rest = b""

    def read(self, size: int) -> bytes:
        self.rest = self.rest or self.uwsgi.chunked_read()
        part, self.rest = self.rest[:size], self.rest[size:]
        return part


class OwnContext:
    """Run each request, its response and its end in a `contextvars.Context` of its own.

    A stream that nobody closes would otherwise leave its application context on the worker's
    thread for ever, and every later request of that thread would share its session
    (pallets/flask#6123).
    """

    def __init__(self, wsgi_app: WSGIApplication) -> None:
        self.wsgi_app = wsgi_app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        context = contextvars.Context()
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
    """Call a function in the request's context when its response has been closed; the last one first."""
    environ[_AT_CLOSE].append(function)


def _call_each(functions: list[Callable[[], None]]) -> None:
    try:
        while functions:
            functions.pop()()
    finally:
        if functions:
            _call_each(functions)


def break_off(error: Exception) -> None:
    """End the body of this request's response with an error: its status has been sent already."""
    _late_failure.set(error)


class ResponseInContext(Iterator[bytes]):
    """The body of a response, each part made in the context of its request.

    One that fails is broken off, so that no client takes it for whole, and the log names the request.
    """

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
            # Every server prints the traceback, and none the request that it belongs to.
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
        # A middleware that hides close() must not keep the request's session open.
        self.close()


def _reset_connection() -> None:
    # uWSGI ends a response that failed like a whole one, by closing the connection.
    connection = importlib.import_module("uwsgi").connection_fd()
    with socket.socket(fileno=os.dup(connection)) as copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
