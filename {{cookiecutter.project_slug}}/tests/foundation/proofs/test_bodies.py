"""A truncated body is rejected, and a chunked one is read completely.

gunicorn and gevent pass a truncated body to the application as if it were complete (gunicorn#3234), and uWSGI
a chunked one as if it were empty.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..servers import Server

# A server that first writes bodies to files needs disk space, and may exhaust it.
SETTINGS = {"TMPDIR": "/nowhere"}

LONGEST = 1024 * 1024  # bytes
WHOLE = json.dumps({"text": "one"}).encode()
# Valid JSON that ends where the client stops: only its length shows that it is truncated.
CUT = (
    b"POST /samples HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 5000\r\n\r\n" + WHOLE
)
CUT_CHUNKS = (
    b"POST /samples HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(WHOLE), WHOLE)
)


@pytest.mark.parametrize("request_", [CUT, CUT_CHUNKS], ids=["length", "chunks"])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_a_body_cut_short_is_refused_and_nothing_is_stored(
    server: Server, request_: bytes, reset: bool
) -> None:
    """A truncated body is rejected without a traceback, and nothing is stored."""
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

    # This sample is stored after anything that the truncated requests have stored.
    assert server.post("/samples", {"text": "whole"}).status == 201
    assert texts(server) == ["whole", *before]
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("size", "end"),
    [
        (b"%x", b""),
        (b"-%x", b"\r\n"),
        (b"+%xg", b"\r\n"),
        (b"", b"\r\n"),
        (b"0x%x", b"\r\n"),
        (b"%x;\0", b"\r\n"),
    ],
    ids=["no-crlf", "negative", "letters", "no-size", "0x", "extension"],
)
def test_a_malformed_chunk_is_refused_without_a_traceback(server: Server, size: bytes, end: bytes) -> None:
    """A malformed chunk is the client's error, whatever exception the server raises."""
    head, _, _ = CUT_CHUNKS.rpartition(b"\r\n\r\n")
    size = size % len(WHOLE) if b"%" in size else size

    with server.connection() as connection:
        connection.sendall(head + b"\r\n\r\n" + size + b"\r\n" + WHOLE + end + b"0\r\n\r\n")
        status = connection.recv(12).split()[1]

    # uWSGI and Flask's server read 0xe as 14, and gevent ignores extensions (docs/OPERATIONS.md).
    assert status == b"400" or (status == b"201" and size.startswith((b"0x", b"%x;" % len(WHOLE)))), (
        server.log
    )
    assert "Traceback" not in server.log


def test_a_chunked_body_is_read_whole(server: Server) -> None:
    """A chunked body is read completely."""
    text = "x" * 9000
    body = json.dumps({"text": text}).encode()
    parts = (body[i : i + 700] for i in range(0, len(body), 700))

    answer = server.send("POST", "/samples", parts, {"Content-Type": "application/json"})

    assert answer.status == 201, (answer.body, server.log)
    assert answer.json["text"] == text


def test_a_body_as_long_as_allowed_needs_no_file(server: Server) -> None:
    """A body of the maximum length is read even if no temporary file can be created."""
    body = b'{"text": "long"}'.ljust(LONGEST)

    answer = server.send("POST", "/samples", body, {"Content-Type": "application/json"})

    assert (answer.status, answer.json["text"]) == (201, "long"), server.log


def test_a_body_far_too_long_is_refused_before_it_is_sent(server: Server) -> None:
    """A far too long body is rejected with 413 before the client sends it."""
    head = b"POST /samples HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

    with server.connection() as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % (LONGEST * 1024))
        assert connection.recv(12).split()[1] == b"413", server.log


def test_a_body_longer_than_allowed_is_refused_with_413(server: Server) -> None:
    """A too long body is rejected with 413, chunked or not, and nothing is stored."""
    before = texts(server)
    headers = {"Content-Type": "application/json"}
    # More than socket buffers hold: if the rest is not read, the client gets a reset instead of the response.
    long = b'{"text": "' + b"x" * (4 * LONGEST) + b'"}'
    # A sample that would be valid if truncated to the allowed length.
    padded = b'{"text": "x"}'.ljust(LONGEST)

    assert server.send("POST", "/samples", long, headers).status == 413
    assert server.send("POST", "/samples", iter([long]), headers).status == 413
    assert server.send("POST", "/samples", iter([padded, b"more"]), headers).status == 413
    assert texts(server) == before


def texts(server: Server) -> list[str]:
    """Return the texts of the newest samples."""
    return [sample["text"] for sample in server.get("/samples?limit=100").json["items"]]


VALID = WHOLE.ljust(LONGEST)
HOSTILE = {
    "unknown keys": json.dumps({f"k{number}": 1 for number in range(80_000)}).encode(),
    "members of another type": b'{"text": [%b]}' % b",".join([b"1"] * 400_000),
    "objects": b"[%b]" % b",".join([b"{}"] * 300_000),
    "as many as allowed": json.dumps({f"k{number}": 1 for number in range(4900)}).encode().ljust(LONGEST),
    "a text of commas": json.dumps({"text": "," * 900_000}).encode(),
}
MORE = 20  # megabytes that a process may use for hostile bodies, in addition to those for valid ones


def test_a_hostile_body_takes_no_more_memory(server: Server) -> None:
    """Bodies with many errors use little more memory than valid ones of the same length."""
    send_many(server, VALID, 2)
    before = peaks(server)

    for body in HOSTILE.values():
        send_many(server, body, 4)

    after = peaks(server)
    grown = {process: after[process] - before[process] for process in before.keys() & after.keys()}
    assert grown
    assert max(grown.values()) <= MORE, grown


def send_many(server: Server, body: bytes, kind: int) -> None:
    """Send a body from many clients at the same time, and check the first digit of each status."""
    headers = {"Content-Type": "application/json"}
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: server.send("POST", "/samples", body, headers).status, range(60)))
    assert {answer // 100 for answer in answers} == {kind}, answers


def peaks(server: Server) -> dict[int, int]:
    """Return the peak memory of each process, in megabytes."""
    found = {}
    for process in server.processes():
        status = Path("/proc", str(process), "status").read_text()
        found[process] = int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) // 1024
    return found
