"""A reload, a recycled worker and a restart cost no request, and new code that is broken is not served.

A reload to broken code ends gunicorn and uWSGI where they were serving well; after a preload,
gunicorn's SIGHUP loads no new code at all.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ..conftest import SECRET
from .conftest import Start
from .harness import (
    GUNICORN,
    PACKAGE,
    PATIENCE,
    SCALE,
    WITH_WORKERS,
    Kind,
    Project,
    Server,
    activated,
    scaled,
    wait_until,
)

OLD, NEW = "the old code", "the new code, which is longer"  # Python tells old from new by the length, too.
WITHOUT_PRELOAD = [
    pytest.param(kind, {"WEB_PRELOAD": "false"}, id=f"{kind}-no-preload") for kind in GUNICORN[:1]
]
ROLLS = [pytest.param(kind, {}, id=str(kind)) for kind in WITH_WORKERS]
GUNICORN_ROLLS = [roll for roll in ROLLS if roll.values[0] in GUNICORN[:1]] + WITHOUT_PRELOAD
# gunicorn.conf.py makes SIGHUP what SIGUSR2 is, so that `make prove` alone sends that one, too.
SIGNALS = [signal.SIGHUP]
if SCALE > 1:
    ROLLS += WITHOUT_PRELOAD
    SIGNALS += [signal.SIGUSR2]


class Clients:
    """Eight clients that ask for the version without end, every other one on a connection that it keeps."""

    def __init__(self, server: Server) -> None:
        self.port = server.port
        self.answers: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.latest: dict[int, str] = {}
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(8)]

    def ask(self, count: int) -> None:
        """Wait until that many more requests were answered."""
        wanted = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= wanted or self.failures, f"{count} answers")

    def meet(self, count: int) -> None:
        """Wait until that many processes have answered."""
        wait_until(lambda: len({answer["process"] for answer in self.answers}) >= count, f"{count} processes")

    def see(self, version: str) -> None:
        """Wait until nothing else answers any more."""
        wait_until(lambda: set(self.latest.values()) == {version}, f"{version} answers")

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        keeps = number % 2
        headers = {} if keeps else {"Connection": "close"}
        while not self.over.wait(0.03 / SCALE):
            try:
                connection.request("GET", "/version", headers=headers)
                response = connection.getresponse()
                body = response.read()
                if not keeps:
                    connection.close()
                if response.status != 200:
                    self.failures.append(f"{response.status} {body!r}")
                    continue
                answer = json.loads(body)
                self.answers.append(answer)
                self.latest[number] = answer["version"]
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()


@contextmanager
def clients_of(server: Server) -> Iterator[Clients]:
    """Let clients work, and check at the end that none of their requests failed."""
    clients = Clients(server)
    for thread in clients.threads:
        thread.start()
    try:
        clients.ask(50)
        # One that still loads the service would load what the test does to it.
        clients.meet(2)
        yield clients
        clients.ask(scaled(150))
    finally:
        clients.over.set()
        for thread in clients.threads:
            thread.join(PATIENCE)
    assert not clients.failures, (clients.failures, server.log)


def reload(server: Server, project: Project, *given: str) -> subprocess.CompletedProcess[str]:
    """Run the reload command on the server, or with other arguments."""
    command = [str(project.folder / "bin/reload"), *(given or [str(server.process.pid)])]
    return subprocess.run(
        command, env=server.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize(("kind", "settings"), ROLLS)
def test_a_reload_serves_the_new_code_and_fails_no_request(
    kind: Kind, settings: dict[str, str], start: Start, project: Project
) -> None:
    project.provoke("versioned")
    server = start(kind, WEB_CONCURRENCY="2", **settings)

    with clients_of(server) as clients:
        project.replace("src/versioned.py", OLD, NEW)
        done = reload(server, project)
        clients.see(NEW)

    assert (done.returncode, done.stderr) == (0, "")
    if kind in GUNICORN:  # Another process serves; the one that was replaced has ended well.
        assert server.wait() == 0
    assert "Traceback" not in server.log


@pytest.mark.parametrize(("kind", "settings"), ROLLS)
def test_a_reload_to_broken_code_is_refused_with_the_reason(
    kind: Kind, settings: dict[str, str], start: Start, project: Project
) -> None:
    project.provoke("versioned")
    server = start(kind, WEB_CONCURRENCY="2", **settings)

    with clients_of(server) as clients:
        project.append(f"{PACKAGE}/app.py", "\nraise RuntimeError(3 * 7)\n")
        done = reload(server, project)

    assert done.returncode == 1
    assert done.stderr.count("Traceback") == done.stderr.count("RuntimeError: 21") == 1
    assert set(clients.latest.values()) == {OLD}
    assert server.process.poll() is None


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_the_reload_command_signals_nothing_but_a_servers_first_process(
    kind: Kind, start: Start, project: Project
) -> None:
    server = start(kind)
    wait_until(lambda: len(server.processes()) == 2, "the worker was forked")
    first, worker = server.processes()
    # What started the server knows its name, too: `make serve`, or an editor that has its configuration open.
    other = subprocess.Popen([sys.executable, "-c", "input()", *kind.command], stdin=subprocess.PIPE)
    try:
        for process, reason in (
            (str(other.pid), f"process {other.pid} is no gunicorn and no uWSGI"),
            (str(worker), f"is a worker, the server's first process is {first}"),
            ("1x", "usage: bin/reload PID"),
            ("0", "usage: bin/reload PID"),
            (str(2**22 + 1), "cannot be signalled"),
        ):
            done = reload(server, project, process)
            assert (done.returncode, reason in done.stderr) == (64, True), done.stderr
        assert other.poll() is None
        assert reload(server, project, str(first), str(first)).returncode == 64
    finally:
        other.kill()
        other.communicate()

    assert server.processes() == [first, worker]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize(("kind", "settings"), GUNICORN_ROLLS)
def test_a_signal_alone_does_not_take_gunicorn_to_broken_code(
    kind: Kind, settings: dict[str, str], number: signal.Signals, start: Start, project: Project
) -> None:
    project.provoke("versioned")
    server = start(kind, WEB_CONCURRENCY="2", **settings)

    with clients_of(server) as clients:
        project.append(f"{PACKAGE}/app.py", "\nraise RuntimeError(3 * 7)\n")
        server.signal(number)
        wait_until(lambda: "RuntimeError: 21" in server.log, "the new master fails")

    assert set(clients.latest.values()) == {OLD}
    assert server.process.poll() is None


@pytest.mark.parametrize("kind", GUNICORN[:1], ids=str)
def test_a_process_that_its_supervisor_watches_is_not_replaced(kind: Kind, start: Start) -> None:
    server = start(kind, NOTIFY_SOCKET="/nowhere")

    server.signal(signal.SIGHUP)

    wait_until(lambda: "not rolled" in server.log, "gunicorn says so")
    assert server.get("/livez").status == 200
    assert server.log.count("Starting gunicorn") == 1


# gunicorn's pywsgi worker counts no requests: it is never recycled.
@pytest.mark.parametrize("kind", [kind for kind in WITH_WORKERS if "pywsgi" not in kind.name], ids=str)
def test_workers_that_are_recycled_fail_no_request(kind: Kind, start: Start, project: Project) -> None:
    project.provoke("versioned")
    # As often in each run: a worker that has just been replaced is not ready at once.
    project.recycle(kind, scaled(100))
    server = start(kind, WEB_CONCURRENCY="2")

    with clients_of(server) as clients:
        for processes in 3, 4, 5:
            clients.meet(processes)

    assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_restart_behind_a_socket_that_stays_open_fails_no_request(
    kind: Kind, project: Project, database_url: str
) -> None:
    project.provoke("versioned")
    settings = {"DATABASE_URL": database_url, "SECRET_KEY": SECRET, "WEB_CONCURRENCY": "2"}
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        first = Server(project, activated(kind, listener), settings, listener)
        second = None
        try:
            with clients_of(first) as clients:
                project.replace("src/versioned.py", OLD, NEW)
                first.signal(signal.SIGTERM)
                assert first.wait() == 0
                second = Server(project, activated(kind, listener), settings, listener)
                clients.see(NEW)
        finally:
            first.kill()
            if second:
                second.kill()
