"""The image's health check fails when the service fails, and when nobody answers.

A check that only looks whether the port is open, or that takes every answer for a good one, calls a
service healthy that answers 500 to everybody.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from ..conftest import SECRET
from ..databases import PROJECT
from .conftest import Start
from .harness import KINDS, PACKAGE, PATIENCE, Kind, Project, free_port, serving, wait_until

FAILING = """
import pathlib

@app.before_request
def fail():
    return "no", int(pathlib.Path("status").read_text())
"""


def check(port: int) -> int:
    """Run the program of the image's HEALTHCHECK against a port and return its status."""
    found = re.search(
        r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert found
    program = [word.replace("8000", str(port)) for word in json.loads(found[1])]
    return subprocess.run(program, timeout=PATIENCE, stderr=subprocess.DEVNULL, check=False).returncode


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """Settings with a database that is not there: the check does not ask for it."""
    return {"DATABASE_URL": f"sqlite:///{tmp_path}/none.db", "SECRET_KEY": SECRET}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_service_that_answers_is_healthy(kind: Kind, project: Project, settings: dict[str, str]) -> None:
    with serving(project, kind, settings) as server:
        assert check(server.port) == 0


def test_a_service_that_answers_something_else_is_not(
    project: Project, settings: dict[str, str], launch: Start
) -> None:
    project.append(f"{PACKAGE}/wsgi.py", FAILING)
    server = launch(KINDS[0], **settings)
    wait_until(server.is_listening, "it listens")

    for status in 404, 500, 503, 302:
        (project.folder / "status").write_text(str(status))
        assert server.get("/livez").status == status
        assert check(server.port) == 1


def test_a_service_that_is_not_there_is_not() -> None:
    assert check(free_port()) == 1


def test_a_service_that_says_nothing_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert check(silent.getsockname()[1]) == 1
