"""The outermost layer of each request: its id, log line, metrics and response headers.

It is one WSGI layer with everything prepared: the same by functions of Flask costs ten times as much.
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
        # A prefix is used only if all of it is valid.
        given = environ.get("HTTP_X_FORWARDED_PREFIX", "") if trusted else ""
        if prefix := given.rstrip("/") if PREFIX.fullmatch(given.rstrip("/")) else self.prefix:
            apply_prefix(environ, prefix)
        path, remote = environ.get("PATH_INFO", ""), environ.get("REMOTE_ADDR") or ""
        if self.probe_host:
            # Werkzeug compares with case.
            host = self.probe_host if path in PROBES else environ.get("HTTP_HOST", "").lower()
            environ["HTTP_HOST"] = host
        # These are read now: uWSGI empties the environment before an unclosed stream ends.
        agent = environ.get("HTTP_USER_AGENT") or ""
        exchange = Exchange(environ["REQUEST_METHOD"], path, remote, agent, started)
        at_close(environ, partial(self._end, exchange))
        if self.metrics:
            self.metrics.begin_request()

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            """Note status and route, and send the headers that the response lacks."""
            exchange.status = status[:3]
            # Flask removes its request from the environment when it ends.
            if rule := getattr(environ.get("werkzeug.request"), "url_rule", None):
                exchange.route = rule.rule
            headers += missing_headers(environ["wsgi.url_scheme"], *[name for name, _ in headers])
            headers.append(("X-Request-ID", identity))
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        return self.wsgi_app(environ, start)

    def _end(self, exchange: Exchange) -> None:
        exchange.seconds = time.perf_counter() - exchange.started
        if self.metrics:
            # A client may send any method and any path: both would grow without end.
            method = exchange.method if exchange.method in _METHODS else "other"
            self.metrics.end_request(method, exchange.route or "none", exchange.status, exchange.seconds)
        if self.write_line and not (exchange.route in PROBES and exchange.status == "200"):
            # A logger with handlers gets a record in place of the line.
            (log_record if LOGGER.handlers else self.write_line)(exchange)


def identity_of(environ: WSGIEnvironment, *, trusted: bool) -> str:
    """Return the request's id: the one that a trusted peer sent, or a new one."""
    identity: str = environ.get("HTTP_X_REQUEST_ID", "")
    return identity if trusted and _ID.fullmatch(identity) else os.urandom(16).hex()
