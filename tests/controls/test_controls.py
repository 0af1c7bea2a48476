"""The provocations of the proofs against a naive service: a proof that cannot fail proves nothing."""

from __future__ import annotations

import http.client
import itertools
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from ..foundation import databases
from ..foundation.proofs.test_database_faults import Private, private_server
from ..foundation.proofs.test_overload import Waiting
from ..foundation.proofs.test_slow_clients import sockets
from ..foundation.proofs.test_stop import AGAIN, TAKE
from ..foundation.servers import Kind, Server, wait_until
from .conftest import PYTHONPATH, Start, gunicorn, uwsgi


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


def test_a_missing_setting_makes_gunicorn_restart_endlessly(launch: Start) -> None:
    """A missing setting makes gunicorn restart its worker endlessly."""
    server = launch(gunicorn("--workers 1"))

    wait_until(lambda: server.log.count("Booting worker") > 3, "it tries again and again")
    assert server.process.poll() is None


def test_a_missing_setting_makes_uwsgi_restart_endlessly(launch: Start) -> None:
    """A missing setting makes uWSGI restart its worker endlessly."""
    server = launch(uwsgi("--lazy-apps --need-app"))

    wait_until(lambda: server.log.count("trying respawn") > 1, "it tries again and again")
    assert server.process.poll() is None


def test_work_is_done_for_a_client_that_has_left(start: Start) -> None:
    """A request waits for a thread until its client has left, and its work is still done."""
    server = start(gunicorn("--worker-class gthread --threads 1"))
    slow = Waiting(server, "GET", "/slow")
    server.wait_for_log("slow has begun")

    Waiting(server, "POST", "/notes", b"late").connection.close()

    assert slow.answer().status == 200
    wait_until(lambda: texts(server) == ["late"], "the work is done")


@pytest.mark.parametrize("cut", [30, -2], ids=["half a head", "half a body"])
def test_half_a_request_holds_a_thread(cut: int, start: Start) -> None:
    """Half a request holds a gunicorn thread, and a complete request waits for the other half."""
    server = start(gunicorn("--worker-class gthread --threads 1"))
    request = b"POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nslow"
    wait_until(lambda: sockets(server) == 0, "the first request's connection is closed")

    with server.connection() as slow, server.connection() as last:
        slow.sendall(request[:cut])
        whole = Waiting(server, "POST", "/notes", b"whole")
        last.sendall(b"GET")
        wait_until(lambda: sockets(server) == 3, "the worker has accepted all")
        slow.sendall(request[cut:])
        assert slow.recv(12).endswith(b"201")

    assert whole.answer().status == 201
    assert texts(server) == ["slow", "whole"]


def test_die_on_term_drops_the_request_in_flight(start: Start) -> None:
    """With die-on-term uWSGI drops the request in flight."""
    server = start(uwsgi("--die-on-term"))

    with server.connection() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: "slow has begun" in server.log, "the request is in flight")
        server.signal(signal.SIGTERM)

        with suppress(ConnectionResetError):
            assert connection.recv(100) == b""


def test_ctrl_c_while_gthread_takes_a_connection_hangs_it(start: Start, tmp_path: Path) -> None:
    """Ctrl-C while gthread accepts a connection hangs the worker until its graceful timeout."""
    kind = gunicorn("--workers 1 --threads 2 --graceful-timeout 2")
    with own_copy(tmp_path).open("a") as code:
        code.write(TAKE)
    server = start(replace(kind, settings={"PYTHONPATH": str(own_copy(tmp_path).parent)}))

    (tmp_path / "now").touch()
    with pytest.raises((OSError, http.client.HTTPException)):
        server.get("/livez")

    server.wait()
    assert "Worker exiting" not in server.log, "the worker was killed"


def test_a_signal_that_comes_while_a_worker_ends_is_a_traceback(start: Start, tmp_path: Path) -> None:
    """A signal during a worker's exit causes a traceback."""
    with own_copy(tmp_path).open("a") as code:
        code.write(AGAIN)
    server = start(replace(gunicorn("--workers 1"), settings={"PYTHONPATH": str(own_copy(tmp_path).parent)}))

    server.signal(signal.SIGINT)

    server.wait()
    assert "Exception ignored in atexit callback" in server.log


@pytest.mark.parametrize("kind", [gunicorn("--workers 2"), uwsgi("--lazy-apps --need-app")], ids=str)
def test_a_reload_to_broken_code_ends_the_running_service(kind: Kind, start: Start, tmp_path: Path) -> None:
    """A reload to broken code ends the running service."""
    server = start(replace(kind, settings={"PYTHONPATH": str(own_copy(tmp_path).parent)}))

    with own_copy(tmp_path).open("a") as code:
        code.write("raise RuntimeError(3 * 7)\n")
    server.signal(signal.SIGHUP)

    assert server.wait() != 0
    assert not server.is_listening()


def test_after_a_preload_a_reload_serves_the_old_code(start: Start, tmp_path: Path) -> None:
    """With preload a reload replaces the worker but serves the old code."""
    kind = gunicorn("--workers 1 --preload")
    server = start(replace(kind, settings={"PYTHONPATH": str(own_copy(tmp_path).parent)}))

    code = own_copy(tmp_path).read_text()
    own_copy(tmp_path).write_text(code.replace('return "alive"', 'return "alive and new"'))
    server.signal(signal.SIGHUP)

    wait_until(lambda: server.log.count("Booting worker") == 2, "the worker is replaced")
    wait_until(lambda: "Worker exiting" in server.log, "the old one has ended")
    assert server.get("/livez").body == b"alive"


def own_copy(folder: Path) -> Path:
    """Return a copy of the naive service that a test may change."""
    code = folder / "code" / "naive.py"
    if not code.exists():
        code.parent.mkdir()
        shutil.copy(Path(__file__).with_name("naive.py"), code)
    return code


def test_connections_made_before_the_fork_break_requests(start: Start) -> None:
    """Connections opened before the fork fail requests, or return other clients' rows."""
    server = start(gunicorn("--workers 3 --preload --threads 2"))
    server.patience = 3.0  # Some requests are never answered.

    def ask(number: int) -> object:
        try:
            answer = server.send("GET", f"/echo/{number}")
        except (OSError, http.client.HTTPException):
            return None
        return answer.status == 200 and answer.body == str(number).encode()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(90)))

    assert not all(answers)


def test_a_duplicate_key_in_a_global_session_fails_later_ones(start: Start) -> None:
    """One duplicate key in a global session fails every request after it."""
    server = start(gunicorn("--workers 1"))
    assert server.send("POST", "/shared", b"one").status == 201
    assert server.send("POST", "/shared", b"one").status == 500

    assert server.send("POST", "/shared", b"innocent").status == 500
    assert "PendingRollbackError" in server.log


def test_a_raising_teardown_costs_responses_and_connections(start: Start) -> None:
    """A raising teardown function costs the response, and eventually every connection."""
    server = start(gunicorn("--workers 1 --threads 4"))
    numbers = itertools.count()

    def leave(_: int) -> int:
        return server.send("POST", "/leave", str(next(numbers)).encode()).status

    def is_a_connection_missing() -> bool:
        with ThreadPoolExecutor(4) as clients:
            assert set(clients.map(leave, range(4))) == {500}
        return "QueuePool limit" in server.log

    # One after another they could share a session: it is kept under the address of a context that is gone.
    wait_until(is_a_connection_missing, "no connection is left")
    assert "the clean-up failed" in server.log


def test_a_body_cut_short_is_stored(start: Start) -> None:
    """A truncated body is stored."""
    server = start(gunicorn("--workers 1 --threads 2"))

    with server.connection() as connection:
        connection.sendall(
            b"POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400\r\n\r\namount=1000"
        )
        connection.shutdown(socket.SHUT_WR)
        connection.recv(100)

    assert texts(server) == ["amount=1000"]


def test_a_chunked_body_arrives_empty_under_uwsgi(start: Start) -> None:
    """A chunked body arrives empty under uWSGI."""
    server = start(uwsgi())

    assert server.send("POST", "/notes", iter([b"all of it"])).status == 201

    assert texts(server) == [""]


def test_uwsgi_drops_a_request_with_a_long_cookie(start: Start) -> None:
    """uWSGI drops a request with a long cookie."""
    server = start(uwsgi())

    with pytest.raises(ConnectionError):
        server.send("GET", "/livez", headers={"Cookie": "a=" + "x" * 8000})

    server.wait_for_log("invalid HTTP request size (max 4096)...skip")


def test_post_buffering_drops_a_body_where_no_file_can_be_made(start: Start) -> None:
    """With post-buffering uWSGI drops a body for which no temporary file can be created."""
    server = start(replace(uwsgi("--post-buffering 8192"), settings=PYTHONPATH | {"TMPDIR": "/nowhere"}))

    with pytest.raises(ConnectionError):
        server.send("POST", "/notes", b"x" * 9000)

    assert "uwsgi_tmpfile()" in server.log


def test_an_unclosed_stream_leaves_its_context_on_the_thread(start: Start) -> None:
    """A stream that is never closed leaves its context on the thread."""
    server = start(gunicorn("--workers 1"))
    assert server.get("/context").body == b"False"

    with server.connection() as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536)

    wait_until(lambda: server.get("/context").body == b"True", "the context stays")


def test_concurrent_changes_are_lost_without_an_error(start: Start) -> None:
    """Of concurrent changes some are lost without an error."""
    server = start(gunicorn("--workers 4"))
    assert server.send("POST", "/notes", b"0").status == 201
    acknowledged = 0

    def is_one_lost() -> bool:
        nonlocal acknowledged
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: server.send("POST", "/count/1").status, range(80)))
        assert set(statuses) == {200}
        acknowledged += len(statuses)
        return int(texts(server)[0]) < acknowledged

    wait_until(is_one_lost, "a change is lost")


def test_harakiri_ends_a_request_that_hangs_alone(start: Start) -> None:
    """uWSGI's harakiri kills a hanging request while no other one finishes."""
    server = start(uwsgi("--threads 2 --harakiri 1"))

    def is_ended() -> bool:
        # The end of the request that found the server ready may still come.
        with suppress(OSError, http.client.HTTPException):
            server.get("/slow")
            return False
        return True

    wait_until(is_ended, "a request that hangs is ended")
    assert "HARAKIRI" in server.log


def test_harakiri_forgets_a_hanging_request_when_another_ends(start: Start) -> None:
    """uWSGI's harakiri forgets a hanging request when another one finishes."""
    server = start(uwsgi("--threads 2 --harakiri 4"))

    def is_forgotten() -> bool:
        begun = server.log.count("slow has begun")
        slow = pool.submit(server.get, "/slow")
        wait_until(lambda: server.log.count("slow has begun") > begun, "the request is in flight")
        while not slow.done():
            # On a busy machine none may end for 4 seconds: then the slow one is ended, and is tried again.
            with suppress(OSError, http.client.HTTPException):
                server.get("/livez")
        return slow.exception() is None

    with ThreadPoolExecutor() as pool:
        wait_until(is_forgotten, "a request that took longer than harakiri allows is answered")


def test_reload_on_exception_drops_other_requests(start: Start, tmp_path: Path) -> None:
    """With reload-on-exception uWSGI drops the other requests in flight, and their locks stay."""
    server = start(uwsgi("--threads 4 --reload-on-exception"))

    with ThreadPoolExecutor() as pool:
        others = [pool.submit(server.get, f"/hold/{number}") for number in range(3)]
        wait_until(lambda: len([*tmp_path.glob("*.lock")]) == 3, "three requests are in flight")
        with suppress(OSError, http.client.HTTPException):
            server.get("/export")

        assert all(isinstance(other.exception(), ConnectionError) for other in others)
    assert len([*tmp_path.glob("*.lock")]) == 3


def test_a_killed_service_leaves_its_row_locked(start: Start, postgresql: databases.PostgreSQL) -> None:
    """A killed service leaves its row locked for as long as the database executes its statement."""
    server = start(gunicorn("--workers 1"))
    assert server.send("POST", "/notes", b"as it was").status == 201

    with ThreadPoolExecutor() as pool:
        pool.submit(server.send, "POST", "/change-slowly/1")
        engine = create_engine(server.environment["DATABASE_URL"], poolclass=NullPool)
        with engine.connect() as connection:
            works = text("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = :name")
            name = {"name": engine.url.database}
            wait_until(lambda: connection.scalar(works, name), "the database works")
        server.kill()

    with engine.connect() as connection:
        connection.execute(text("SET lock_timeout = '5s'"))
        with pytest.raises(OperationalError, match="lock timeout"):
            connection.execute(text("UPDATE notes SET text = 'changed'"))


def test_a_new_primary_makes_every_write_a_500(launch: Start) -> None:
    """When another server becomes the primary, every write returns 500."""
    with private_server() as old, private_server() as new:
        url = make_url(old.postgresql.empty())
        hosts = [str(make_url(server.postgresql.url).query["host"]) for server in (old, new)]
        url = url.update_query_dict({"host": hosts, "target_session_attrs": "read-write"})
        server = launch(
            gunicorn("--workers 1"), DATABASE_URL=url.render_as_string(hide_password=False), SECRET="x"
        )
        server.wait_until_ready()
        numbers = (str(number).encode() for number in itertools.count())
        assert server.send("POST", "/notes", next(numbers)).status == 201

        with old.read_only():
            wait_until(lambda: server.send("POST", "/notes", next(numbers)).status == 500, "it is refused")
            assert [server.send("POST", "/notes", next(numbers)).status for _ in range(5)] == [500] * 5

    assert "ReadOnlySqlTransaction" in server.log


def test_a_frozen_database_stops_liveness(launch: Start) -> None:
    """A frozen database stops liveness, too."""
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
    """Return whether a request for liveness gets no response."""
    with server.connection() as connection:
        connection.settimeout(2)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        try:
            return not connection.recv(100)
        except TimeoutError:
            return True
