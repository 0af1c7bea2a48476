"""What stands between the server and Flask: bodies that are whole, requests that share nothing."""

from __future__ import annotations

import contextvars
import importlib
import io
import typing as t
from collections.abc import Iterable, Iterator

from werkzeug.exceptions import ClientDisconnected

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class WholeBodies:
    """Refuse a request body that was cut short; read one that uWSGI would hand on empty.

    gunicorn and gevent mark every body as complete by itself (`wsgi.input_terminated`), so one
    that the client broke off looks whole (gunicorn#3234). uWSGI leaves a chunked body to the
    application.
    """

    def __init__(self, wsgi_app: WSGIApplication) -> None:
        self.wsgi_app = wsgi_app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ.get("HTTP_TRANSFER_ENCODING"):
            # Without the mark Werkzeug counts, and misses what is missing.
            environ.pop("wsgi.input_terminated", None)
        elif "uwsgi.version" in environ:
            environ["wsgi.input"] = io.BufferedReader(UWSGIChunks())
            environ["wsgi.input_terminated"] = True
        elif "wsgi.input" in environ:
            environ["wsgi.input"] = io.BufferedReader(ServerChunks(environ["wsgi.input"]))
        return self.wsgi_app(environ, start_response)


class ServerChunks(io.RawIOBase):
    """A chunked body as the server decodes it; what breaks it off is the client's fault, a 400."""

    def __init__(self, stream: t.Any) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        try:
            data = self.next_part(len(buffer))
        except (OSError, ValueError) as error:
            raise ClientDisconnected() from error
        buffer[: len(data)] = data
        return len(data)

    def next_part(self, size: int) -> bytes:
        return t.cast(bytes, self.stream.read(size))


class UWSGIChunks(ServerChunks):
    """A chunked body under uWSGI, which decodes it only when asked chunk by chunk."""

    def __init__(self) -> None:
        super().__init__(importlib.import_module("uwsgi"))
        self.rest = b""

    def next_part(self, size: int) -> bytes:
        self.rest = self.rest or self.stream.chunked_read()
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
