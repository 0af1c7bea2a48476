"""Response headers: default security headers, and the removal of headers that cannot be sent."""

import functools
import re

from werkzeug.datastructures import Headers
from werkzeug.urls import iri_to_uri

# Source: OWASP Secure Headers Project. Clear-Site-Data is for logout responses.
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
# A response with an ETag may be stored and revalidated; any other is for this client only.
CACHE = ("Cache-Control", "no-store")
CACHE_VERSIONED = ("Cache-Control", "private, no-cache")
# RFC 9110, 5.1 and 5.5. Servers encode text as Latin-1.
_NAME, _VALUE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_URLS = {"location", "content-location"}  # Werkzeug converts them to ASCII when it sends them.
# Browsers ignore it on plain HTTP.
HTTPS_ONLY = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")


@functools.lru_cache(256)
def missing_headers(scheme: str, *names: str) -> list[tuple[str, str]]:
    """Return the default headers missing from these names. Cached, because few different sets occur."""
    present = {name.lower() for name in names}
    missing = [pair for pair in SECURITY_HEADERS.items() if pair[0].lower() not in present]
    if "cache-control" not in present:
        missing.append(CACHE_VERSIONED if "etag" in present else CACHE)
    if scheme == "https":
        missing.append(HTTPS_ONLY)
    return missing


def refuse_unsendable(headers: Headers) -> None:
    """Remove headers that no server can send. Raises `ValueError` with the first one's name.

    Past Flask, each server handles them differently: an HTML page, a response without headers, or none at
    all.
    """
    unsendable = {name: value for name, value in headers if not _is_sendable(name, value)}
    for name in unsendable:
        del headers[name]
    for name, value in unsendable.items():
        raise ValueError(f"the response has a header that can't be sent: {name}: {value[:200]!r}")


def _is_sendable(name: str, value: str) -> bool:
    if name.lower() in _URLS:
        try:
            value = iri_to_uri(value)
        except ValueError:  # UnicodeError is one.
            return False
    return bool(_NAME.fullmatch(name) and _VALUE.fullmatch(value))
