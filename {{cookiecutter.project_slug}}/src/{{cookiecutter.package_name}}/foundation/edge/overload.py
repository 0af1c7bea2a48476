"""Overload: requests that have waited too long are refused, so that the others are answered in time.

At twice its capacity a service without this layer answers no request in time: the queue grows until each one
has waited longer than its client does, and the work is done for clients that have left.

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
# The connection of the request: by gunicorn, by serving/pywsgi.py, by Werkzeug.
_SOCKETS = ("gunicorn.socket", "pywsgi.socket", "werkzeug.socket")
# A proxy at a unix socket has the clock of this machine. Longer waits are no times, or not in seconds.
LONGEST_WAIT = 60.0  # seconds


class Overload:
    """Pass a request that has waited for more than `limit` seconds to `refusal` instead of the application.

    Probes are never refused: to restart a process that is only busy, or to move its load to the others, makes
    an overload worse. A request that is older than this process came during a restart, and is answered.
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
        # Under gevent each request begins immediately, and waits inside the application.
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
            self.turns.end(turn)  # A stream goes on without one.


def waiting_time(environ: WSGIEnvironment) -> float:
    """Return the seconds since the last bytes of the request arrived, or 0 where that is unknown.

    The kernel counts them, so they include its own queue and the server's. Behind a unix socket the header
    X-Request-Start of the proxy has the time: `t=` and seconds since the epoch, as nginx has in `${msec}`.
    """
    if _HAS_TCP_INFO and (waited := _kernel_time(environ)) is not None:
        return waited
    # Only a peer without an address uses a unix socket, and is on this machine.
    if environ.get("REMOTE_ADDR") or not (given := environ.get("HTTP_X_REQUEST_START", "")):
        return 0.0
    try:
        waited = time.time() - float(given.removeprefix("t="))
    except ValueError:
        return 0.0
    return waited if 0 < waited < LONGEST_WAIT else 0.0


def _kernel_time(environ: WSGIEnvironment) -> float | None:
    if "uwsgi.version" in environ:
        # With its kind given, the object is made without a system call.
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
    except (OSError, AttributeError, struct.error):  # No TCP, or an object of TLS.
        return None
    return milliseconds / 1000


class Turns:
    """Turns of the requests of a process, taken in the order of arrival.

    One that has run for longer than `limit` seconds gives its turn to the next one: it waits for something
    else than the processor, and many of them may do so at the same time.
    """

    def __init__(self, count: int, limit: float) -> None:
        self.limit, self.free = limit, threading.Semaphore(count)
        self.running: dict[object, float] = {}  # the monotonic time at which each began, the oldest first
        self.typical = 0.0  # seconds that a request has run of late

    def take(self, patience: float) -> object | None:
        """Return a turn, or None if the request would not end within so many seconds."""
        self._expire()
        if not self.free.acquire(timeout=max(patience - self.typical, 0)):
            self._expire()
            if not self.free.acquire(blocking=False):
                return None
        turn = object()
        self.running[turn] = time.monotonic()
        return turn

    def end(self, turn: object) -> None:
        """Give a turn back, if its request has not lost it."""
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
