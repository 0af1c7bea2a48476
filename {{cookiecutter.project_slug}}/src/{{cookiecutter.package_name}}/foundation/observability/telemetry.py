"""The startup of exporters, whose threads and connections do not survive a fork.

Each process starts its own on its first request.
Source: OpenTelemetry Python, "Working With Fork Process Models".
"""

import functools
import os
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class AfterFork:
    """A layer that calls a function once per process, on the first request, after which no server forks."""

    def __init__(self, wsgi_app: WSGIApplication, start: Callable[[], None]) -> None:
        self.wsgi_app = wsgi_app
        self.start_in = functools.cache(lambda process: start())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.start_in(os.getpid())
        return self.wsgi_app(environ, start_response)
