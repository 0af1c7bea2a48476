"""A server that is told to stop answers what it has begun, and ends with 0.

uWSGI restarts on SIGTERM as it comes, and drops the requests in flight with die-on-term.
"""

from __future__ import annotations

import http.client
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import Start
from .harness import GUNICORN, KINDS, PACKAGE, PATIENCE, SCALE, Kind, Project, wait_until

# gunicorn's thread worker keeps its own connections for a moment, and the others know none that is kept.
KEEPING = [kind for kind in KINDS if kind.needs == "gevent" or "gevent" in kind.name]


def test_sigterm_answers_the_request_in_flight_and_ends_with_0(
    kind: Kind, start: Start, project: Project
) -> None:
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


@pytest.mark.parametrize("kind", KEEPING, ids=str)
def test_a_request_on_a_kept_connection_is_answered_and_the_connection_closed(
    kind: Kind, start: Start, project: Project
) -> None:
    project.provoke("slow_view")
    server = start(kind)
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    kept.request("GET", "/livez")
    assert kept.getresponse().read()

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(server.get, "/slow")
        wait_until((project.folder / "begun").exists, "a request is in flight")
        server.signal(signal.SIGTERM)
        wait_until(lambda: not server.is_listening(), "the server takes no new connection")
        kept.request("GET", "/livez")
        last = kept.getresponse()
        (project.folder / "end").touch()

        assert (last.status, last.headers["Connection"]) == (200, "close"), server.log
        assert answer.result().body == b"answered"
    kept.close()
    assert server.wait() == 0, server.log


def test_ctrl_c_ends_an_idle_server_with_0(kind: Kind, start: Start) -> None:
    server = start(kind, WEB_CONCURRENCY="2")

    server.signal(signal.SIGINT)

    assert server.wait() == 0, server.log
    assert "Traceback" not in server.log


AGAIN = "\nimport atexit, os, signal\natexit.register(lambda: os.kill(os.getpid(), signal.SIGQUIT))\n"


@pytest.mark.parametrize("kind", GUNICORN, ids=str)
def test_a_signal_that_comes_while_a_worker_ends_is_no_traceback(
    kind: Kind, start: Start, project: Project
) -> None:
    project.append(f"{PACKAGE}/wsgi.py", AGAIN)
    server = start(kind)

    server.signal(signal.SIGINT)

    assert server.wait() == 0, server.log
    assert "Worker exiting" in server.log
    assert "Traceback" not in server.log


# What gunicorn's thread worker does for each connection, interrupted while it holds the pool's lock: once
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


@pytest.mark.parametrize("kind", GUNICORN[:1], ids=str)
def test_ctrl_c_while_a_worker_takes_a_connection_ends_it(kind: Kind, start: Start, project: Project) -> None:
    project.append(f"{PACKAGE}/wsgi.py", TAKE)
    server = start(kind)

    (project.folder / "now").touch()
    with pytest.raises((OSError, http.client.HTTPException)):
        server.get("/livez")

    assert server.wait() == 0, server.log
    assert "Worker exiting" in server.log, "it was killed"
    assert "Traceback" not in server.log


# The three are held back together, so that `make prove` alone sends each.
SIGNALS = [signal.SIGTERM, *([signal.SIGQUIT, signal.SIGINT] if SCALE > 1 else [])]
# The first worker is told to end between its fork and its first line of the log.
TOLD_TO_END = """
class logger_class(_Logger):
    def info(self, message, *args, **more):
        if message.startswith("Booting worker"):
            with contextlib.suppress(FileExistsError):
                pathlib.Path("told").symlink_to(str(os.getpid()))
                os.kill(os.getpid(), {number})
        super().info(message, *args, **more)
"""


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("kind", GUNICORN, ids=str)
def test_a_worker_that_is_told_to_end_as_it_is_forked_ends(
    kind: Kind, number: signal.Signals, start: Start, project: Project
) -> None:
    project.append("gunicorn.conf.py", "import contextlib, pathlib" + TOLD_TO_END.format(number=int(number)))
    server = start(kind, WEB_CONCURRENCY="2")

    told = int(str((project.folder / "told").readlink()))

    wait_until(lambda: told not in server.processes(), "the worker has ended")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log
    assert "Traceback" not in server.log
