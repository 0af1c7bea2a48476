"""A request that has waited too long is refused unprocessed, and probes and later requests are answered.

Without a limit the queue of an overloaded service grows until each request waits longer than its client: the
service works at full capacity, but for clients that have left. Probes wait in the same queue, so that
Kubernetes ends pods that are only busy.
"""

from __future__ import annotations

import fcntl
import re
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from ..fixtures import SECRET
from ..servers import (
    FLASK,
    GUNICORN,
    KINDS,
    PATIENCE,
    WITH_WORKERS,
    Answer,
    Kind,
    Project,
    Server,
    activated,
    free_port,
    wait_until,
)
from .conftest import Start

LIMIT = 0.2  # seconds
SETTINGS = {
    "CORS_ORIGINS": "https://app.example",
    "QUEUE_LIMIT": str(round(LIMIT * 1000)),
    "URL_PREFIX": "/api",
    "WEB_THREADS": "1",
}
HEADERS = {"Content-Type": "application/json", "Origin": "https://app.example", "X-Request-ID": "given"}
BODY = b'{"text": "late"}'

# Flask's server has a thread for each request: none waits.
each_kind = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not FLASK], ids=str)


class Waiting:
    """A request that has been sent, but whose response has not been read."""

    def __init__(self, server: Server, method: str, path: str, body: bytes | None = None) -> None:
        self.connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        self.connection.request(method, path, body, HEADERS)

    def answer(self) -> Answer:
        """Wait for the response."""
        with closing(self.connection):
            response = self.connection.getresponse()
            return Answer(response.status, response.headers, response.read())


@contextmanager
def blocked(server: Server) -> Iterator[None]:
    """Block the only thread of a server until requests sent in the block have waited too long."""
    with (server.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = wait_until(lambda: begin(server), "the thread is blocked")
        yield
        sent = time.monotonic()
        wait_until(lambda: time.monotonic() - sent > 2 * LIMIT, "the limit is over")
    assert first.answer().status == 200, server.log


def begin(server: Server) -> Waiting | None:
    """Send the request that blocks the thread; return None if it is refused, as on a busy machine."""
    first = Waiting(server, "GET", "/blocked")
    is_blocked = (server.folder / "blocking").exists
    wait_until(lambda: is_blocked() or select.select([first.connection.sock], [], [], 0)[0], "it begins")
    if is_blocked():
        return first
    first.answer()  # Closes the connection: an open one would be a warning in another test.
    return None


def stored(server: Server) -> list[str] | None:
    """Return the texts of all samples, or None if the request is refused."""
    answer = server.get("/samples?limit=100")
    return [sample["text"] for sample in answer.json["items"]] if answer.status == 200 else None


@each_kind
def test_what_has_waited_too_long_is_refused(kind: Kind, start: Start, project: Project) -> None:
    """A request that has waited too long is refused and stores nothing; probes and new ones are answered."""
    project.provoke("blocked")
    server = start(kind, **SETTINGS)

    with blocked(server):
        late = [Waiting(server, "POST", "/samples", BODY) for _ in range(5)]
        head = Waiting(server, "HEAD", "/samples")
        probes = [Waiting(server, "GET", path) for path in ("/livez", "/readyz", "/api/livez", "/api/readyz")]

    for answer in (waiting.answer() for waiting in late):
        assert answer.status == 503, server.log
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json["request_id"] == answer.headers["X-Request-ID"] == "given"
        assert len(answer.headers.get_all("Date") or []) == 1
    refused = head.answer()
    assert (refused.status, refused.body) == (503, b"")
    assert [probe.answer().status for probe in probes] == [200, 200, 200, 200]
    wait_until(lambda: server.post("/samples", {"text": "new"}).status == 201, "a new request is answered")
    wait_until(lambda: stored(server) == ["new"], "only the new one is stored")
    server.wait_for_log("overload: 1 requests refused")
    assert server.log.count("overload: ") < 5  # Not a line for each.
    assert "Traceback" not in server.log


@each_kind
def test_a_refused_client_that_still_sends_gets_its_answer(
    kind: Kind, start: Start, project: Project
) -> None:
    """A client whose request is refused while it sends a long body gets the 503, not a reset."""
    project.provoke("blocked")
    server = start(kind, **SETTINGS)

    with ThreadPoolExecutor() as pool:
        with blocked(server):
            body = b'{"text": "' + b"x" * 6_000_000 + b'"}'
            sending = pool.submit(Waiting, server, "POST", "/samples", body)
        answer = sending.result().answer()

    assert answer.status == 503, server.log
    wait_until(lambda: stored(server) == [], "nothing is stored")


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_request_from_before_the_start_is_answered(kind: Kind, project: Project, tmp_path: Path) -> None:
    """A request that waited during a startup or restart is answered, whatever the limit."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/none.db", "SECRET_KEY": SECRET, "QUEUE_LIMIT": "1"}
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=PATIENCE) as connection,
        connection.makefile("rb") as response,
    ):
        connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

        with Server(project, activated(kind, listener), settings, listener) as server:
            assert response.readline().startswith(b"HTTP/1.1 404 "), server.log


@pytest.mark.parametrize("kind", GUNICORN, ids=str)
def test_behind_a_unix_socket_the_proxy_sets_the_time(
    kind: Kind, project: Project, database_url: str, tmp_path: Path
) -> None:
    """At a unix socket X-Request-Start gives the waiting time; an invalid one refuses nothing."""
    settings = {"DATABASE_URL": database_url, "SECRET_KEY": SECRET, "QUEUE_LIMIT": "500"}
    path = str(tmp_path / "web.sock")

    def status(waited: float, form: str = "t=%.3f") -> int:
        start = f"X-Request-Start: {form % (time.time() - waited)}\r\n"
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as response:
            connection.settimeout(PATIENCE)
            connection.connect(path)
            request = f"GET /samples HTTP/1.1\r\nHost: a\r\n{start}Connection: close\r\n\r\n"
            connection.sendall(request.encode())
            return int(response.read().split()[1])

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with Server(project, activated(kind, listener), settings, listener):
            # The process must be older than the first request claims to be.
            wait_until(lambda: status(1) == 503, "a request that has waited for a second is refused")

            assert status(1, "%.3f") == 503
            wait_until(lambda: status(0) == 200, "a new request is answered")
            assert [status(waited) for waited in (-5, 3600)] == [200, 200]
            assert status(5, "t=x%d") == 200


@each_kind
def test_waiting_times_and_refusals_are_metrics(kind: Kind, start: Start, project: Project) -> None:
    """The metrics include a histogram of waiting times and a counter of refused requests."""
    project.provoke("blocked")
    port = free_port()
    server = start(kind, **SETTINGS, METRICS_BIND=f"127.0.0.1:{port}")

    with blocked(server):
        late = [Waiting(server, "POST", "/samples", BODY) for _ in range(3)]
    assert [waiting.answer().status for waiting in late] == [503, 503, 503]

    def value(name: str) -> float:
        with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        return sum(float(found) for found in re.findall(rf"^{name} (\S+)$", text, re.MULTILINE))

    assert value("refused_requests_total") >= 3
    assert value("http_request_queue_seconds_count") >= 4
    assert value("http_request_queue_seconds_sum") > 3 * LIMIT
