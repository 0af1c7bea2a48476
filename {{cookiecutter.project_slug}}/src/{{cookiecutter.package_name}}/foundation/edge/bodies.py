"""Request bodies: truncated, oversized and chunked ones."""

import contextlib
import importlib
import io
from collections.abc import Iterable
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge
from werkzeug.wsgi import LimitedStream, get_content_length

from .context import at_close

LONGEST_REST = 8 * 1024 * 1024  # bytes read from a body that the application has ignored


class WholeBodies:
    """Reject truncated and oversized request bodies; decode chunked bodies, which uWSGI leaves undecoded.

    gunicorn and gevent mark every body as complete, even a truncated one (gunicorn#3234). Werkzeug silently
    truncates a long chunked body. The unread rest of a body is read before the connection is closed:
    otherwise a client that is still sending gets a reset instead of its 401 or 413.
    """

    def __init__(self, wsgi_app: WSGIApplication, longest: int) -> None:
        self.wsgi_app = wsgi_app
        self.longest = longest

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        server_input = environ["wsgi.input"]
        if not environ.get("HTTP_TRANSFER_ENCODING"):
            # Werkzeug counts the bytes, and raises ClientDisconnected (400) if some are missing.
            body: io.RawIOBase = LimitedStream(server_input, get_content_length(environ) or 0)
        else:
            source = UWSGIChunks() if "uwsgi.version" in environ else server_input
            body = Chunks(source, self.longest)
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
    """A chunked body. A truncated body raises a 400, an oversized body a 413."""

    def __init__(self, source: Any, longest: int) -> None:
        self.source, self.longest, self.count = source, longest, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer))
        self.count += len(data)
        # Werkzeug stops reading at the limit, so check here for more.
        if self.count > self.longest or (self.count == self.longest and self._next(1)):
            raise RequestEntityTooLarge()
        buffer[: len(data)] = data
        return len(data)

    def _next(self, size: int) -> bytes:
        try:
            return cast(bytes, self.source.read(size))
        except Exception as error:  # Each server has its own exceptions for malformed chunks.
            raise ClientDisconnected() from error


class UWSGIChunks:
    """The chunked body of a request under uWSGI, which decodes it chunk by chunk on demand."""

    def __init__(self) -> None:
        self.uwsgi = importlib.import_module("uwsgi")
        self.rest = b""

    def read(self, size: int) -> bytes:
        self.rest = self.rest or self.uwsgi.chunked_read()
        part, self.rest = self.rest[:size], self.rest[size:]
        return part
