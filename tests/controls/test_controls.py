"""Each provocation of tests/servers against the naive version: what could not fail would prove nothing."""

from __future__ import annotations

import http.client
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .. import databases
from ..servers import harness
from ..servers.harness import Kind, Server, wait_until
from ..servers.test_database_faults import Private


class Naive:
    """The folder of the naive service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def gunicorn(*options: str) -> Kind:
    command = f'exec gunicorn naive:app --bind "$WEB_BIND" {" ".join(options)}'
    return Kind(
        "naive-gunicorn", ("sh", "-c", command), {"PYTHONPATH": str(Path(__file__).parent)}, "gunicorn"
    )


def uwsgi(*options: str) -> Kind:
    command = f'exec uwsgi --http-socket "$WEB_BIND" --module naive:app --master {" ".join(options)}'
    return Kind("naive-uwsgi", ("sh", "-c", command), {"PYTHONPATH": str(Path(__file__).parent)}, "pyuwsgi")


Start = Callable[..., Server]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Start]:
    started: list[Server] = []

    def launch(kind: Kind, **settings: str) -> Server:
        started.append(Server(Naive(tmp_path), kind, settings))  # type: ignore[arg-type]
        return started[-1]

    yield launch
    for server in started:
        server.kill()


@pytest.fixture
def start(launch: Start, postgresql: databases.PostgreSQL) -> Start:
    def start(kind: Kind) -> Server:
        server = launch(kind, DATABASE_URL=postgresql.empty(), SECRET="here")
        server.wait_until_ready()
        return server

    return start


def texts(server: Server) -> list[Any]:
    found: list[Any] = server.get("/notes").json["texts"]
    return found


def test_a_missing_setting_makes_gunicorn_start_its_worker_again_for_ever(launch: Start) -> None:
    server = launch(gunicorn("--workers 1"))

    wait_until(lambda: server.log.count("Booting worker") > 3, "it tries again and again")
    assert server.process.poll() is None


def test_a_missing_setting_makes_uwsgi_start_its_worker_again_for_ever(launch: Start) -> None:
    server = launch(uwsgi("--lazy-apps --need-app"))

    wait_until(lambda: server.log.count("trying respawn") > 1, "it tries again and again")
    assert server.process.poll() is None


def test_die_on_term_drops_the_request_in_flight(start: Start) -> None:
    server = start(uwsgi("--die-on-term"))

    with server.connection() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: "slow has begun" in server.log, "the request is in flight")
        server.signal(signal.SIGTERM)

        with suppress(ConnectionResetError):
            assert connection.recv(100) == b""


def test_connections_made_before_the_fork_fail_requests_or_answer_them_with_others_rows(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(gunicorn("--workers 3 --preload --threads 2"))
    monkeypatch.setattr(harness, "PATIENCE", 3.0)  # Some are never answered.

    def ask(number: int) -> object:
        try:
            answer = server.send("GET", f"/echo/{number}")
        except (OSError, http.client.HTTPException):
            return None
        return answer.status == 200 and answer.body == str(number).encode()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(90)))

    assert not all(answers)


def test_one_duplicate_key_in_a_global_session_fails_everybody_after_it(start: Start) -> None:
    server = start(gunicorn("--workers 1"))
    assert server.send("POST", "/shared", b"one").status == 201
    assert server.send("POST", "/shared", b"one").status == 500

    assert server.send("POST", "/shared", b"innocent").status == 500
    assert "PendingRollbackError" in server.log


def test_a_raising_teardown_costs_the_answer_and_at_last_every_connection(start: Start) -> None:
    server = start(gunicorn("--workers 1"))

    statuses = [server.send("POST", "/leave", str(number).encode()).status for number in range(3)]

    assert statuses == [500, 500, 500]
    assert server.send("GET", "/notes").status == 500
    assert "QueuePool limit" in server.log


def test_a_body_cut_short_is_stored(start: Start) -> None:
    server = start(gunicorn("--workers 1 --threads 2"))

    with server.connection() as connection:
        connection.sendall(
            b"POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400\r\n\r\namount=1000"
        )
        connection.shutdown(socket.SHUT_WR)
        connection.recv(100)

    assert texts(server) == ["amount=1000"]


def test_a_chunked_body_arrives_empty_under_uwsgi(start: Start) -> None:
    server = start(uwsgi())

    assert server.send("POST", "/notes", iter([b"all of it"])).status == 201

    assert texts(server) == [""]


def test_a_stream_that_nobody_closes_leaves_its_context_on_the_thread(start: Start) -> None:
    server = start(gunicorn("--workers 1"))
    assert server.get("/context").body == b"False"

    with server.connection() as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536)

    wait_until(lambda: server.get("/context").body == b"True", "the context stays")


def test_a_frozen_database_takes_liveness_along(launch: Start) -> None:
    with databases.embedded_server() as process:
        private = Private(process)
        server = launch(
            gunicorn("--workers 1 --threads 2"), DATABASE_URL=private.postgresql.empty(), SECRET="x"
        )
        server.wait_until_ready()
        assert server.get("/notes").status == 200
        with private.frozen(), ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(server.get, "/notes") for _ in range(2)]
            wait_until(lambda: is_silent(server), "liveness does not answer")
            server.kill()
        assert all(answer.exception() for answer in asked)


def is_silent(server: Server) -> bool:
    """Say whether the service keeps a client waiting that asks whether it lives."""
    with server.connection() as connection:
        connection.settimeout(2)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        try:
            return not connection.recv(100)
        except TimeoutError:
            return True
