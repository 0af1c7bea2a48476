"""Requests to other services: each has one deadline, and is retried only if that is safe.

    @loaded_once
    def payments() -> httpx.Client:
        return client("https://payments.example.com", seconds=2)

`payments().get("/rates")` in a service function. Each process has its own client, because two processes on
one connection would read each other's responses. Only projects that call other services need httpx.
"""

import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx

from ..observability.logs import request_id
from .errors import Problem

log = logging.getLogger(__name__)

REPEATABLE = {"GET", "HEAD", "OPTIONS"}
BUSY = {502, 503, 504}
PAUSE = 0.1  # seconds before the next attempt, unless the response specifies more


class NoAnswer(Problem):
    """Another service has not responded: 504 after the deadline, 502 without a connection."""


def client(base_url: str, *, seconds: float, attempts: int = 2, **options: Any) -> httpx.Client:
    """Return a client for one service. `seconds` is the deadline of a request, including all attempts.

    A GET is retried after a broken connection or a 502, 503 or 504; other requests only if no connection was
    established. The id of the current request is forwarded. Options are those of `httpx.Client`. Raises
    `NoAnswer` in place of `httpx.TransportError`. httpx sets no total limit for headers that arrive in many
    pieces.
    """
    transport = Patient(httpx.HTTPTransport(**options.pop("transport", {})), seconds, attempts)
    return httpx.Client(base_url=base_url, transport=transport, timeout=seconds, **options)


class Patient(httpx.BaseTransport):
    """A transport with a deadline and a maximum number of attempts."""

    def __init__(self, transport: httpx.BaseTransport, seconds: float, attempts: int) -> None:
        self._transport = transport
        self._seconds = seconds
        self._attempts = attempts

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, with retries. Raises `NoAnswer`."""
        end = time.monotonic() + self._seconds
        if identity := request_id.get():
            request.headers.setdefault("X-Request-ID", identity)
        for left in reversed(range(self._attempts)):
            try:
                response = self._attempt(request, end)
            except httpx.TransportError as error:
                is_unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if left and (is_unsent or request.method in REPEATABLE) and _pause(PAUSE, end):
                    continue
                raise _no_answer(request, error) from error
            wait = _seconds_to_wait(response)
            if not (left and wait is not None and request.method in REPEATABLE and _pause(wait, end)):
                return response
            response.close()
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, request: httpx.Request, end: float) -> httpx.Response:
        timeout = max(end - time.monotonic(), 0.001)
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
        response = self._transport.handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = Bounded(response.stream, request, end)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


class Bounded(httpx.SyncByteStream):
    """A body that must arrive by the deadline: httpx's own timeout restarts with every chunk."""

    def __init__(self, stream: httpx.SyncByteStream, request: httpx.Request, end: float) -> None:
        self._stream = stream
        self._request = request
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._stream:
                if time.monotonic() > self._end:
                    raise httpx.ReadTimeout("the body has not arrived by the deadline")
                yield piece
        except httpx.TransportError as error:
            raise _no_answer(self._request, error) from error

    def close(self) -> None:
        """Release the connection."""
        self._stream.close()


def _no_answer(request: httpx.Request, error: httpx.TransportError) -> NoAnswer:
    log.warning("%s %s: %s: %s", request.method, request.url.host, type(error).__name__, error)
    status = 504 if isinstance(error, httpx.TimeoutException) else 502
    return NoAnswer(status, "Another service has not answered.")


def _seconds_to_wait(response: httpx.Response) -> float | None:
    """Return the seconds to wait before the next attempt, or None if a retry cannot help."""
    if response.status_code not in BUSY:
        return None
    named = response.headers.get("Retry-After", "")
    return float(named) if named.isascii() and named.isdecimal() else PAUSE


def _pause(seconds: float, end: float) -> bool:
    """Wait, unless the deadline comes first, and return whether there is time for another attempt."""
    if time.monotonic() + seconds >= end:
        return False
    time.sleep(seconds)
    return True
