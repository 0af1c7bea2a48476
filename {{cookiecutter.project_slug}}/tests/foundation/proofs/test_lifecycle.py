"""A server starts, answers, reloads without losing a request, and stops with 0.

`make check` runs these few tests on every server; the other modules prove the absence of each failure in
detail.
"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..servers import PACKAGE, WITH_WORKERS, Kind, Project, wait_until
from .conftest import Start

pytestmark = pytest.mark.every_server


def test_a_server_starts_answers_and_stops(kind: Kind, start: Start, project: Project) -> None:
    """A server starts, stores a sample, answers the request in flight at shutdown, and exits with 0."""
    project.provoke("slow_view")
    server = start(kind)
    assert server.post("/samples", {"text": "kept"}).status == 201
    assert server.texts() == ["kept"]

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(server.get, "/slow")
        wait_until((project.folder / "begun").exists, "the request is in flight")
        server.signal(signal.SIGTERM)
        (project.folder / "end").touch()

        assert answer.result().body == b"answered", server.log
    assert server.wait() == 0, server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_reload_answers_the_request_in_flight(kind: Kind, start: Start, project: Project) -> None:
    """A reload answers the request in flight with the old code and later ones with the new code."""
    project.provoke("slow_view")
    project.provoke("versioned")
    server = start(kind)

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(server.get, "/slow")
        wait_until((project.folder / "begun").exists, "the request is in flight")
        project.replace(f"{PACKAGE}/provocations/versioned.py", "the old code", "the new code")
        server.reload()
        (project.folder / "end").touch()

        assert answer.result().body == b"answered", server.log
    wait_until(lambda: server.get("/version").json["version"] == "the new code", "the new code answers")
    assert "Traceback" not in server.log
