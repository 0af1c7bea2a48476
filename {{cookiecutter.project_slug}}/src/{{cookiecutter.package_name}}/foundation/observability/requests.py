"""The layer for request ids, log lines, metrics and response headers.

It is one WSGI layer with everything precomputed: the same in Flask hooks costs ten times as much.
"""

import os
import re
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ..configuration import ServiceSettings
from ..edge.context import at_close
from ..edge.headers import missing_headers
from ..edge.proxies import PREFIX, TrustedProxies, apply_prefix
from .access import LOGGER, WRITERS, Exchange, log_record
from .logs import request_id

if TYPE_CHECKING:
    from .metrics import Metrics

# Probes are frequent and use IP addresses, so they skip TRUSTED_HOSTS and only their failures are logged.
LIVEZ, READYZ = "/livez", "/readyz"
PROBES = {LIVEZ, READYZ}

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Requests:
    """Identify, log and count each request, and complete the headers of its response."""

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        settings: ServiceSettings,
        proxies: TrustedProxies,
        metrics: "Metrics | None",
    ) -> None:
        self.wsgi_app, self.metrics = wsgi_app, metrics
        self.proxies, self.prefix = proxies, settings.url_prefix
        self.probe_host = settings.trusted_hosts[0].lstrip(".") if settings.trusted_hosts else None
        self.write_line = WRITERS[settings.log_style] if settings.log_level in {"debug", "info"} else None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started = time.perf_counter()
        trusted = self.proxies.apply(environ)
        identity = environ["HTTP_X_REQUEST_ID"] = identity_of(environ, trusted=trusted)
        request_id.set(identity)
        # An id is used only if all of it is valid.
        given = environ.get("HTTP_X_FORWARDED_PREFIX", "") if trusted else ""
        if prefix := given.rstrip("/") if PREFIX.fullmatch(given.rstrip("/")) else self.prefix:
            apply_prefix(environ, prefix)
        path, remote = environ.get("PATH_INFO", ""), environ.get("REMOTE_ADDR") or ""
        if self.probe_host:
            # Werkzeug's comparison is case-sensitive.
            host = self.probe_host if path in PROBES else environ.get("HTTP_HOST", "").lower()
            environ["HTTP_HOST"] = host
        # Read now: uWSGI clears the environment before an unclosed stream ends.
        agent = environ.get("HTTP_USER_AGENT") or ""
        exchange = Exchange(environ["REQUEST_METHOD"], path, remote, agent, started)
        at_close(environ, partial(self._end, exchange))
        if self.metrics:
            self.metrics.begin_request()

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            """Record the status and route, and add missing response headers."""
            exchange.status = status[:3]
            # Flask removes the request from the environment at its end.
            if rule := getattr(environ.get("werkzeug.request"), "url_rule", None):
                exchange.route = rule.rule
            headers += missing_headers(environ["wsgi.url_scheme"], *[name for name, _ in headers])
            headers.append(("X-Request-ID", identity))
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        return self.wsgi_app(environ, start)

    def _end(self, exchange: Exchange) -> None:
        exchange.seconds = time.perf_counter() - exchange.started
        if self.metrics:
            # Clients may send any method and path, so the number of label sets would be unbounded.
            method = exchange.method if exchange.method in _METHODS else "other"
            self.metrics.end_request(method, exchange.route or "none", exchange.status, exchange.seconds)
        if self.write_line and not (exchange.route in PROBES and exchange.status == "200"):
            # A logger with handlers gets a record instead of the line.
            (log_record if LOGGER.handlers else self.write_line)(exchange)


def identity_of(environ: WSGIEnvironment, *, trusted: bool) -> str:
    """Return the request id from a trusted peer, or a new one."""
    identity: str = environ.get("HTTP_X_REQUEST_ID", "")
    return identity if trusted and _ID.fullmatch(identity) else os.urandom(16).hex()
