"""A server that is told to stop answers what it has begun, and ends with 0.

uWSGI restarts on SIGTERM as it comes, and drops the requests in flight with die-on-term.
"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

from .conftest import Start
from .harness import Kind, Project, wait_until


def test_sigterm_answers_the_request_in_flight_and_ends_with_0(
    kind: Kind, start: Start, project: Project
) -> None:
    project.provoke("slow_view")
    server = start(kind)

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(server.get, "/slow")
        wait_until((project.folder / "begun").exists, "the request is in flight")
        server.signal(signal.SIGTERM)
        (project.folder / "end").touch()

        assert answer.result().body == b"answered", server.log
    assert server.wait() == 0, server.log
    assert not server.is_listening()


def test_ctrl_c_ends_an_idle_server_with_0(kind: Kind, start: Start) -> None:
    server = start(kind)

    server.signal(signal.SIGINT)

    assert server.wait() == 0, server.log
    assert "Traceback" not in server.log
