"""Forwarded headers are trusted from configured proxies and from no other peer.

A server that trusts every peer lets clients forge their address; one that trusts none logs the proxy's
address for every request, and treats every request as plain HTTP.
"""

from __future__ import annotations

import json

import pytest

from ..servers import Kind, Server, wait_until
from .conftest import Start

# The tests in foundation/edge check without a server which proxies are skipped.
TRUSTED = [
    ("127.0.0.1, 10.0.0.0/8", "203.0.113.5"),
    pytest.param("127.0.0.1", "10.1.1.1", marks=pytest.mark.thorough),
    pytest.param("*", "10.1.1.1", marks=pytest.mark.thorough),
]
JSON = {"Content-Type": "application/json"}
NEW = b'{"text": "new"}'
FORWARDED = {"X-Forwarded-For": "192.0.2.7, 203.0.113.5, 10.1.1.1", "X-Forwarded-Proto": "https"}


def remote(server: Server) -> str:
    """Return the client's address from the access line of the only request."""
    wait_until(lambda: "GET /samples 200" in server.log, "the request has its line")
    (line,) = (line for line in server.log.splitlines() if "GET /samples 200" in line)
    found: str = json.loads(line)["remote"]
    return found


@pytest.mark.parametrize(("proxies", "client"), TRUSTED)
def test_trusted_proxies_name_the_client_and_its_scheme(
    kind: Kind, start: Start, proxies: str, client: str
) -> None:
    """The nearest trusted proxies set the client's address and scheme."""
    server = start(kind, FORWARDED_ALLOW_IPS=proxies)

    answer = server.send("GET", "/samples", headers=FORWARDED)

    assert remote(server) == client
    assert "Strict-Transport-Security" in answer.headers


def test_forwarded_headers_of_an_untrusted_peer_are_ignored(kind: Kind, start: Start) -> None:
    """The forwarded headers of a peer that is not a trusted proxy are ignored."""
    server = start(kind, FORWARDED_ALLOW_IPS="10.0.0.0/8")

    answer = server.send("GET", "/samples", headers=FORWARDED)

    assert remote(server) == "127.0.0.1"
    assert "Strict-Transport-Security" not in answer.headers


@pytest.mark.parametrize(
    ("setting", "path", "headers"),
    [
        ("/api/v1", "/api/v1/samples", {}),
        pytest.param("/api/v1", "/samples", {}, marks=pytest.mark.thorough),
        ("", "/samples", {"X-Forwarded-Prefix": "/api/v1"}),
        pytest.param("/other", "/samples", {"X-Forwarded-Prefix": "/api/v1"}, marks=pytest.mark.thorough),
    ],
)
def test_links_have_the_prefix_of_the_service(
    kind: Kind, start: Start, setting: str, path: str, headers: dict[str, str]
) -> None:
    """Links have the prefix, whether or not the proxy strips it from the path; probes work without it."""
    server = start(kind, URL_PREFIX=setting)

    made = server.send("POST", path, NEW, JSON | headers)

    assert made.status == 201
    assert made.headers["Location"].startswith("/api/v1/samples/")
    assert server.get("/livez").status == 200
    assert server.get("/readyz").status == 200


def test_no_prefix_of_an_untrusted_peer_is_taken(kind: Kind, start: Start) -> None:
    """A client cannot inject a prefix into links."""
    server = start(kind, FORWARDED_ALLOW_IPS="10.0.0.0/8")

    made = server.send("POST", "/samples", NEW, JSON | {"X-Forwarded-Prefix": "/evil"})

    assert made.headers["Location"].startswith("/samples/")
