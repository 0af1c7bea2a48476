"""A proxy's word about its client counts, and nobody else's.

A server that believes whoever asks lets a client choose its own address; one that believes nobody has the
proxy's address in every line of its log, and takes every request for plain HTTP.
"""

from __future__ import annotations

import json

import pytest

from .conftest import Start
from .harness import SCALE, Kind, Server, wait_until

# Which proxies are skipped is asked without a server, too (tests/test_edge.py).
TRUSTED = [("127.0.0.1, 10.0.0.0/8", "203.0.113.5"), ("127.0.0.1", "10.1.1.1"), ("*", "10.1.1.1")]
FORWARDED = {"X-Forwarded-For": "192.0.2.7, 203.0.113.5, 10.1.1.1", "X-Forwarded-Proto": "https"}


def remote(server: Server) -> str:
    """Return the client's address in the log's line of the only request."""
    wait_until(lambda: "GET /notes 200" in server.log, "the request has its line")
    (line,) = (line for line in server.log.splitlines() if "GET /notes 200" in line)
    found: str = json.loads(line)["remote"]
    return found


@pytest.mark.parametrize(("proxies", "client"), TRUSTED if SCALE > 1 else TRUSTED[:1])
def test_who_asks_is_what_the_nearest_trusted_proxies_say(
    kind: Kind, start: Start, proxies: str, client: str
) -> None:
    server = start(kind, FORWARDED_ALLOW_IPS=proxies)

    answer = server.send("GET", "/notes", headers=FORWARDED)

    assert remote(server) == client
    assert "Strict-Transport-Security" in answer.headers


def test_who_is_no_proxy_is_not_believed(kind: Kind, start: Start) -> None:
    server = start(kind, FORWARDED_ALLOW_IPS="10.0.0.0/8")

    answer = server.send("GET", "/notes", headers=FORWARDED)

    assert remote(server) == "127.0.0.1"
    assert "Strict-Transport-Security" not in answer.headers
