"""A killed worker loses only its own requests in flight, and no acknowledged data.

The kernel kills it for its memory, or the server because it hangs. Without protection its rows stay locked, a
lock in the server blocks every client, or an acknowledged row is lost.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL, NullPool, create_engine, make_url, text

from ..servers import (
    PACKAGE,
    PATIENCE,
    UWSGI,
    WITH_WORKERS,
    Kind,
    Project,
    Server,
    scale,
    scaled,
    wait_until,
)
from .conftest import Start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the owner of a connection is found in /proc")


@dataclass
class Ledger:
    """The outcome of each sample: a 201, a 503 or no response; for the last two, with the client's port."""

    acknowledged: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)


@contextmanager
def eight_clients(server: Server) -> Iterator[Ledger]:
    """Make clients store samples one by one, each on a new connection."""
    ledger, over = Ledger(), threading.Event()

    def work() -> None:
        while not over.wait(0.1 if scale() == 1 else 0.03):
            keep(server, uuid4().hex, ledger)

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(work) for _ in range(8)]
        try:
            yield ledger
        finally:
            over.set()
    for client in clients:
        client.result()


def keep(server: Server, text: str, ledger: Ledger) -> None:
    """Send a sample and record its outcome."""
    body = json.dumps({"text": text})
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.connect()
        port = connection.sock.getsockname()[1]
        try:
            connection.request("POST", "/samples", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, HTTPException):
            ledger.unknown[text] = port
        else:
            assert answer.status in {201, 503}, server.log
            if answer.status == 201:
                ledger.acknowledged.append(text)
            else:
                ledger.refused[text] = port


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_killed_worker_loses_no_acknowledged_sample(kind: Kind, start: Start, project: Project) -> None:
    """A killed worker loses only its own requests and no acknowledged sample."""
    project.provoke("kills")
    server = start(kind, WEB_CONCURRENCY="2")
    killed: set[int] = set()
    lost: set[int] = set()

    with eight_clients(server) as ledger:
        while len(killed) < scaled(2) or not ledger.unknown:
            # Both serve, including the replacement of the last killed one.
            wait_until(lambda: len(workers(project) - killed) == 2, "the worker is replaced")
            victim = random.choice(sorted(workers(project) - killed))  # noqa: S311
            lost |= wait_until(lambda: stop_at_work(victim, server), "it is at work")  # noqa: B023
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)

    assert_only_these_were_lost(lost, ledger, server)


# A stopped worker runs no signal handler.
STOPPED = [
    pytest.param(False, id="hanging"),
    pytest.param(True, id="stopped", marks=pytest.mark.thorough),
]


@pytest.mark.parametrize("stopped", STOPPED)
@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_hanging_worker_is_replaced_and_rolled_back(
    kind: Kind, stopped: bool, start: Start, project: Project
) -> None:
    """A hanging worker is replaced, its transaction is rolled back, and others lose nothing."""
    project.provoke("kills")
    if kind is UWSGI:
        project.replace("uwsgi.ini", "harakiri = 60", "harakiri = 3")
    else:
        project.append("gunicorn.conf.py", "\ntimeout = graceful_timeout = 3\n")
    # On SQLite all writers wait for the hanging one. They must not count as hanging.
    project.replace(f"{PACKAGE}/foundation/database/engine.py", '{"timeout": 5}', '{"timeout": 1}')
    # uWSGI's threads share a deadline, which each finished request clears; a stopped thread does not set it
    # again.
    server = start(kind, WEB_CONCURRENCY="2", **({"WEB_THREADS": "1"} if stopped else {}))
    sample = server.post("/samples", {"text": "as it was"})
    path = sample.headers["Location"]
    lost: set[int] = set()

    with eight_clients(server) as ledger, ThreadPoolExecutor() as pool:
        hanging = pool.submit(server.post, path.replace("samples", "hang"), {})
        (victim,) = wait_until(lambda: workers(project, "hanging"), "a worker hangs")
        if stopped:
            os.kill(victim, signal.SIGSTOP)
        wait_until(lambda: is_gone(victim, lost, server), "the server kills it")
        wait_until(lambda: len(workers(project) - {victim}) == 2, "the worker is replaced")

    assert hanging.exception() or hanging.result().status == 500
    assert server.get(path).json["text"] == "as it was"
    changed = server.patch(path, {"text": "changed"}, sample.headers["ETag"])
    assert changed.status == 200, "its row is still locked"
    ledger.acknowledged.append("changed")
    assert_only_these_were_lost(lost, ledger, server)


# A waiting sync worker counts as hanging, and gunicorn's pywsgi worker counts no requests.
RECYCLED = [kind for kind in WITH_WORKERS if kind.name.endswith(("gthread", "patient", "gevent", "uwsgi"))]


@pytest.mark.parametrize(
    "kind",
    [*RECYCLED[:1], *(pytest.param(kind, marks=pytest.mark.thorough) for kind in RECYCLED[1:])],
    ids=str,
)
def test_an_endless_request_ends_with_its_recycled_worker(kind: Kind, start: Start, project: Project) -> None:
    """A request that never ends delays no other request, and ends with its recycled worker."""
    project.provoke("kills")
    project.recycle(kind, scaled(100))
    if kind is UWSGI:
        project.replace("uwsgi.ini", "worker-reload-mercy = 25", "worker-reload-mercy = 3")
    else:
        project.append("gunicorn.conf.py", "timeout = graceful_timeout = 3\n")
    server = start(kind, WEB_CONCURRENCY="2")

    with eight_clients(server) as ledger, ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.post, "/wait", {})
        (worker,) = wait_until(lambda: workers(project, "waiting"), "a request waits")
        wait_until(lambda: is_gone(worker, set(), server), "its worker ends")
        served = len(ledger.acknowledged)
        wait_until(lambda: len(ledger.acknowledged) > served + 8, "the others serve")

    assert waiting.exception()
    assert_only_these_were_lost(set(), ledger, server)


@pytest.mark.parametrize("kind", [kind for kind in WITH_WORKERS if kind is UWSGI], ids=str)
def test_a_uwsgi_worker_whose_threads_all_wait_is_replaced(
    kind: Kind, start: Start, project: Project
) -> None:
    """A uWSGI worker is replaced when all of its threads wait."""
    project.provoke("kills")
    project.replace("uwsgi.ini", "harakiri = 60", "harakiri = 2")
    server = start(kind)

    with ThreadPoolExecutor() as pool:
        path = "/wait?" + "x" * 9000
        waiting = [pool.submit(server.post, path, {}) for _ in range(4)]

    assert all(isinstance(request.exception(), ConnectionError) for request in waiting)
    assert server.get("/livez").status == 200
    assert "HARAKIRI ON WORKER" in server.log
    # uWSGI's log lines about these requests include their paths, and longer lines would interleave in a pipe.
    assert max(len(line.encode()) for line in server.log.splitlines()) < 4096


def assert_only_these_were_lost(ports: set[int], ledger: Ledger, server: Server) -> None:
    """Check the table against the ledger: only clients at these ports may lack a 201."""
    url = make_url(server.environment["DATABASE_URL"])
    with create_engine(url, poolclass=NullPool).connect() as connection:
        stored = Counter(connection.scalars(text("SELECT text FROM foundation_samples")))
    assert set(ledger.acknowledged) <= stored.keys(), "an acknowledged sample is lost"
    assert set(stored.values()) == {1}, "a sample is stored twice"
    assert stored.keys() <= {*ledger.acknowledged, *ledger.unknown}, "what was refused or undone is there"
    assert set(ledger.unknown.values()) <= ports, "another worker's request is lost"
    if url.get_backend_name() == "postgresql":  # On SQLite a writer blocks all others.
        assert set(ledger.refused.values()) <= ports, "another worker's request is refused"
        wait_until(lambda: not idle_transactions(url), "no transaction is left open")


def idle_transactions(url: URL) -> int:
    """Return the number of idle transactions."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND state LIKE 'idle in %'"
        count: int = connection.scalar(text(idle), {"name": url.database}) or 0
        return count


def workers(project: Project, folder: str = "workers") -> set[int]:
    """Return the processes that have responded, or those recorded in another folder, such as hanging ones."""
    return {int(file.name) for file in (project.folder / folder).glob("*")}


def stop_at_work(process: int, server: Server) -> set[int]:
    """Suspend a process; return the ports of its clients, or resume it if it has none."""
    os.kill(process, signal.SIGSTOP)
    wait_until(lambda: set(states(process)) == {"T"}, "each of its threads stands still")
    clients = clients_of(process, server)
    if not clients:
        os.kill(process, signal.SIGCONT)
    return clients


def is_gone(process: int, clients: set[int], server: Server) -> bool:
    """Return whether a process has exited, and collect the ports of its clients until then."""
    clients |= clients_of(process, server)
    return not Path(f"/proc/{process}").exists()


def states(process: int) -> Iterator[str]:
    """Return the state of each thread."""
    for file in Path(f"/proc/{process}/task").glob("*/stat"):
        yield file.read_text().rpartition(")")[2].split()[0]


def clients_of(process: int, server: Server) -> set[int]:
    """Return the ports of a process's clients."""
    sockets = set()
    with suppress(OSError):  # It has exited.
        for file in Path(f"/proc/{process}/fd").iterdir():
            with suppress(FileNotFoundError):
                sockets.add(str(file.readlink()))
    own = f":{server.port:04X} "  # The table has thousands of lines of closed connections.
    connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if own in line]
    return {
        int(remote.rpartition(":")[2], 16)
        for _, local, remote, *_, inode in (fields[:10] for fields in connections)
        if int(local.rpartition(":")[2], 16) == server.port and f"socket:[{inode}]" in sockets
    } - {0}  # The listening socket.
