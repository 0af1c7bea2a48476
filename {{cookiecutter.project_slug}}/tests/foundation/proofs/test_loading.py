"""A model is loaded after the fork, once in each worker, before the worker is ready.

A model that was used before the fork hangs in the worker: its threads exist only in the parent.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from {{cookiecutter.package_name}}.foundation.serving.preflight import cpus

from ..fixtures import SECRET
from ..servers import PACKAGE, WITH_WORKERS, Kind, Project, wait_until
from .conftest import Start

WORKERS = 2


@pytest.fixture
def folder(project: Project) -> Path:
    """The folder of a project whose features define the model."""
    project.append(f"{PACKAGE}/app.py", "\nfrom .provocations import heavy  # noqa: E402, F401\n")
    project.provoke("heavy")
    return project.folder


def begun(folder: Path) -> list[str]:
    """Return the processes that have started to load the model."""
    file = folder / "begun"
    return file.read_text().split() if file.exists() else []


def test_every_worker_loads_the_model_before_it_is_ready(kind: Kind, start: Start, folder: Path) -> None:
    """Each worker loads its own model once, is alive during the load, and ready after it."""
    workers = WORKERS if kind in WITH_WORKERS else 1
    server = start(kind, WEB_CONCURRENCY=str(workers))
    wait_until(lambda: len(begun(folder)) == workers, "every worker loads the model")

    probe = server.get("/readyz")
    assert (probe.status, probe.json["missing"]) == (503, ["heavy_model"])
    assert server.get("/livez").status == 200
    (folder / "may-end").touch()
    wait_until(lambda: server.get("/readyz").status == 200, "the server is ready")

    answers = [server.get("/heavy").json for _ in range(20)]
    assert all(answer["worker"] == answer["loaded_in"] for answer in answers), answers
    assert len(begun(folder)) == len(set(begun(folder))) == workers
    if kind in WITH_WORKERS:
        assert {answer["threads"] for answer in answers} == {str(max(1, cpus() // workers))}


def test_a_use_before_the_fork_is_refused(kind: Kind, launch: Start, project: Project, folder: Path) -> None:
    """A service that uses the model while it is built does not start, and the log names the model."""
    project.append(f"{PACKAGE}/app.py", "heavy.heavy_model()\n")

    server = launch(kind, DATABASE_URL="sqlite:///app.db", SECRET_KEY=SECRET)

    assert server.wait() not in {0, 78}
    server.wait_for_log("heavy_model is used while the service is built")
    assert begun(folder) == []
