"""Trusted proxies: the peers whose headers set a request's client address and scheme."""

import functools
import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from wsgiref.types import WSGIEnvironment

PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+", re.ASCII)
UWSGI_SCHEME = {"HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_SSL"}
_WITH_PORT = re.compile(r"\[([0-9a-fA-F:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)


class TrustedProxies:
    """The peers whose X-Forwarded headers are applied: a list such as `10.0.0.0/8,::1`, or `*`."""

    def __init__(self, networks: str) -> None:
        # With `*` the number of proxies is unknown, so only the nearest one counts.
        self.trusts_all = "*" in networks
        self.networks = [] if self.trusts_all else [ip_network(text.strip()) for text in networks.split(",")]
        self.includes = functools.lru_cache(1024)(self._includes)

    def apply(self, environ: WSGIEnvironment) -> bool:
        """Apply the forwarded headers of a trusted peer, and return whether the peer is trusted."""
        trusted = self.includes(environ.get("REMOTE_ADDR") or "")
        if trusted and ("HTTP_X_FORWARDED_FOR" in environ or "HTTP_X_FORWARDED_PROTO" in environ):
            self._apply_forwarded_headers(environ)
        elif not trusted and "uwsgi.version" in environ and not UWSGI_SCHEME.isdisjoint(environ):
            environ["wsgi.url_scheme"] = "http"  # uWSGI applies these headers from any peer.
        return trusted

    def _apply_forwarded_headers(self, environ: WSGIEnvironment) -> None:
        """Set the scheme and the client's address: the last one that is not a proxy's.

        Each proxy appends the address of its peer; a client may have forged the earlier ones. Proxies
        preserve the Host, so X-Forwarded-Host is ignored. Source: Werkzeug, deployment/proxy_fix.
        """
        for text in reversed(environ.get("HTTP_X_FORWARDED_FOR", "").split(",")):
            if not (address := _address(text)):
                break
            environ["REMOTE_ADDR"] = str(address)
            if self.trusts_all or not self.includes(str(address)):
                break
        # Several proxies append theirs too, and a client may have forged the first ones.
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        if scheme in {"http", "https"}:
            environ["wsgi.url_scheme"] = scheme

    def _includes(self, peer: str) -> bool:
        """Return whether a peer is a trusted proxy. A peer without an address, at a unix socket, is."""
        if self.trusts_all or not peer:
            return True
        address = _address(peer)
        return address is not None and any(address in network for network in self.networks)


def apply_prefix(environ: WSGIEnvironment, prefix: str) -> None:
    """Move the prefix from the path to SCRIPT_NAME, from which all links are built.

    A path without the prefix is served too: a proxy may strip it, and probes do not use it.
    """
    environ["SCRIPT_NAME"] = prefix
    path = environ.get("PATH_INFO", "")
    if f"{path}/".startswith(f"{prefix}/"):
        environ["PATH_INFO"] = path[len(prefix) :] or "/"


@functools.lru_cache(1024)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in a text that may have a port, brackets, or an IPv4-mapped IPv6 address."""
    text = text.strip()
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
