"""A reload, a recycled worker and a restart lose no request, and broken code is not put into service.

By default a reload to broken code stops a working gunicorn or uWSGI; with preload, gunicorn's SIGHUP loads no
new code at all.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ..fixtures import SECRET
from ..processes import Program
from ..servers import (
    GTHREAD,
    GUNICORN,
    PACKAGE,
    PATIENCE,
    UWSGI,
    WITH_WORKERS,
    Kind,
    Project,
    Server,
    activated,
    scale,
    scaled,
    serving,
    wait_until,
)
from .conftest import Start

VERSIONED = f"{PACKAGE}/provocations/versioned.py"
OLD, NEW = "the old code", "the new code, which is longer"  # Python also detects the change by the length.
NO_PRELOAD = {"WEB_PRELOAD": "false"}
GUNICORN_ROLLS = [
    pytest.param(kind, settings, id=f"{kind}{suffix}")
    for kind in GTHREAD
    for settings, suffix in (({}, ""), (NO_PRELOAD, "-no-preload"))
]
ROLLS = [
    *(pytest.param(kind, {}, id=str(kind)) for kind in WITH_WORKERS),
    *(
        pytest.param(kind, NO_PRELOAD, id=f"{kind}-no-preload", marks=pytest.mark.thorough)
        for kind in GTHREAD
    ),
]
# The hooks of gunicorn.conf.py make SIGHUP equal to SIGUSR2.
SIGNALS = [
    pytest.param(signal.SIGHUP, id="SIGHUP"),
    pytest.param(signal.SIGUSR2, id="SIGUSR2", marks=pytest.mark.thorough),
]


class Clients:
    """Eight clients that request the version continuously, every other one on a keep-alive connection."""

    def __init__(self, server: Server) -> None:
        self.port = server.port
        self.answers: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.latest: dict[int, str] = {}
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(8)]

    def ask(self, count: int) -> None:
        """Wait until so many more requests are answered."""
        wanted = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= wanted or self.failures, f"{count} answers")

    def meet(self, count: int) -> None:
        """Wait until so many processes have responded."""
        wait_until(lambda: len({answer["process"] for answer in self.answers}) >= count, f"{count} processes")

    def see(self, version: str) -> None:
        """Wait until all responses have this version."""
        wait_until(lambda: set(self.latest.values()) == {version}, f"{version} answers")

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        keeps = number % 2
        headers = {} if keeps else {"Connection": "close"}
        while not self.over.wait(0.03 / scale()):
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
    """Run clients, and check at the end that none of their requests failed."""
    clients = Clients(server)
    for thread in clients.threads:
        thread.start()
    try:
        clients.ask(50)
        # A worker that is still loading the service would load the changed code.
        clients.meet(2)
        yield clients
        clients.ask(scaled(150))
    finally:
        clients.over.set()
        for thread in clients.threads:
            thread.join(PATIENCE)
    assert not clients.failures, (clients.failures, server.log)


@pytest.mark.parametrize(("kind", "settings"), ROLLS)
def test_a_reload_serves_the_new_code_and_fails_no_request(
    kind: Kind, settings: dict[str, str], start: Start, project: Project
) -> None:
    """A reload serves the new code and fails no request."""
    project.provoke("versioned")
    server = start(kind, WEB_CONCURRENCY="2", **settings)

    with clients_of(server) as clients:
        project.replace(VERSIONED, OLD, NEW)
        done = server.reload()
        clients.see(NEW)

    assert done.stderr == ""
    if kind in GUNICORN:  # Another process serves; the replaced one has exited cleanly.
        assert server.wait() == 0
    assert "Traceback" not in server.log


@pytest.mark.parametrize(("kind", "settings"), ROLLS)
def test_a_reload_to_broken_code_is_refused_with_the_reason(
    kind: Kind, settings: dict[str, str], start: Start, project: Project
) -> None:
    """A reload to broken code is refused with the reason, and the old code keeps serving."""
    project.provoke("versioned")
    server = start(kind, WEB_CONCURRENCY="2", **settings)

    with clients_of(server) as clients:
        project.append(f"{PACKAGE}/app.py", "\nraise RuntimeError(3 * 7)\n")
        done = server.reload(status=1)

    assert done.stderr.count("Traceback") == done.stderr.count("RuntimeError: 21") == 1
    assert set(clients.latest.values()) == {OLD}
    assert server.process.poll() is None


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_the_reload_command_signals_only_a_servers_first_process(
    kind: Kind, start: Start, project: Project
) -> None:
    """The reload command signals only a server's master, and refuses any other process."""
    server = start(kind)
    wait_until(lambda: len(server.processes()) == 2, "the worker was forked")
    first, worker = server.processes()
    # Other command lines also contain a server's name: `make serve`, or an editor with its configuration
    # open.
    waiting = (sys.executable, "-c", "import signal; signal.pause()", *kind.command)
    with Program(*waiting, cwd=project.folder, log=project.folder / "log", environment={}) as other:
        for process, reason in (
            (str(other.process.pid), f"process {other.process.pid} is no gunicorn and no uWSGI"),
            (str(worker), f"is a worker, the server's first process is {first}"),
            ("1x", "usage: bin/reload PID"),
            ("0", "usage: bin/reload PID"),
            (str(2**22 + 1), "cannot be signalled"),
        ):
            assert reason in server.reload(process, status=64).stderr
        assert other.process.poll() is None
        server.reload(str(first), str(first), status=64)

    assert server.processes() == [first, worker]


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_reload_after_a_switch_of_releases_is_true(
    kind: Kind, project: Project, tmp_path: Path, database_url: str
) -> None:
    """A reload in a new release's folder serves its code, or is refused for a server in the old folder."""
    project.provoke("versioned")
    current, new = tmp_path / "current", tmp_path / "new"
    shutil.copytree(project.folder, new, symlinks=True)
    (new / VERSIONED).write_text((new / VERSIONED).read_text().replace(OLD, NEW))
    current.symlink_to(project.folder)
    settings = {"DATABASE_URL": database_url, "SECRET_KEY": SECRET, "PWD": str(current)}
    with serving(SimpleNamespace(folder=current), kind, settings) as server:
        current.unlink()
        current.symlink_to(new)

        if kind is UWSGI:
            done = server.reload(status=64)
            assert f"would load the code of {project.folder}, not that of {new}" in done.stderr
            assert server.get("/version").json["version"] == OLD
        else:
            server.reload()
            wait_until(lambda: server.get("/version").json["version"] == NEW, "the new code answers")


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_reload_with_another_interpreter_is_refused(
    kind: Kind, start: Start, project: Project, tmp_path: Path
) -> None:
    """The reload command refuses a server on an interpreter other than the one that checks the code."""
    server = start(kind)
    (project.folder / ".venv").unlink()
    (project.folder / ".venv" / "bin").mkdir(parents=True)

    assert f"not on {project.folder}/.venv/bin/python" in server.reload(status=64).stderr


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("kind", "settings"), GUNICORN_ROLLS)
def test_a_signal_alone_does_not_switch_gunicorn_to_broken_code(
    kind: Kind, settings: dict[str, str], number: signal.Signals, start: Start, project: Project
) -> None:
    """A signal without the reload command does not switch gunicorn to broken code."""
    project.provoke("versioned")
    server = start(kind, WEB_CONCURRENCY="2", **settings)

    with clients_of(server) as clients:
        project.append(f"{PACKAGE}/app.py", "\nraise RuntimeError(3 * 7)\n")
        server.signal(number)
        wait_until(lambda: "RuntimeError: 21" in server.log, "the new master fails")

    assert set(clients.latest.values()) == {OLD}
    assert server.process.poll() is None


@pytest.mark.parametrize("kind", GTHREAD, ids=str)
def test_a_process_that_its_supervisor_watches_is_not_replaced(kind: Kind, start: Start) -> None:
    """A gunicorn that reports to its supervisor is not replaced by a signal, and logs that."""
    server = start(kind, NOTIFY_SOCKET="/nowhere")

    server.signal(signal.SIGHUP)

    wait_until(lambda: "not rolled" in server.log, "gunicorn says so")
    if Path("/proc/self/environ").exists():
        assert "has a supervisor" in server.reload(status=64).stderr
    assert server.get("/livez").status == 200
    assert server.log.count("Starting gunicorn") == 1


# gunicorn's pywsgi worker counts no requests, so it is never recycled.
@pytest.mark.parametrize("kind", [kind for kind in WITH_WORKERS if "pywsgi" not in kind.name], ids=str)
def test_workers_that_are_recycled_fail_no_request(kind: Kind, start: Start, project: Project) -> None:
    """Recycled workers fail no request."""
    project.provoke("versioned")
    # As often in each run: a worker that has just been started is not ready immediately.
    project.recycle(kind, scaled(100))
    server = start(kind, WEB_CONCURRENCY="2")

    with clients_of(server) as clients:
        for processes in 3, 4, 5:
            clients.meet(processes)

    assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_restart_with_an_open_socket_fails_no_request(
    kind: Kind, project: Project, database_url: str
) -> None:
    """A restart with an open socket fails no request and serves the new code."""
    project.provoke("versioned")
    settings = {"DATABASE_URL": database_url, "SECRET_KEY": SECRET, "WEB_CONCURRENCY": "2"}
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, ExitStack() as servers:
        first = servers.enter_context(Server(project, activated(kind, listener), settings, listener))
        with clients_of(first) as clients:
            project.replace(VERSIONED, OLD, NEW)
            first.signal(signal.SIGTERM)
            assert first.wait() == 0
            servers.enter_context(Server(project, activated(kind, listener), settings, listener))
            clients.see(NEW)
