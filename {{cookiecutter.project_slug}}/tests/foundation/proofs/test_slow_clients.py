"""Clients that send nothing or part of a request, or never close their end, delay no other client.

In gunicorn's own thread worker a thread waits for the rest of each request, and the accepting thread for each
client to close its end. One such client more than threads stops the service, including liveness.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from ..servers import GTHREAD, KINDS, PACKAGE, Kind, Project, Server, scaled, wait_until
from .conftest import Start

PATIENT = [kind for kind in GTHREAD if kind.name == "gunicorn-gthread_patient"]
# uWSGI, sync workers and gunicorn's own threads need a proxy. Flask's server starts a thread for each.
ABLE = [*PATIENT, *(kind for kind in KINDS if kind.needs == "gevent" or "gevent" in kind.name)]
patient = pytest.mark.parametrize("kind", PATIENT, ids=str)

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /samples HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"text": "sent in parts"}'
HALF_A_BODY = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:9]
STOPPING = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SLOW = {
    "nothing": b"",
    "half-a-head": GET[:30],
    "half-a-body": HALF_A_BODY,
    "never-closed": STOPPING,
    "kept": GET,
    "half-of-the-next": GET + GET[:30],
    "far-too-long": POST + b"Content-Length: 99999999\r\n\r\n",
}
ANSWERED = (STOPPING, GET)  # how those begin that get a response
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
EXPECTING = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)


class Client:
    """A client that sends parts of requests and reads responses."""

    def __init__(self, connection: socket.socket, responses: IO[bytes]) -> None:
        self.connection, self.responses = connection, responses

    def send(self, data: bytes) -> None:
        """Send all or part of a request."""
        self.connection.sendall(data)

    def status(self) -> int | None:
        """Read a response and return its status, or None at the end of the connection."""
        line, length = self.responses.readline(), 0
        while (header := self.responses.readline().lower()).strip():
            if header.startswith(b"content-length:"):
                length = int(header.partition(b":")[2])
        self.responses.read(length)
        return int(line.split()[1]) if line else None


class Clients(ExitStack):
    """Clients of a server, which keep their connections until the end of a `with` block."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server

    def connect(self, data: bytes = b"") -> Client:
        """Open a connection, and send the first bytes on it."""
        connection = self.enter_context(self.server.connection())
        client = Client(connection, self.enter_context(connection.makefile("rb")))
        client.send(data)
        return client


@pytest.fixture
def impatient(project: Project) -> Project:
    """A project whose worker waits only a second for a client."""
    set_patience(project, 1)
    return project


def set_patience(project: Project, seconds: int) -> None:
    """Set how long the worker waits for a client."""
    file = f"{PACKAGE}/foundation/serving/gthread_patient.py"
    project.replace(file, "PATIENCE = 10\n", f"PATIENCE = {seconds}\n")


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("kind", ABLE, ids=str)
def test_slow_clients_delay_no_other(kind: Kind, sent: bytes, start: Start) -> None:
    """While many clients never finish, others are answered."""
    server = start(kind, WEB_THREADS="2")

    with Clients(server) as clients:
        slow = [clients.connect(sent) for _ in range(40 + scaled(10))]
        if sent.startswith(ANSWERED):
            assert {client.status() for client in slow} == {200}

        assert [server.get("/livez").status for _ in range(5)] == [200] * 5
        assert server.post("/samples", {"text": "a fast client"}).status == 201

    assert "Traceback" not in server.log


@patient
def test_a_request_that_comes_in_parts_is_answered(kind: Kind, start: Start) -> None:
    """Requests in parts, several at once and with any kind of body are answered on one connection."""
    server = start(kind)

    with Clients(server) as clients:
        client = clients.connect()
        for number in range(len(GET)):
            client.send(GET[number : number + 1])
        assert client.status() == 200
        client.send(GET * 3 + GET[:20])
        assert [client.status() for _ in range(3)] == [200] * 3
        client.send(GET[20:] + HALF_A_BODY)
        assert client.status() == 200
        client.send(BODY[9:])
        assert client.status() == 201
        client.send(EXPECTING)
        assert client.status() == 100
        client.send(BODY)
        assert client.status() == 201
        client.send(CHUNKED + b"%x\r\n%b\r\n" % (len(BODY), BODY))
        client.send(b"0\r\n\r\n")
        assert client.status() == 201
        long = BODY.ljust(500_000)
        client.send(POST + b"Content-Length: %d\r\n\r\n" % len(long) + long[:100_000])
        client.send(long[100_000:] + STOPPING)
        assert [client.status() for _ in range(3)] == [201, 200, None]


@patient
@pytest.mark.parametrize("sent", [GET, GET * 2], ids=["one", "pipelined"])
def test_a_client_that_ends_after_its_request_is_answered(kind: Kind, sent: bytes, start: Start) -> None:
    """A client that closes its sending side after its request gets the response, and then the end."""
    server = start(kind)

    with Clients(server) as clients:
        client = clients.connect(sent)
        client.connection.shutdown(socket.SHUT_WR)

        assert [client.status() for _ in range(sent.count(b"GET"))] == [200] * sent.count(b"GET")
        assert client.status() is None


@patient
def test_a_client_that_stops_sending_is_given_up(kind: Kind, start: Start, impatient: Project) -> None:
    """A client that stops sending gets 408, or 400 from a thread that reads its body, and is disconnected."""
    server = start(kind, WEB_THREADS="1", QUEUE_LIMIT="200")

    with Clients(server) as clients:
        for sent, status in [
            (GET[:30], 408),
            (HALF_A_BODY, 408),
            (POST + b"Content-Length: 900000\r\n\r\n" + BODY.ljust(200_000), 400),
            (CHUNKED + b"5\r\n", 400),
            (b"GET /livez HTTP/1.1\r\nX-Long: " + b"x" * 70_000, None),
        ]:
            client = clients.connect(sent)
            assert client.status() == status, server.log
            assert client.status() is None
        client = clients.connect(EXPECTING)
        assert [client.status() for _ in range(3)] == [100, 400, None]

    assert server.get("/livez").status == 200
    assert "Traceback" not in server.log


@patient
def test_a_client_that_drips_a_long_body_is_given_up(kind: Kind, start: Start, impatient: Project) -> None:
    """A client that sends a long body a few bytes at a time does not hold a thread until its end."""
    server = start(kind, WEB_THREADS="1")

    with Clients(server) as clients:
        client = clients.connect(POST + b"Content-Length: 900000\r\n\r\n" + BODY.ljust(100_000))
        # Each byte comes within a second, and the body would take hours.
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(client.status)
            wait_until(lambda: waiting.done() or drip(client), "the client is given up")
            assert waiting.result() == 400, server.log

    assert server.get("/livez").status == 200


def drip(client: Client) -> bool:
    """Send a byte, and return whether the server has closed the connection."""
    try:
        client.send(b" ")
    except OSError:
        return True
    return False


@patient
def test_a_client_that_reads_nothing_is_given_up(kind: Kind, start: Start, impatient: Project) -> None:
    """A client that reads nothing of its response does not hold a thread."""
    impatient.provoke("streams")
    server = start(kind, WEB_THREADS="1")

    with Clients(server) as clients:
        clients.connect(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")

        assert server.get("/livez").status == 200
        assert server.get("/state").json["connections"] == 0

    assert "Traceback" not in server.log


@patient
def test_connections_are_bounded_and_leave_no_descriptor(kind: Kind, start: Start, project: Project) -> None:
    """Above the connection limit the oldest idle connections make room, and all are eventually closed."""
    project.append("gunicorn.conf.py", "\nworker_connections = 12\n")
    set_patience(project, 600)
    server = start(kind, WEB_THREADS="2")
    assert server.post("/samples", {"text": "first"}).status == 201
    before = wait_until(lambda: sockets(server) == 0 and descriptors(server), "no client is left")

    for sent in SLOW.values():
        with Clients(server) as clients:
            for _ in range(40):
                clients.connect(sent)
            assert server.get("/livez").status == 200
            assert sockets(server) <= 12
        wait_until(lambda: descriptors(server) == before, "each connection is closed")
    with Clients(server) as clients:
        for _ in range(20):
            clients.connect(GET[:30])
        young = clients.connect()
        clients.connect(GET[:30])
        assert server.get("/livez").status == 200
        young.send(GET)
        assert young.status() == 200

    assert "Traceback" not in server.log


@patient
def test_a_stop_waits_for_no_slow_client(kind: Kind, start: Start, project: Project) -> None:
    """A stop answers the request in flight, and completes while slow clients keep their connections."""
    project.provoke("slow_view")
    # Both are longer than this test waits.
    project.append("gunicorn.conf.py", "\ngraceful_timeout = 600\n")
    set_patience(project, 600)
    server = start(kind)

    with Clients(server) as clients, ThreadPoolExecutor() as pool:
        for sent in SLOW.values():
            slow = [clients.connect(sent) for _ in range(5)]
            if sent.startswith(ANSWERED):
                assert {client.status() for client in slow} == {200}
        answer = pool.submit(server.get, "/slow")
        wait_until((project.folder / "begun").exists, "a request is in flight")
        server.signal(signal.SIGTERM)
        server.wait_for_log("Handling signal: term")
        (project.folder / "end").touch()

        assert answer.result().body == b"answered"
        assert server.wait() == 0, server.log

    assert "Worker exiting" in server.log, "it was killed"
    assert "Traceback" not in server.log


def links(server: Server) -> Iterator[str]:
    """Return the targets of the worker's descriptors."""
    worker = server.processes()[1]
    for file in Path(f"/proc/{worker}/fd").iterdir():
        try:
            yield os.readlink(file)  # noqa: PTH115  # A socket is no path.
        except FileNotFoundError:
            continue


def descriptors(server: Server) -> int:
    """Return the number of the worker's descriptors."""
    return len([*links(server)])


def sockets(server: Server) -> int:
    """Return the number of client connections that the worker holds."""
    own = f":{server.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{fields[9]}]" for fields in lines if fields[1].endswith(own) and fields[3] != "0A"}
    return len(inodes.intersection(links(server)))
