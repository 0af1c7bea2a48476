"""gunicorn's thread worker without threads held by slow clients: `WEB_WORKER_CLASS=gthread_patient`.

In gunicorn's own worker a thread waits for the rest of a request, and the accepting thread for each client to
close its end. Here the poller waits: a thread gets a request when all of it has arrived, or BUFFERED bytes. A
thread reads the rest, chunked bodies, and bodies whose client waits for a 100. Only gunicorn parses requests.
The class rests on private parts of gunicorn: tests/foundation/serving/test_gthread_patient.py lists them.
"""

import contextlib
import errno
import re
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn import http, util
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

# Seconds that a client has for a request after its first byte, for each further BUFFERED bytes that a thread
# reads, to read more of its response, and to close its end after the last response.
PATIENCE = 10
BUFFERED = 65536  # bytes of a connection

_READ_BY_A_THREAD = re.compile(rb"\r\n(?:expect|transfer-encoding):", re.IGNORECASE)
# A longer length is not waited for: its 413 needs no body, before which the service reads at most 8 MiB.
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,7})[ \t]*\r\n", re.IGNORECASE)


class Socket(socket.socket):
    """A connection whose client counts as gone if it reads nothing of its response."""

    def take(self, size: int) -> bytes | None:
        """Return the received bytes, no bytes at the end, or None if nothing has arrived yet."""
        try:
            return self.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def sendall(self, *args: Any) -> None:
        try:
            super().sendall(*args)
        except BlockingIOError:  # SO_SNDTIMEO. gunicorn would print a traceback.
            raise ConnectionResetError(errno.ECONNRESET, "the client reads nothing") from None


class Unreader(SocketUnreader):
    """The bytes of a connection, read by the accepting thread, and by a thread once it has the request."""

    needed = 0  # bytes of the request, once its head has arrived
    patience: float = PATIENCE  # remaining seconds for which a thread may wait
    has_ended = False

    def receive(self) -> bool:
        """Read without waiting, and return whether a thread can start the next request."""
        size = self.buf.seek(0, 2)
        if not self._is_whole() and (data := self.sock.take(BUFFERED - size)) is not None:
            self.buf.write(data)
            self.has_ended = not data
        if is_whole := self._is_whole():
            self.needed, self.patience = 0, PATIENCE
        return is_whole

    def _is_whole(self) -> bool:
        data = self.buf.getvalue()
        if not self.needed and (end := data.find(b"\r\n\r\n") + 4) >= 4:
            length = None if _READ_BY_A_THREAD.search(data, 0, end) else _LENGTH.search(data, 0, end)
            self.needed = end + int(length[1] if length else 0)
        return len(data) >= min(self.needed or BUFFERED, BUFFERED)

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Read in a thread within the remaining time, which each byte extends."""
        timeout, began = self.sock.gettimeout(), time.monotonic()
        # gunicorn sets one where it discards the rest of a body after a response: nothing waits for that.
        self.sock.settimeout(self.patience if timeout is None else 0)
        try:
            data: bytes = super().chunk(size_hint)
        except (BlockingIOError, TimeoutError):
            self.patience = 0
            # As if the client had left: a truncated body is a 400, and gunicorn closes the connection.
            raise ConnectionResetError(errno.ECONNRESET, "the client sends too slowly") from None
        finally:
            self.sock.settimeout(timeout)
        left = self.patience - (time.monotonic() - began) + PATIENCE * len(data) / BUFFERED
        self.patience = min(max(left, 0), PATIENCE)
        return data


class Connection(TConn):
    """A connection whose next request is read before a thread gets it."""

    is_done = False  # only its end is still read

    def __init__(self, *args: Any, linger: Callable[[Any], None]) -> None:
        super().__init__(*args)
        self.parser = http.get_parser(self.cfg, self.sock, self.client)
        self.unreader = self.parser.unreader = Unreader(self.sock)
        self.data_ready, self.linger = True, linger

    def close(self, graceful: bool = False) -> None:
        if graceful:
            self.linger(self)
        else:
            super().close()


class Worker(ThreadWorker):
    """Threads for complete requests, a poller for the rest; TLS, HTTP/2 and uwsgi work as in gunicorn."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting: dict[Connection, None] = {}  # in the poller, the oldest first: `_wait`

    def accept(self, listener: Any) -> None:
        if self.cfg.is_ssl or self.cfg.protocol != "http" or self.cfg.http2_cleartext != "off":
            super().accept(listener)
            return
        try:
            plain, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        sock = Socket(plain.family, plain.type, plain.proto, plain.detach())
        # The kernel's timeout applies to each part of a response. Python's would apply to all of it.
        with contextlib.suppress(OSError):  # On macOS it is an error if the client has left.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE, 0))
        self.nr_conns += 1
        self.enqueue_req(Connection(self.cfg, sock, client, listener.getsockname(), linger=self._linger))

    def enqueue_req(self, conn: Any) -> None:
        """Submit a connection with a complete request to the threads, and any other to the poller."""
        if not isinstance(conn, Connection) or conn.unreader.receive():
            super().enqueue_req(conn)
        elif conn.unreader.has_ended:
            self.nr_conns -= 1
            conn.close()
        elif conn.unreader.buf.getvalue():
            self._wait(conn)
        else:  # As for a keep-alive connection: its next request has not begun.
            conn.timeout = time.monotonic() + (self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER)
            self.keepalived_conns.append(conn)
            self.poller.register(conn.sock, EVENT_READ, partial(self.on_client_socket_readable, conn))

    def murder_pending(self) -> None:
        """Drop clients that are too slow, and the oldest idle one if there is no room for a new one."""
        super().murder_pending()
        if self.nr_conns >= self.worker_connections:
            firsts = (next(iter(group)) for group in (self.keepalived_conns, self.waiting) if group)
            if oldest := min(firsts, key=self._since, default=None):
                oldest.timeout, oldest.is_done = 0, True
                self.murder_keepalived()
        while (conn := next(iter(self.waiting), None)) and conn.timeout <= time.monotonic():
            if not conn.is_done:
                with contextlib.suppress(OSError):
                    util.write_error(conn.sock, 408, "Request Timeout", "")
            self._drop(conn, graceful=self.alive and not conn.is_done)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in self.waiting:
            conn.timeout = min(conn.timeout, deadline)

    def _since(self, conn: Any) -> float:
        return float(conn.timeout) - (PATIENCE if conn in self.waiting else self.cfg.keepalive)

    def _wait(self, conn: Connection) -> None:
        """Wait for the rest of a request, or after the last response for the client to close its end."""
        conn.timeout = time.monotonic() + (PATIENCE if self.alive else STOP_KEEPALIVE_LINGER)
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))
        self.waiting[conn] = None

    def _on_readable(self, conn: Connection, sock: Socket) -> None:
        if not conn.is_done and conn.unreader.receive():
            self.poller.unregister(sock)
            del self.waiting[conn]
            super().enqueue_req(conn)
        elif conn.unreader.has_ended or (conn.is_done and sock.take(BUFFERED) == b""):
            self._drop(conn)

    def _linger(self, conn: Connection) -> None:
        """Close after the client: a reset would discard what it has not read yet (RFC 9112, 9.6)."""
        with contextlib.suppress(OSError):
            conn.sock.shutdown(socket.SHUT_WR)
            conn.is_done = True
            self._wait(conn)
            self.nr_conns += 1  # gunicorn has counted it as closed.
            return
        conn.close()

    def _drop(self, conn: Connection, *, graceful: bool = False) -> None:
        self.poller.unregister(conn.sock)
        del self.waiting[conn]
        self.nr_conns -= 1
        conn.close(graceful)
