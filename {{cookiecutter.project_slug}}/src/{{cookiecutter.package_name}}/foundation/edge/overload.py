"""Overload protection: requests that have waited too long are refused, so that the others are served in time.

At twice its capacity, a service without this layer serves no request in time: the queue grows until each
request waits longer than its client, and the work is done for clients that have left.

State: `started` and `process` of each `Overload`; `running` and `typical` of each `Turns`.
"""

import importlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# struct tcp_info of linux/tcp.h, which only grows at its end: tcpi_last_data_recv, in milliseconds.
_LAST_DATA = struct.Struct("=52xI")
_HAS_TCP_INFO = sys.platform == "linux"
# The request's connection, set by gunicorn, serving/pywsgi.py and Werkzeug.
_SOCKETS = ("gunicorn.socket", "pywsgi.socket", "werkzeug.socket")
# A proxy at a unix socket shares this machine's clock. A longer wait is no timestamp, or not in seconds.
LONGEST_WAIT = 60.0  # seconds


class Overload:
    """Pass requests that have waited longer than `limit` seconds to `refusal` instead of the application.

    Probes are never refused: restarting a busy process, or moving its load to others, makes an overload
    worse. A request older than this process arrived during a restart, and is served.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        refusal: WSGIApplication,
        *,
        limit: float,
        exempt: frozenset[str],
        turns: int,
        observe: Callable[[float], None] | None = None,
    ) -> None:
        self.wsgi_app, self.refusal, self.limit, self.exempt = wsgi_app, refusal, limit, exempt
        self.observe = observe
        # Under gevent, requests start immediately and wait inside the application.
        self.turns = Turns(turns, limit) if _has_greenlets() else None
        self.process, self.started = 0, 0.0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.process != os.getpid():
            self.process, self.started = os.getpid(), time.monotonic()
        if environ.get("PATH_INFO") in self.exempt:
            return self.wsgi_app(environ, start_response)
        waited = waiting_time(environ)
        if self.observe:
            self.observe(waited)
        if self.limit < waited < time.monotonic() - self.started:
            return self.refusal(environ, start_response)
        if not self.turns:
            return self.wsgi_app(environ, start_response)
        if not (turn := self.turns.take(self.limit - waited)):
            return self.refusal(environ, start_response)
        try:
            return self.wsgi_app(environ, start_response)
        finally:
            self.turns.end(turn)  # A stream continues without a turn.


def waiting_time(environ: WSGIEnvironment) -> float:
    """Return the seconds since the last bytes of the request arrived, or 0 if unknown.

    The kernel counts them, so they include its queue and the server's. At a unix socket the proxy sends the
    time in X-Request-Start: `t=` and seconds since the epoch, like nginx's `${msec}`.
    """
    if _HAS_TCP_INFO and (waited := _kernel_time(environ)) is not None:
        return waited
    # Only a peer at a unix socket has no address, and it is on this machine.
    if environ.get("REMOTE_ADDR") or not (given := environ.get("HTTP_X_REQUEST_START", "")):
        return 0.0
    try:
        waited = time.time() - float(given.removeprefix("t="))
    except ValueError:
        return 0.0
    return waited if 0 < waited < LONGEST_WAIT else 0.0


def _kernel_time(environ: WSGIEnvironment) -> float | None:
    if "uwsgi.version" in environ:
        # With explicit family and type, the object is created without a system call.
        descriptor = importlib.import_module("uwsgi").connection_fd()
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
        try:
            return _last_data(connection)
        finally:
            connection.detach()
    for name in _SOCKETS:
        if name in environ:
            return _last_data(environ[name])
    return None


def _last_data(connection: Any) -> float | None:
    try:
        found = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size)
        milliseconds: int = _LAST_DATA.unpack(found)[0]
    except (OSError, AttributeError, struct.error):  # Not TCP, or a TLS object.
        return None
    return milliseconds / 1000


class Turns:
    """Turns for the requests of a process, in order of arrival.

    A request that has run longer than `limit` seconds gives its turn to the next: it waits for something
    other than the processor, and many may do so concurrently.
    """

    def __init__(self, count: int, limit: float) -> None:
        self.limit, self.free = limit, threading.Semaphore(count)
        self.running: dict[object, float] = {}  # the monotonic start time of each, oldest first
        self.typical = 0.0  # recent running time of a request, in seconds

    def take(self, patience: float) -> object | None:
        """Return a turn, or None if the request would not finish within so many seconds."""
        self._expire()
        if not self.free.acquire(timeout=max(patience - self.typical, 0)):
            self._expire()
            if not self.free.acquire(blocking=False):
                return None
        turn = object()
        self.running[turn] = time.monotonic()
        return turn

    def end(self, turn: object) -> None:
        """Give back a turn, unless its request has lost it."""
        if (began := self.running.pop(turn, None)) is not None:
            self.typical += (time.monotonic() - began - self.typical) / 10
            self.free.release()

    def _expire(self) -> None:
        latest = time.monotonic() - self.limit
        for turn, began in [*self.running.items()]:
            if began > latest:
                break
            self.end(turn)


def _has_greenlets() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("threading"))
