"""The security headers of every response, unless the view has set them."""

import functools

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
# A response with a version may be stored and revalidated; any other is for this client alone.
CACHE = ("Cache-Control", "no-store")
CACHE_VERSIONED = ("Cache-Control", "private, no-cache")
# Browsers ignore it on plain HTTP.
HTTPS_ONLY = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")


@functools.lru_cache(256)
def missing_headers(scheme: str, *names: str) -> list[tuple[str, str]]:
    """Return the headers that a response with these names lacks. Few different sets of names occur."""
    present = {name.lower() for name in names}
    missing = [pair for pair in SECURITY_HEADERS.items() if pair[0].lower() not in present]
    if "cache-control" not in present:
        missing.append(CACHE_VERSIONED if "etag" in present else CACHE)
    if scheme == "https":
        missing.append(HTTPS_ONLY)
    return missing
