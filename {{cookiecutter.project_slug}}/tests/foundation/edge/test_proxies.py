"""Trusted proxies, in every notation of addresses and schemes."""

from __future__ import annotations

from typing import Any

import pytest

from {{cookiecutter.package_name}}.foundation.edge.proxies import TrustedProxies

PROXY, CLIENT = "10.0.0.7", "203.0.113.9"


def applied(peer: str, trusted: str = "10.0.0.0/8,127.0.0.1,::1", **headers: str) -> tuple[bool, str, str]:
    """Return whether the peer is trusted, and the client's address and scheme."""
    environ: dict[str, Any] = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", **headers}
    found = TrustedProxies(trusted).apply(environ)
    return found, environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]


@pytest.mark.parametrize(
    "peer", [PROXY, f"::ffff:{PROXY}", "::FFFF:0a00:0007", "127.0.0.1", "::ffff:127.0.0.1", ""]
)
def test_a_proxy_is_trusted_in_every_spelling(peer: str) -> None:
    """A trusted peer is also recognised in the IPv6 form that a dual-stack socket returns."""
    assert applied(peer, HTTP_X_FORWARDED_FOR=CLIENT)[:2] == (True, CLIENT)


@pytest.mark.parametrize("peer", [CLIENT, f"::ffff:{CLIENT}", "2001:db8::1", "x", "127.0.0.1.example.com"])
def test_another_peer_is_not_trusted(peer: str) -> None:
    """The headers of other peers are ignored."""
    headers = {"HTTP_X_FORWARDED_FOR": "1.2.3.4", "HTTP_X_FORWARDED_PROTO": "https"}

    assert applied(peer, **headers) == (False, peer, "http")


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (f"{CLIENT}:51234", CLIENT),
        (f" {CLIENT}:51234 , {PROXY}:80", CLIENT),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        (f"1.2.3.4, {CLIENT}, ::ffff:{PROXY}", CLIENT),
        (f"{CLIENT}:port", PROXY),
        ("unknown", PROXY),
        ("", PROXY),
    ],
)
def test_the_client_is_found_in_every_spelling(forwarded: str, client: str) -> None:
    """A client's address may have a port, brackets, or the IPv6 form."""
    assert applied(PROXY, HTTP_X_FORWARDED_FOR=forwarded)[1] == client


@pytest.mark.parametrize(
    ("forwarded", "scheme"),
    [
        ("https", "https"),
        ("https, https", "https"),
        ("https,http", "http"),
        ("http, HTTPS ", "https"),
        ("ftp", "http"),
        ("", "http"),
    ],
)
def test_the_scheme_is_that_of_the_nearest_proxy(forwarded: str, scheme: str) -> None:
    """Of several schemes the last one counts, because a client may have sent the first."""
    assert applied(PROXY, HTTP_X_FORWARDED_PROTO=forwarded)[2] == scheme


@pytest.mark.parametrize("header", ["HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_SSL"])
def test_uwsgi_takes_no_scheme_from_another_peer(header: str) -> None:
    """uWSGI accepts https from any peer; the layer corrects that."""
    environ: dict[str, Any] = {
        "uwsgi.version": b"2",
        "REMOTE_ADDR": CLIENT,
        "wsgi.url_scheme": "https",
        header: "on",
    }

    assert TrustedProxies("127.0.0.1").apply(environ) is False
    assert environ["wsgi.url_scheme"] == "http"
