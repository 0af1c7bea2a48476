"""A stopped server answers the requests in flight and exits with 0.

By default uWSGI restarts on SIGTERM, and with die-on-term it drops the requests in flight.
"""

from __future__ import annotations

import http.client
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..fixtures import SECRET
from ..servers import GTHREAD, GUNICORN, KINDS, PACKAGE, PATIENCE, UWSGI, Kind, Project, wait_until
from .conftest import Start

LOADING = "\nimport pathlib, time\npathlib.Path('loading').touch()\ntime.sleep(600)\n"
FORKED = """
import itertools
forks = itertools.count()
os.register_at_fork(
    after_in_parent=lambda: next(forks) == 0 and os.kill(os.getpid(), signal.SIGTERM)
)
"""
# gunicorn's thread worker keeps its connections open for a moment; the others close them.
KEEPING = [kind for kind in KINDS if kind.needs == "gevent" or "gevent" in kind.name]


def test_sigterm_answers_the_request_in_flight_and_ends_with_0(
    kind: Kind, start: Start, project: Project
) -> None:
    """On SIGTERM a server stops listening, answers the request in flight and exits with 0."""
    project.provoke("slow_view")
    server = start(kind, WEB_CONCURRENCY="2")

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(server.get, "/slow")
        wait_until((project.folder / "begun").exists, "the request is in flight")
        server.signal(signal.SIGTERM)
        (project.folder / "end").touch()

        assert answer.result().body == b"answered", server.log
    assert server.wait() == 0, server.log
    assert not server.is_listening()


def test_sigterm_during_the_startup_ends_the_server(
    kind: Kind, launch: Start, project: Project, database_url: str
) -> None:
    """SIGTERM during the load of the service stops every process immediately: no request is in flight."""
    project.append(f"{PACKAGE}/wsgi.py", LOADING)
    server = launch(kind, DATABASE_URL=database_url, SECRET_KEY=SECRET)
    wait_until((project.folder / "loading").exists, "the service is loaded")

    server.signal(signal.SIGTERM)

    assert server.wait() == -signal.SIGTERM, server.log
    wait_until(lambda: not server.is_running(), "every process has ended")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is UWSGI], ids=str)
def test_sigterm_while_the_workers_are_forked_ends_all(
    kind: Kind, launch: Start, project: Project, database_url: str
) -> None:
    """SIGTERM after the first fork of uWSGI's master stops it, and leaves no worker."""
    project.append(f"{PACKAGE}/foundation/serving/uwsgi.py", FORKED)

    server = launch(kind, DATABASE_URL=database_url, SECRET_KEY=SECRET, WEB_CONCURRENCY="4")

    assert server.wait() == -signal.SIGTERM, server.log
    wait_until(lambda: not server.is_running(), "every process has ended")


@pytest.mark.parametrize("kind", KEEPING, ids=str)
def test_a_stop_answers_and_closes_a_kept_connection(kind: Kind, start: Start, project: Project) -> None:
    """During a stop a request on a keep-alive connection is answered, and the connection is closed."""
    project.provoke("slow_view")
    server = start(kind)
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    kept.request("GET", "/livez")
    assert kept.getresponse().read()

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(server.get, "/slow")
        wait_until((project.folder / "begun").exists, "a request is in flight")
        server.signal(signal.SIGTERM)
        wait_until(lambda: not server.is_listening(), "the server accepts no new connection")
        kept.request("GET", "/livez")
        last = kept.getresponse()
        (project.folder / "end").touch()

        assert (last.status, last.headers["Connection"]) == (200, "close"), server.log
        assert answer.result().body == b"answered"
    kept.close()
    assert server.wait() == 0, server.log


def test_ctrl_c_ends_an_idle_server_with_0(kind: Kind, start: Start) -> None:
    """On Ctrl-C an idle server exits with 0 and without a traceback."""
    server = start(kind, WEB_CONCURRENCY="2")

    server.signal(signal.SIGINT)

    assert server.wait() == 0, server.log
    assert "Traceback" not in server.log


AGAIN = "\nimport atexit, os, signal\natexit.register(lambda: os.kill(os.getpid(), signal.SIGQUIT))\n"


@pytest.mark.parametrize("kind", GUNICORN, ids=str)
def test_a_signal_that_comes_while_a_worker_ends_is_ignored(
    kind: Kind, start: Start, project: Project
) -> None:
    """A signal during a worker's exit causes no traceback."""
    project.append(f"{PACKAGE}/wsgi.py", AGAIN)
    server = start(kind)

    server.signal(signal.SIGINT)

    assert server.wait() == 0, server.log
    assert "Worker exiting" in server.log
    assert "Traceback" not in server.log


# The step of gunicorn's thread worker for each connection, interrupted while it holds the pool's lock: once
# by the terminal and once by the master.
TAKE = """
import concurrent.futures, os, pathlib, signal, threading
take = concurrent.futures.ThreadPoolExecutor.submit

def interrupted(pool, *work):
    if pathlib.Path("now").exists() and threading.current_thread() is threading.main_thread():
        with pool._shutdown_lock:
            os.kill(os.getppid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
    return take(pool, *work)

concurrent.futures.ThreadPoolExecutor.submit = interrupted
"""


@pytest.mark.parametrize("kind", GTHREAD, ids=str)
def test_ctrl_c_while_a_worker_takes_a_connection_ends_it(kind: Kind, start: Start, project: Project) -> None:
    """Ctrl-C while a worker accepts a connection stops it without a kill and without a traceback."""
    project.append(f"{PACKAGE}/wsgi.py", TAKE)
    server = start(kind)

    (project.folder / "now").touch()
    with pytest.raises((OSError, http.client.HTTPException)):
        server.get("/livez")

    assert server.wait() == 0, server.log
    assert "Worker exiting" in server.log, "it was killed"
    assert "Traceback" not in server.log


# The hooks in gunicorn.conf.py block all three.
SIGNALS = [
    pytest.param(signal.SIGTERM, id="SIGTERM"),
    pytest.param(signal.SIGQUIT, id="SIGQUIT", marks=pytest.mark.thorough),
    pytest.param(signal.SIGINT, id="SIGINT", marks=pytest.mark.thorough),
]
# The first worker gets a stop signal between its fork and its first log line.
SIGNALLED = """
class logger_class(_foundation.Logger):
    def info(self, message, *args, **more):
        if message.startswith("Booting worker"):
            with contextlib.suppress(FileExistsError):
                pathlib.Path("signalled").symlink_to(str(os.getpid()))
                os.kill(os.getpid(), {number})
        super().info(message, *args, **more)
"""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("kind", GUNICORN, ids=str)
def test_a_worker_that_is_signalled_as_it_is_forked_ends(
    kind: Kind, number: signal.Signals, start: Start, project: Project
) -> None:
    """A worker that gets a stop signal directly after its fork exits, and its server exits with 0."""
    project.append("gunicorn.conf.py", "import contextlib, pathlib" + SIGNALLED.format(number=int(number)))
    server = start(kind, WEB_CONCURRENCY="2")

    signalled = int(str((project.folder / "signalled").readlink()))

    wait_until(lambda: signalled not in server.processes(), "the worker has ended")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log
    assert "Traceback" not in server.log
