"""A supervisor brings a failed service back, and does not retry an invalid setting.

A server that keeps running without workers, or exits with a misleading code, is not restarted: the service is
down, and nothing reports it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest

from ..fixtures import SECRET
from ..servers import GTHREAD, GUNICORN, KINDS, PACKAGE, Kind, Project, Server, free_port, wait_until
from .conftest import Start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a server's processes are found in /proc")

BUG = "\nraise RuntimeError(3 * 7)\n"

# The test of code that breaks later also covers the restart of the others.
BROKEN_AT_START = [
    kind if kind in (GUNICORN or KINDS) else pytest.param(kind, marks=pytest.mark.thorough) for kind in KINDS
]
# Each new worker loads the current code from disk, unless gunicorn preloads.
LOADING_LATER = [
    *(pytest.param(kind, {}, id=str(kind)) for kind in KINDS if kind not in GUNICORN),
    *(pytest.param(kind, {"WEB_PRELOAD": "false"}, id=f"{kind}-no-preload") for kind in GTHREAD),
]


class Supervisor:
    """systemd with Restart=on-failure, RestartPreventExitStatus=78 and StartLimitBurst=30."""

    def __init__(self, start: Callable[[], Server]) -> None:
        self.server = start()
        self.statuses: list[int] = []
        self.stopping = Event()
        self.thread = Thread(target=self._restart, args=[start])
        self.thread.start()

    def _restart(self, start: Callable[[], Server]) -> None:
        while (status := self.server.process.wait()) not in {0, 78} and len(self.statuses) < 30:
            self.statuses.append(status)
            if self.stopping.wait(0.1):
                return
            self.server = start()
        self.statuses.append(status)

    def stop(self) -> None:
        """Stop the supervisor, and the server that it started last."""
        self.stopping.set()
        while self.thread.is_alive():
            self.server.kill()
            self.thread.join(0.1)


Supervise = Callable[..., Supervisor]


@pytest.fixture
def supervise(launch: Start, database_url: str) -> Iterator[Supervise]:
    """Start servers on a migrated database, and restart them on the same port when they fail."""
    started: list[Supervisor] = []

    def supervise(kind: Kind, **settings: str) -> Supervisor:
        bind = f"127.0.0.1:{free_port()}"
        settings = {"DATABASE_URL": database_url, "SECRET_KEY": SECRET, "WEB_BIND": bind} | settings
        started.append(Supervisor(lambda: launch(kind, **settings)))
        return started[-1]

    yield supervise
    for supervisor in started:
        supervisor.stop()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_killed_server_is_back_at_its_port_with_every_sample(kind: Kind, supervise: Supervise) -> None:
    """A killed server is back on its port with every sample, and its old workers have exited."""
    supervisor = supervise(kind)
    killed = supervisor.server
    killed.wait_until_ready()
    assert killed.post("/samples", {"text": "kept"}).status == 201

    killed.signal(signal.SIGKILL)

    # Workers without a master must exit, or they would keep the port and keep serving.
    wait_until(lambda: not killed.processes(), "the workers have left")
    wait_until(lambda: supervisor.server.is_serving(), "the service is back")
    assert supervisor.server.texts() == ["kept"]
    assert supervisor.statuses[0] == -signal.SIGKILL
    # While workers exit slowly, the port may still be in use.
    assert set(supervisor.statuses[1:]) <= {1}, supervisor.server.log


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_bad_setting_is_not_tried_again(kind: Kind, supervise: Supervise) -> None:
    """A server with an invalid setting exits with 78 and is not restarted."""
    supervisor = supervise(kind, DATABASE_URL="nonsense")

    wait_until(lambda: not supervisor.thread.is_alive(), "the supervisor has given up")

    assert supervisor.statuses == [78]
    assert supervisor.server.log.count("configuration error: DATABASE_URL") == 1


@pytest.mark.parametrize("kind", BROKEN_AT_START, ids=str)
def test_broken_code_is_retried_and_serves_when_it_is_repaired(
    kind: Kind, supervise: Supervise, project: Project
) -> None:
    """A server with broken code exits with 1, is restarted, and serves when the code is fixed."""
    project.append(f"{PACKAGE}/app.py", BUG)
    supervisor = supervise(kind)
    wait_until(lambda: len(supervisor.statuses) >= 2, "it has been restarted")

    project.replace(f"{PACKAGE}/app.py", BUG, "")

    wait_until(lambda: supervisor.server.is_serving(), "the repaired code serves")
    assert set(supervisor.statuses) == {1}
    assert "RuntimeError: 21" in supervisor.server.log


@pytest.mark.parametrize(("kind", "settings"), LOADING_LATER)
def test_code_that_breaks_later_ends_the_server_until_repaired(
    kind: Kind, settings: dict[str, str], supervise: Supervise, project: Project
) -> None:
    """If code breaks under a running server, it exits, and the service recovers when the code is fixed."""
    supervisor = supervise(kind, **settings)
    first = supervisor.server
    first.wait_until_ready()

    project.append(f"{PACKAGE}/app.py", BUG)
    os.kill(first.processes()[-1], signal.SIGKILL)

    # The server must exit, instead of silently restarting workers.
    wait_until(lambda: len(supervisor.statuses) >= 2, "the server has ended, and been restarted")
    assert supervisor.statuses[0] in {1, 3, 22, -signal.SIGKILL}, first.log
    assert "RuntimeError: 21" in first.log
    project.replace(f"{PACKAGE}/app.py", BUG, "")
    wait_until(lambda: supervisor.server.is_serving(), "the repaired code serves")
    assert set(supervisor.statuses[1:]) == {1}, first.log


@pytest.mark.parametrize("kind", GUNICORN, ids=str)
def test_preloaded_gunicorn_survives_code_that_breaks_later(
    kind: Kind, supervise: Supervise, project: Project
) -> None:
    """gunicorn with preload replaces killed workers with the loaded code, even if the code on disk breaks."""
    supervisor = supervise(kind, WEB_CONCURRENCY="2")
    server = supervisor.server
    wait_until(lambda: server.is_serving() and len(server.processes()) == 3, "two workers serve")

    project.append(f"{PACKAGE}/app.py", BUG)
    killed = server.processes()[1:]
    for worker in killed:
        os.kill(worker, signal.SIGKILL)

    wait_until(lambda: not {*killed} & {*server.processes()}, "the workers have ended")
    wait_until(lambda: len(server.processes()) == 3, "others have taken their place")
    assert server.post("/samples", {"text": "by the code of before"}).status == 201
    assert supervisor.statuses == []
