"""A client that disconnects causes no crash and no traceback, and leaks no connection and no context.

It may disconnect before its response or in the middle of a stream, with a FIN or an RST. Flask's own server
used to crash with "Broken pipe"; a stream that is never closed still leaves its context on the worker's
thread, where every later request finds it (pallets/flask#6123).
"""

from __future__ import annotations

import json
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..servers import Server, scaled, wait_until

PROVOCATION = "streams"
# The service is one process, so that /state covers all of it.
CLEAN = {"context": False, "connections": 0, "sessions": 0}

SAMPLE = json.dumps({"text": "sent and gone"}).encode()
POST = (
    b"POST /samples HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(SAMPLE), SAMPLE)
)


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_a_client_that_leaves_before_its_response_does_no_harm(server: Server, reset: bool) -> None:
    """A client that disconnects before its response fails no other request, and leaks nothing."""
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(server.get, "/samples?limit=1") for _ in range(scaled(20))]
        for _ in range(scaled(20)):
            with server.connection() as connection:
                connection.sendall(POST)
                leave(connection, reset)
            # All of them together would wait too long for a connection: a 503, and a line in the log.
            assert server.get("/samples?limit=1").status == 200, server.log

    assert {other.result().status for other in others} == {200}, server.log
    assert_nothing_is_left(server)


@pytest.mark.parametrize("path", ["/stream", "/careless"])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_a_client_that_leaves_a_stream_does_no_harm(server: Server, path: str, reset: bool) -> None:
    """A client that disconnects from a stream leaks no context and no connection, and causes no traceback."""
    for _ in range(scaled(5)):
        with server.connection() as connection:
            connection.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
            assert connection.recv(65536)
            leave(connection, reset)

    assert_nothing_is_left(server)


def leave(connection: socket.socket, reset: bool) -> None:
    """Disconnect without reading further, optionally with a reset."""
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def assert_nothing_is_left(server: Server) -> None:
    """Check that all connections are returned, no thread has a context, and the log has no traceback."""
    wait_until(lambda: server.get("/state").json == CLEAN, f"clean, not {server.get('/state').json}")
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: server.get("/state").json, range(16)))
    assert not any(state["context"] for state in states)
    assert "Traceback" not in server.log, server.log
