"""Under systemd a request that comes before the service is answered by it, and ready means that it answers.

A server that opens its socket itself refuses requests until it has started, and uWSGI removes at its end
a socket that is not its own. One that calls itself ready when it has only been started gets requests it
cannot answer, and a deployment goes on that has failed.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ..conftest import SECRET
from .conftest import Start
from .harness import GUNICORN, PATIENCE, SCALE, WITH_WORKERS, Kind, Project, Server, activated

each_supervised = pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)


@pytest.fixture(params=["tcp", "unix"] if SCALE > 1 else ["unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A socket of systemd's, at which nobody is yet."""
    if request.param == "tcp":
        found = socket.create_server(("127.0.0.1", 0))
    else:
        found = socket.socket(socket.AF_UNIX)
        found.bind(str(tmp_path / "web.sock"))
        found.listen()
    with found:
        yield found


def ask(listener: socket.socket) -> bytes:
    """Send a request to whoever will answer at the socket, and return what comes."""
    with socket.socket(listener.family) as connection, connection.makefile("rb") as answer:
        connection.settimeout(PATIENCE)
        connection.connect(listener.getsockname())
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return answer.read()


@each_supervised
def test_a_request_that_comes_before_the_service_is_answered_by_it(
    kind: Kind, listener: socket.socket, project: Project, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/none.db", "SECRET_KEY": SECRET}
    with ThreadPoolExecutor() as pool:
        for _ in "start", "restart":
            answer = pool.submit(ask, listener)
            server = Server(project, activated(kind, listener), settings, listener)
            try:
                assert answer.result().startswith(b"HTTP/1.1 200 "), server.log
                server.signal(signal.SIGTERM)
                assert server.wait() == 0, server.log
                # uWSGI would find the socket twice, and fail to watch it the second time.
                assert "File exists" not in server.log
            finally:
                server.kill()


class Manager:
    """What systemd hears of a service that tells how it is."""

    def __init__(self, folder: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path = str(folder / "notify")
        self.socket.bind(self.path)
        self.socket.settimeout(PATIENCE)

    def hear(self) -> set[str]:
        """Wait for a message and return what it says."""
        return set(self.socket.recv(4096).decode().splitlines())


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A manager that services may tell how they are."""
    found = Manager(tmp_path)
    with found.socket:
        yield found


@each_supervised
def test_a_service_that_says_it_is_ready_answers(
    kind: Kind, launch: Start, manager: Manager, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/none.db"

    server = launch(kind, DATABASE_URL=url, SECRET_KEY=SECRET, NOTIFY_SOCKET=manager.path)

    while "READY=1" not in manager.hear():
        pass
    assert server.get("/livez").status == 200


@each_supervised
def test_a_service_that_cannot_start_does_not_say_it_is_ready(
    kind: Kind, launch: Start, manager: Manager
) -> None:
    server = launch(kind, DATABASE_URL="nonsense", SECRET_KEY=SECRET, NOTIFY_SOCKET=manager.path)

    assert server.wait() == 78
    manager.socket.settimeout(0)
    with suppress(BlockingIOError):
        while heard := manager.hear():
            assert "READY=1" not in heard


@pytest.mark.parametrize("kind", GUNICORN[:1], ids=str)
def test_the_log_says_how_many_connections_the_database_has_to_allow(
    kind: Kind, start: Start, database_url: str
) -> None:
    server = start(kind, WEB_CONCURRENCY="3", WEB_THREADS="2")

    told = "up to 12 database connections: 3 processes x 4" in server.log
    assert told is database_url.startswith("postgresql")
