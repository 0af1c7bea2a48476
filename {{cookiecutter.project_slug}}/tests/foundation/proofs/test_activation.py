"""Under systemd a request sent before startup is answered, and so is every request after READY=1.

A server that opens its own socket refuses requests until it has started, and uWSGI removes at shutdown even a
socket that it did not create. A server that reports readiness too early gets requests that it cannot answer,
and a failed deployment continues.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ..fixtures import SECRET
from ..servers import GTHREAD, PATIENCE, WITH_WORKERS, Kind, Project, Server, activated
from .conftest import Start

each_supervised = pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)


@pytest.fixture(params=[pytest.param("tcp", marks=pytest.mark.thorough), "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A systemd socket, at which no server accepts connections yet."""
    if request.param == "tcp":
        found = socket.create_server(("127.0.0.1", 0))
    else:
        found = socket.socket(socket.AF_UNIX)
        found.bind(str(tmp_path / "web.sock"))
        found.listen()
    with found:
        yield found


def ask(listener: socket.socket) -> bytes:
    """Send a request to the socket, wait for a server, and return its response."""
    with socket.socket(listener.family) as connection, connection.makefile("rb") as answer:
        connection.settimeout(PATIENCE)
        connection.connect(listener.getsockname())
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return answer.read()


@each_supervised
def test_a_request_before_startup_is_answered(
    kind: Kind, listener: socket.socket, project: Project, tmp_path: Path
) -> None:
    """A request that arrives before the service has started or restarted is answered by it."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/none.db", "SECRET_KEY": SECRET}
    with ThreadPoolExecutor() as pool:
        for _ in "start", "restart":
            answer = pool.submit(ask, listener)
            with Server(project, activated(kind, listener), settings, listener) as server:
                assert answer.result().startswith(b"HTTP/1.1 200 "), server.log
                server.signal(signal.SIGTERM)
                assert server.wait() == 0, server.log
                # uWSGI would find the socket twice, and fail to watch it the second time.
                assert "File exists" not in server.log


class Manager:
    """A service manager like systemd, which receives a service's state."""

    def __init__(self, folder: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path = str(folder / "notify")
        self.socket.bind(self.path)
        self.socket.settimeout(PATIENCE)

    def receive(self) -> set[str]:
        """Wait for a message and return its lines."""
        return set(self.socket.recv(4096).decode().splitlines())


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A manager for services to report their state."""
    found = Manager(tmp_path)
    with found.socket:
        yield found


@each_supervised
def test_a_service_that_reports_readiness_answers(
    kind: Kind, launch: Start, manager: Manager, tmp_path: Path
) -> None:
    """A service that reports readiness answers requests."""
    url = f"sqlite:///{tmp_path}/none.db"

    server = launch(kind, DATABASE_URL=url, SECRET_KEY=SECRET, NOTIFY_SOCKET=manager.path)

    while "READY=1" not in manager.receive():
        pass
    assert server.get("/livez").status == 200


@each_supervised
def test_a_service_that_cannot_start_reports_no_readiness(
    kind: Kind, launch: Start, manager: Manager
) -> None:
    """A service that cannot start exits with 78 and never reports readiness."""
    server = launch(kind, DATABASE_URL="nonsense", SECRET_KEY=SECRET, NOTIFY_SOCKET=manager.path)

    assert server.wait() == 78
    manager.socket.settimeout(0)
    with suppress(BlockingIOError):
        while lines := manager.receive():
            assert "READY=1" not in lines


@pytest.mark.parametrize("kind", GTHREAD, ids=str)
def test_the_log_names_the_connections_the_database_must_allow(
    kind: Kind, start: Start, database_url: str
) -> None:
    """The log shows the number of connections that the PostgreSQL server must allow."""
    server = start(kind, WEB_CONCURRENCY="3", WEB_THREADS="2")

    is_logged = "up to 12 database connections: 3 processes x 4" in server.log
    assert is_logged is database_url.startswith("postgresql")
