"""What stands between the server and Flask: bodies that are whole, requests that share nothing."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import io
import typing as t
from collections.abc import Iterable, Iterator

from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge
from werkzeug.wsgi import ClosingIterator, LimitedStream, get_content_length

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


LONGEST_REST = 8 * 1024 * 1024  # bytes that are read of a body nobody wanted


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
        answer = self.wsgi_app(environ, start_response)
        return ClosingIterator(answer, lambda: _read_rest(body))


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
        return ResponseInContext(context, context.run(self.wsgi_app, environ, start_response))


class ResponseInContext(Iterator[bytes]):
    """The body of a response, each part made in the context of its request."""

    def __init__(self, context: contextvars.Context, body: Iterable[bytes]) -> None:
        self.context, self.body = context, body
        self.parts = iter(body)

    def __next__(self) -> bytes:
        return self.context.run(next, self.parts)

    def close(self) -> None:
        close, self.body, self.parts = getattr(self.body, "close", None), (), iter(())
        if close is not None:
            self.context.run(close)

    def __del__(self) -> None:
        # A middleware that hides close() must not keep the request's session open.
        self.close()
