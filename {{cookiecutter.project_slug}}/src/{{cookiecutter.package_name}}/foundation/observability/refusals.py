"""The response to requests that are refused before they reach the application."""

import json
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIEnvironment

from ..edge.headers import missing_headers
from ..edge.proxies import TrustedProxies
from .requests import identity_of

if TYPE_CHECKING:
    from .metrics import Metrics

log = logging.getLogger(__name__)

PAUSE = 10.0  # seconds between two log lines per process
RETRY_AFTER = 2  # seconds
PROBLEM = {
    "type": "about:blank",
    "title": "Service Unavailable",
    "status": 503,
    "detail": "Too many requests are waiting, try again.",
}


class Refusals:
    """Return a 503 with the headers of every response, and count and log refused requests.

    A log line would cost more than the response, so each process writes one every ten seconds.
    """

    def __init__(self, proxies: TrustedProxies, limit: int, metrics: "Metrics | None") -> None:
        self.proxies, self.limit, self.metrics = proxies, limit, metrics
        self.count = 0  # refused requests since the last log line
        self.logged = -PAUSE  # monotonic time of the last log line

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        identity = identity_of(environ, trusted=self.proxies.apply(environ))
        body = json.dumps(PROBLEM | {"request_id": identity}).encode()
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            ("Retry-After", str(RETRY_AFTER)),
            ("X-Request-ID", identity),
        ]
        headers += missing_headers(environ["wsgi.url_scheme"], *[name for name, _ in headers])
        start_response("503 Service Unavailable", headers)
        self._note()
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _note(self) -> None:
        if self.metrics:
            self.metrics.count("refused_requests")
        self.count += 1
        now = time.monotonic()
        if now - self.logged >= PAUSE:
            count, self.count, self.logged = self.count, 0, now
            log.warning("overload: %d requests refused that had waited for %d ms", count, self.limit)
