"""Cross-origin requests: the origins whose pages may read responses (CORS_ORIGINS)."""

import re
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

METHODS = "DELETE, GET, HEAD, PATCH, POST, PUT"
# In addition to those that are always exposed.
READABLE = "ETag, Idempotency-Replayed, Link, Location, Retry-After, WWW-Authenticate, X-Request-ID"
CACHED = "600"  # seconds for which a browser caches a preflight response
_NAMES = re.compile(r"[A-Za-z0-9-]+(?:, ?[A-Za-z0-9-]+)*", re.ASCII)


class CrossOrigin:
    """Let pages of some origins read every response, including errors, and answer their preflights.

    Flask-CORS works only inside Flask: a request rejected before Flask would lack the headers. A preflight
    is answered before authentication, because a browser sends it without credentials.
    """

    def __init__(self, wsgi_app: WSGIApplication, origins: tuple[str, ...], *, credentials: bool) -> None:
        self.wsgi_app, self.origins, self.credentials = wsgi_app, frozenset(origins), credentials

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        added = self._headers(environ.get("HTTP_ORIGIN"))
        is_preflight = (
            environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
        )
        if is_preflight and len(added) > 1:
            start_response("204 No Content", [*added, *_preflight_headers(environ)])
            return []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            headers = [*headers, *added]
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        return self.wsgi_app(environ, start)

    def _headers(self, origin: str | None) -> list[tuple[str, str]]:
        """Return the headers of every response; the origin is included only if it is listed."""
        headers = [("Vary", "Origin")]
        if origin and ("*" in self.origins or origin in self.origins):
            allowed = "*" if "*" in self.origins else origin
            headers += [("Access-Control-Allow-Origin", allowed), ("Access-Control-Expose-Headers", READABLE)]
            if self.credentials:
                headers.append(("Access-Control-Allow-Credentials", "true"))
        return headers


def _preflight_headers(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    headers = [("Access-Control-Allow-Methods", METHODS), ("Access-Control-Max-Age", CACHED)]
    names = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    if _NAMES.fullmatch(names):
        headers.append(("Access-Control-Allow-Headers", names))
    return headers
