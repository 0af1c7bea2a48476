"""The outermost layer of each request: its id, its line in the log, its numbers, its security headers.

One WSGI layer with everything prepared: the same done by functions of Flask costs ten times as much.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import time
import typing as t
from collections.abc import Callable, Iterable

from . import logs
from .logs import request_id
from .middleware import at_close

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .metrics import Metrics

# Source: OWASP Secure Headers Project. Clear-Site-Data is for the answer to a logout.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), autoplay=(), camera=(), cross-origin-isolated=(), display-capture=(),"
        " encrypted-media=(), fullscreen=(), geolocation=(), gyroscope=(), keyboard-map=(), magnetometer=(),"
        " microphone=(), midi=(), payment=(), picture-in-picture=(), publickey-credentials-get=(),"
        " screen-wake-lock=(), sync-xhr=(self), usb=(), web-share=(), xr-spatial-tracking=()"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "X-Frame-Options": "DENY",
    "X-Permitted-Cross-Domain-Policies": "none",
}
# An answer that has a version may be kept, and asked about; any other is for this client alone.
CACHE = ("Cache-Control", "no-store")
CACHE_VERSIONED = ("Cache-Control", "private, no-cache")
# Browsers ignore it on plain HTTP.
HTTPS_ONLY = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")

# They are asked all the time, and by address: only their failures are logged, and any host will do.
PROBES = {"/livez", "/readyz"}

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_NAMES = {name.lower() for name in SECURITY_HEADERS}
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Edge:
    """Give a request its id, note how it went, and add what every answer carries."""

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        *,
        proxies: str,
        access_line: logs.AccessLine | None,
        metrics: Metrics | None = None,
        host: str | None = None,
    ) -> None:
        self.wsgi_app = wsgi_app
        self.access_line = access_line
        self.metrics = metrics
        self.host = host
        self.is_proxy = functools.lru_cache(1024)(_matcher(proxies))
        self.security = list(SECURITY_HEADERS.items())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun = time.perf_counter()
        # uWSGI empties the environment before a stream that nobody closes ends.
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        remote, agent = environ.get("REMOTE_ADDR") or "", environ.get("HTTP_USER_AGENT") or ""
        given = environ.get("HTTP_X_REQUEST_ID")
        if given and _ID.fullmatch(given) and self.is_proxy(remote):
            known = given
        else:
            known = environ["HTTP_X_REQUEST_ID"] = os.urandom(16).hex()
        request_id.set(known)
        if self.host and path in PROBES:
            environ["HTTP_HOST"] = self.host
        status, route = "500", ""

        def start(line: str, headers: list[tuple[str, str]], exc_info: t.Any = None) -> t.Any:
            nonlocal status, route
            status = line[:3]
            # Flask takes its request out of here again when it ends.
            if (request := environ.get("werkzeug.request")) and request.url_rule:
                route = request.url_rule.rule
            own = [name.lower() for name, _ in headers]
            if _NAMES.isdisjoint(own):
                headers += self.security
            else:
                headers += [pair for pair in self.security if pair[0].lower() not in own]
            if "cache-control" not in own:
                headers.append(CACHE_VERSIONED if "etag" in own else CACHE)
            if environ["wsgi.url_scheme"] == "https":
                headers.append(HTTPS_ONLY)
            headers.append(("X-Request-ID", known))
            return start_response(line, headers, exc_info) if exc_info else start_response(line, headers)

        def end() -> None:
            seconds = time.perf_counter() - begun
            if self.metrics:
                # A client may send any method, and any path: both would grow without end.
                known_method = method if method in _METHODS else "other"
                self.metrics.end_request(known_method, route or "none", status, seconds)
            if self.access_line and not (route in PROBES and status == "200"):
                self.access_line(method, path, route, status, seconds, remote, agent)

        at_close(environ, end)
        if self.metrics:
            self.metrics.begin_request()
        return self.wsgi_app(environ, start)


def _matcher(proxies: str) -> Callable[[str], bool]:
    """Return what tells whether an address is one of those proxies; a unix socket's peer always is."""
    if "*" in proxies:
        return lambda address: True
    networks = [ipaddress.ip_network(proxy.strip()) for proxy in proxies.split(",")]

    def matches(address: str) -> bool:
        try:
            return not address or any(ipaddress.ip_address(address) in network for network in networks)
        except ValueError:
            return False

    return matches
