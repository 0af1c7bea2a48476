"""The image's health check fails when the service fails or does not respond.

A check that only tests whether the port is open, or that accepts every status, reports a service as healthy
even if it answers every request with 500.
"""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from ..databases import PROJECT
from ..fixtures import SECRET
from ..processes import run
from ..servers import KINDS, PACKAGE, Kind, Project, free_port, serving, wait_until
from .conftest import Start

FAILING = """
import pathlib

@app.before_request
def fail():
    return "no", int(pathlib.Path("status").read_text())
"""


def check(port: int, *, status: int) -> None:
    """Run the program of the image's HEALTHCHECK against a port, and check its exit code."""
    found = re.search(
        r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert found
    program = [word.replace("8000", str(port)) for word in json.loads(found[1])]
    run(*program, cwd=PROJECT, status=status)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """Settings with a missing database, which the check does not need."""
    return {"DATABASE_URL": f"sqlite:///{tmp_path}/none.db", "SECRET_KEY": SECRET}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_service_that_answers_is_healthy(kind: Kind, project: Project, settings: dict[str, str]) -> None:
    """A responding service is healthy."""
    with serving(project, kind, settings) as server:
        check(server.port, status=0)


def test_a_service_that_answers_another_status_is_unhealthy(
    project: Project, settings: dict[str, str], launch: Start
) -> None:
    """A service that responds with a status other than 200 is unhealthy."""
    project.append(f"{PACKAGE}/wsgi.py", FAILING)
    server = launch(KINDS[0], **settings)
    wait_until(server.is_listening, "it listens")

    for status in 404, 500, 503, 302:
        (project.folder / "status").write_text(str(status))
        assert server.get("/livez").status == status
        check(server.port, status=1)


def test_a_closed_port_is_unhealthy() -> None:
    """A service that does not listen is unhealthy."""
    check(free_port(), status=1)


def test_a_silent_service_is_unhealthy() -> None:
    """A service that accepts a connection and never answers is unhealthy."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        check(silent.getsockname()[1], status=1)
