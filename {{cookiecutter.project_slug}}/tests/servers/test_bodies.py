"""A body counts only when all of it arrived.

gunicorn and gevent hand a body on that the client broke off as if it were whole (gunicorn#3234),
and uWSGI hands a chunked one on as if it were empty.
"""

from __future__ import annotations

import json
import socket
import struct

import pytest

from .harness import Server

# A body that the server puts into a file first needs room there, and may take all there is.
SETTINGS = {"TMPDIR": "/nowhere"}

LONGEST = 1024 * 1024  # bytes
WHOLE = json.dumps({"text": "one"}).encode()
# Valid JSON that ends where the client stops: only counting shows that something is missing.
CUT = (
    b"POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 5000\r\n\r\n" + WHOLE
)
CUT_CHUNKS = (
    b"POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(WHOLE), WHOLE)
)


@pytest.mark.parametrize("request_", [CUT, CUT_CHUNKS], ids=["length", "chunks"])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_a_body_cut_short_is_refused_and_nothing_is_stored(
    server: Server, request_: bytes, reset: bool
) -> None:
    before = texts(server)

    for _ in range(5):
        with server.connection() as connection:
            connection.sendall(request_)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(12)
                assert not answer or answer.split()[1].startswith(b"4"), server.log

    # What is written now is behind whatever the broken requests wrote.
    assert server.post("/notes", {"text": "whole"}).status == 201
    assert texts(server) == ["whole", *before]
    assert "Traceback" not in server.log


def test_a_chunked_body_is_read_whole(server: Server) -> None:
    text = "x" * 9000
    body = json.dumps({"text": text}).encode()
    parts = (body[i : i + 700] for i in range(0, len(body), 700))

    answer = server.send("POST", "/notes", parts, {"Content-Type": "application/json"})

    assert answer.status == 201, (answer.body, server.log)
    assert answer.json["text"] == text


def test_a_body_as_long_as_allowed_is_read_where_no_file_can_be_made(server: Server) -> None:
    body = b'{"text": "long"}'.ljust(LONGEST)

    answer = server.send("POST", "/notes", body, {"Content-Type": "application/json"})

    assert (answer.status, answer.json["text"]) == (201, "long"), server.log


def test_a_body_that_is_far_too_long_is_refused_before_it_is_sent(server: Server) -> None:
    head = b"POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

    with server.connection() as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % (LONGEST * 1024))
        assert connection.recv(12).split()[1] == b"413", server.log


def test_a_body_longer_than_allowed_is_refused_with_413(server: Server) -> None:
    before = texts(server)
    headers = {"Content-Type": "application/json"}
    # More than sockets hold: where the rest of it is not read, a reset takes the place of the answer.
    long = b'{"text": "' + b"x" * (4 * LONGEST) + b'"}'
    # A note that would be valid if only what is allowed were read.
    padded = b'{"text": "x"}'.ljust(LONGEST)

    assert server.send("POST", "/notes", long, headers).status == 413
    assert server.send("POST", "/notes", iter([long]), headers).status == 413
    assert server.send("POST", "/notes", iter([padded, b"more"]), headers).status == 413
    assert texts(server) == before


def texts(server: Server) -> list[str]:
    """Return the newest notes."""
    return [note["text"] for note in server.get("/notes?limit=100").json["items"]]
