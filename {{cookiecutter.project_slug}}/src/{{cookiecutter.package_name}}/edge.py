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
        # Nobody knows then how many proxies there are: the nearest one's word is taken.
        self.trusts_all = "*" in proxies

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun = time.perf_counter()
        # uWSGI empties the environment before a stream that nobody closes ends.
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        agent = environ.get("HTTP_USER_AGENT") or ""
        trusted = self.is_proxy(environ.get("REMOTE_ADDR") or "")
        if trusted and ("HTTP_X_FORWARDED_FOR" in environ or "HTTP_X_FORWARDED_PROTO" in environ):
            self._believe(environ)
        elif "HTTP_X_FORWARDED_PROTO" in environ and "uwsgi.version" in environ:
            environ["wsgi.url_scheme"] = "http"  # uWSGI believes whoever says so.
        remote = environ.get("REMOTE_ADDR") or ""
        given = environ.get("HTTP_X_REQUEST_ID")
        if given and trusted and _ID.fullmatch(given):
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
            headers += _missing(environ["wsgi.url_scheme"], *[name for name, _ in headers])
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

    def _believe(self, environ: WSGIEnvironment) -> None:
        """Take from a trusted proxy's headers who the client is, and whether it came by HTTPS.

        Each proxy adds the address that it has seen, so the last one that is no proxy is the client's:
        what stands before it the client may have written. X-Forwarded-Host is not believed, a proxy hands
        on the Host. Source: Werkzeug, "Tell Flask it is Behind a Proxy".
        """
        for address in reversed(environ.get("HTTP_X_FORWARDED_FOR", "").split(",")):
            if not _is_address(address.strip()):
                break
            environ["REMOTE_ADDR"] = address.strip()
            if self.trusts_all or not self.is_proxy(address.strip()):
                break
        if (scheme := environ.get("HTTP_X_FORWARDED_PROTO")) in {"http", "https"}:
            environ["wsgi.url_scheme"] = scheme


@functools.lru_cache(256)
def _missing(scheme: str, *names: str) -> list[tuple[str, str]]:
    """Return the headers that an answer with these names lacks: answers have the same few sets of names."""
    own = {name.lower() for name in names}
    missing = [pair for pair in SECURITY_HEADERS.items() if pair[0].lower() not in own]
    if "cache-control" not in own:
        missing.append(CACHE_VERSIONED if "etag" in own else CACHE)
    if scheme == "https":
        missing.append(HTTPS_ONLY)
    return missing


def _matcher(proxies: str) -> Callable[[str], bool]:
    """Return what tells whether an address is one of those proxies; a unix socket's peer always is."""
    if "*" in proxies:
        return lambda address: True
    networks = [ipaddress.ip_network(proxy.strip()) for proxy in proxies.split(",")]

    def matches(address: str) -> bool:
        return not address or (
            _is_address(address) and any(ipaddress.ip_address(address) in network for network in networks)
        )

    return matches


@functools.lru_cache(1024)
def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
