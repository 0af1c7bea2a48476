"""A supervisor that restarts what failed brings the service back, and tries no bad setting again.

A server that goes on without workers, or ends with a status that means something else, keeps the
supervisor from helping: the service is gone, and nothing says so.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest

from ..conftest import SECRET
from .conftest import Start
from .harness import GUNICORN, KINDS, PACKAGE, SCALE, Kind, Project, Server, free_port, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a server's processes are found in /proc")

BUG = "\nraise RuntimeError(3 * 7)\n"

# The others are tried again by the test of code that breaks later, as well.
BROKEN_AT_START = KINDS if SCALE > 1 or not GUNICORN else GUNICORN
# Each worker loads the code of its own day, except where gunicorn preloads.
LOADING_ANEW = [
    *(pytest.param(kind, {}, id=str(kind)) for kind in KINDS if kind not in GUNICORN),
    *(pytest.param(kind, {"WEB_PRELOAD": "false"}, id=f"{kind}-no-preload") for kind in GUNICORN[:1]),
]


class Supervisor:
    """What systemd does with Restart=on-failure, RestartPreventExitStatus=78 and StartLimitBurst=30."""

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
        """End the supervisor, and what it has started last."""
        self.stopping.set()
        while self.thread.is_alive():
            self.server.kill()
            self.thread.join(0.1)


Supervise = Callable[..., Supervisor]


@pytest.fixture
def supervise(launch: Start, database_url: str) -> Iterator[Supervise]:
    """Start servers on a migrated database, and start them again at the same port whenever they fail."""
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
def test_a_server_that_was_killed_is_back_at_its_port_with_every_note(
    kind: Kind, supervise: Supervise
) -> None:
    supervisor = supervise(kind)
    killed = supervisor.server
    killed.wait_until_ready()
    assert killed.post("/notes", {"text": "kept"}).status == 201

    killed.signal(signal.SIGKILL)

    # Workers without a master leave by themselves: they would keep the port, and serve for ever.
    wait_until(lambda: not killed.processes(), "the workers have left")
    wait_until(lambda: supervisor.server.is_serving(), "the service is back")
    assert supervisor.server.texts() == ["kept"]
    assert supervisor.statuses[0] == -signal.SIGKILL
    # Where workers leave slowly, the port was still taken a few times.
    assert set(supervisor.statuses[1:]) <= {1}, supervisor.server.log


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_bad_setting_is_not_tried_again(kind: Kind, supervise: Supervise) -> None:
    supervisor = supervise(kind, DATABASE_URL="nonsense")

    wait_until(lambda: not supervisor.thread.is_alive(), "the supervisor has given up")

    assert supervisor.statuses == [78]
    assert supervisor.server.log.count("configuration error: DATABASE_URL") == 1


@pytest.mark.parametrize("kind", BROKEN_AT_START, ids=str)
def test_broken_code_is_tried_again_and_serves_when_it_is_mended(
    kind: Kind, supervise: Supervise, project: Project
) -> None:
    project.append(f"{PACKAGE}/app.py", BUG)
    supervisor = supervise(kind)
    wait_until(lambda: len(supervisor.statuses) >= 2, "it has been tried again")

    project.replace(f"{PACKAGE}/app.py", BUG, "")

    wait_until(lambda: supervisor.server.is_serving(), "the mended code serves")
    assert set(supervisor.statuses) == {1}
    assert "RuntimeError: 21" in supervisor.server.log


@pytest.mark.parametrize(("kind", "settings"), LOADING_ANEW)
def test_code_that_breaks_later_ends_the_server_and_serves_when_it_is_mended(
    kind: Kind, settings: dict[str, str], supervise: Supervise, project: Project
) -> None:
    supervisor = supervise(kind, **settings)
    first = supervisor.server
    first.wait_until_ready()

    project.append(f"{PACKAGE}/app.py", BUG)
    os.kill(first.processes()[-1], signal.SIGKILL)

    # The server ends, instead of starting a worker again and again that nobody hears of.
    wait_until(lambda: len(supervisor.statuses) >= 2, "the server has ended, and been tried again")
    assert supervisor.statuses[0] in {1, 3, 22, -signal.SIGKILL}, first.log
    assert "RuntimeError: 21" in first.log
    project.replace(f"{PACKAGE}/app.py", BUG, "")
    wait_until(lambda: supervisor.server.is_serving(), "the mended code serves")
    assert set(supervisor.statuses[1:]) == {1}, first.log


@pytest.mark.parametrize("kind", GUNICORN, ids=str)
def test_gunicorn_goes_on_with_the_code_it_has_loaded_when_that_breaks_later(
    kind: Kind, supervise: Supervise, project: Project
) -> None:
    supervisor = supervise(kind, WEB_CONCURRENCY="2")
    server = supervisor.server
    wait_until(lambda: server.is_serving() and len(server.processes()) == 3, "two workers serve")

    project.append(f"{PACKAGE}/app.py", BUG)
    killed = server.processes()[1:]
    for worker in killed:
        os.kill(worker, signal.SIGKILL)

    wait_until(lambda: not {*killed} & {*server.processes()}, "the workers have ended")
    wait_until(lambda: len(server.processes()) == 3, "others have taken their place")
    assert server.post("/notes", {"text": "by the code of before"}).status == 201
    assert supervisor.statuses == []
