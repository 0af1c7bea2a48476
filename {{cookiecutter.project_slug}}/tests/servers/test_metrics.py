"""Numbers are those of all processes together, and nobody sees them who is not meant to.

Each process counts for itself: asked one after the other, a service with two workers answers with two
truths, and a worker that ends takes its numbers with it.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import Start
from .harness import FLASK, KINDS, PATIENCE, WITH_WORKERS, Kind, Project, free_port, wait_until

MEASURED = [kind for kind in KINDS if kind is not FLASK]


def scrape(port: int) -> dict[str, float]:
    """Return every number by its name and labels."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


ANSWERED = 'http_request_duration_seconds_count{method="GET",route="/notes",status="200"}'


@pytest.mark.parametrize("kind", MEASURED, ids=str)
def test_every_request_is_counted_once_and_only_the_own_port_tells(
    kind: Kind, start: Start, project: Project
) -> None:
    project.provoke("counted")
    port = free_port()
    server = start(kind, METRICS_BIND=f"127.0.0.1:{port}", UNCOMMITTED_WORK="log", WEB_CONCURRENCY="2")
    for _ in range(6):
        assert server.get("/counted").status == 200
    for _ in range(40):
        assert server.get("/notes?limit=1").status == 200
    server.get("/nowhere")

    expected = {
        ANSWERED: 40,
        ANSWERED.replace("/notes", "none").replace("200", "404"): 1,
        "http_requests_in_flight": 0,
        "db_pool_used": 0,
        "uncommitted_work_total": 6,
        "teardown_failures_total": 6,
        "asked_total": 6,
    }
    # A request is counted when its answer has been handed over.
    wait_until(lambda: expected.items() <= scrape(port).items(), f"all are counted: {scrape(port)}")
    assert server.get("/metrics").status == 404
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/notes")
        assert connection.getresponse().status == 404


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_worker_that_ends_leaves_its_counts_and_takes_its_present(
    kind: Kind, start: Start, project: Project
) -> None:
    project.provoke("versioned")
    port = free_port()
    server = start(kind, METRICS_BIND=f"127.0.0.1:{port}")
    counted = 'http_request_duration_seconds_count{method="GET",route="/version",status="200"}'
    worker = server.get("/version").json["process"]
    # A request is counted when its answer has been handed over.
    wait_until(lambda: scrape(port).get(counted) == 1, "the request is counted")
    size = scrape(port)["db_pool_size"]

    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: server.get("/version").json["process"] != worker, "the worker is replaced")

    wait_until(lambda: scrape(port)[counted] >= 2, "what was counted stays")
    assert scrape(port)["db_pool_size"] == size


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_no_file_is_left_behind_and_nobody_elses_is_removed(
    kind: Kind, start: Start, project: Project, tmp_path: Path
) -> None:
    (tmp_path / "not ours").touch()
    given = {"METRICS_BIND": f"127.0.0.1:{free_port()}", "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    server = start(kind, **given)
    server.get("/notes")
    wait_until(lambda: list(project.folder.glob("metrics-*/*")), "the request is counted")
    (folder,) = project.folder.glob("metrics-*")
    with pytest.raises(BlockingIOError):  # Then systemd-tmpfiles leaves it alone.
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)

    server.signal(signal.SIGTERM)

    assert server.wait() == 0
    assert not list(project.folder.glob("metrics-*"))
    assert (tmp_path / "not ours").exists()
