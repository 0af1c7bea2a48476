"""Contestants on real servers: ours as shipped, the others with the same number of processes and threads."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.processes import WebServer, free_port

from .project import CONTESTANTS, PACKAGE, Bench, Contestant, NotMeasured

SERVERS = ("gthread", "sync", "gevent", "uwsgi", "pywsgi")
PATIENCE = 60  # seconds until a server that has not answered is given up
THREADS = 4
TICKS = os.sysconf("SC_CLK_TCK")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


class Service(WebServer):
    """A contestant on a server."""

    contestant: Contestant

    def wait_for_first_200(self) -> float:
        """Return when a note can be read, in seconds of the monotonic clock."""
        path = self.contestant.path("read").format(id=1)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                reason = self.log.strip().splitlines() or ["no log"]
                raise NotMeasured(f"the server has ended: {reason[-1]}")
            try:
                if self.get(path).status == 200:
                    return time.monotonic()
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.002)
        raise NotMeasured(f"no 200 within {PATIENCE} seconds")

    def cpu(self) -> float:
        """Return the seconds of processor time of all processes that run (Linux)."""
        ticks = 0
        for process in self.processes():
            with suppress(OSError):  # A process that has ended since.
                stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                ticks += int(stat[11]) + int(stat[12])
        return ticks / TICKS


@contextmanager
def serve(
    bench: Bench,
    contestant: Contestant,
    server: str = "gthread",
    *,
    workers: int = 2,
    shipped: bool = True,
    wrapper: str = "",
    core: int | None = None,
) -> Iterator[Service]:
    """Start a contestant on a server, on one core if that is given, and kill it at the end.

    `shipped` starts ours with its own settings. A wrapper is a module that serves that of the contestant.
    """
    port = free_port()
    environment = bench.environment(contestant) | {"CONTESTANT": contestant.module}
    if contestant.name == "ours" and shipped:
        command, settings = our_command(bench, server, wrapper)
        folder = bench.project
        environment |= settings | {"WEB_BIND": f"127.0.0.1:{port}", "WEB_CONCURRENCY": str(workers)}
    else:
        command = plain_command(contestant, server, wrapper or contestant.module, port, workers)
        folder = CONTESTANTS
    if not Path(command[0]).exists():
        raise NotMeasured(f"{command[0]} is missing")
    log = bench.scratch / f"{contestant.name}-{port}.log"
    with pinned(core):
        service = Service(*command, cwd=folder, log=log, environment=environment, port=port)
    service.contestant = contestant
    with service:
        yield service
    log.unlink()


def our_command(bench: Bench, server: str, wrapper: str) -> tuple[list[str | Path], dict[str, str]]:
    """Return the command of the README for a server, and the settings that choose it."""
    settings = {"WEB_THREADS": str(THREADS)}
    if server == "uwsgi":
        return [bench.programs / "uwsgi", "uwsgi.ini"], settings
    if server == "pywsgi":
        return [bench.programs / "python", "-m", f"{PACKAGE}.foundation.serving.pywsgi"], settings
    wrapped = [f"{wrapper}:app"] if wrapper else []
    return [bench.programs / "gunicorn", *wrapped], settings | {"WEB_WORKER_CLASS": server}


def plain_command(
    contestant: Contestant, server: str, module: str, port: int, workers: int
) -> list[str | Path]:
    """Return the usual command of a server."""
    programs, address = contestant.python.parent, f"127.0.0.1:{port}"
    if server == "pywsgi":
        return [contestant.python, CONTESTANTS / "pywsgi.py", module, str(port)]
    if server == "uwsgi":
        options = f"--http-socket {address} --master --need-app --single-interpreter --lazy-apps"
        options += f" --processes {workers} --threads {THREADS} --enable-threads --py-call-uwsgi-fork-hooks"
        options += " --disable-logging --buffer-size 65535 --die-on-term"
        return [programs / "uwsgi", *options.split(), "--module", f"{module}:app"]
    options = (
        f"--bind {address} --workers {workers} --worker-class {server} --keep-alive 75 --no-control-socket"
    )
    if server == "gthread":
        options += f" --threads {THREADS}"
    if SHARED_MEMORY.exists():
        options += f" --worker-tmp-dir {SHARED_MEMORY}"
    # gevent has to patch before psycopg is imported, which preload would do in the master.
    preload = [] if server == "gevent" else ["--preload"]
    return [programs / "gunicorn", *options.split(), *preload, f"{module}:app"]


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Restrict processes started in a block to one core."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
