"""Metrics cover all processes together, and no client of the service sees them.

Each process counts separately. Without aggregation each worker returns its own numbers, which are lost when
it exits.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ..fixtures import SECRET
from ..servers import (
    FLASK,
    GUNICORN,
    KINDS,
    PACKAGE,
    PATIENCE,
    UWSGI,
    WITH_WORKERS,
    Kind,
    Project,
    Server,
    free_port,
    wait_until,
)
from .conftest import Start

MEASURED = [kind for kind in KINDS if kind is not FLASK]
LOADED = [
    *(pytest.param(kind, {}, id=str(kind)) for kind in MEASURED),
    *(pytest.param(kind, {"WEB_PRELOAD": "1"}, id=f"{kind}-preload") for kind in GUNICORN),
]


def scrape(port: int) -> dict[str, float]:
    """Return every value by its name and labels."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


ANSWERED = 'http_request_duration_seconds_count{method="GET",route="/samples",status="200"}'


@pytest.mark.parametrize("kind", GUNICORN, ids=str)
def test_a_client_of_a_socket_file_gets_no_metrics(
    kind: Kind, launch: Start, project: Project, database_url: str
) -> None:
    """A client of a unix socket gets no metrics, even if its Host names the metrics port."""
    port, path = free_port(), project.folder / "web.sock"
    settings = {"DATABASE_URL": database_url, "SECRET_KEY": SECRET, "METRICS_BIND": f"127.0.0.1:{port}"}

    launch(replace(kind, settings={**kind.settings, "WEB_BIND": f"unix:{path}"}), **settings)

    def is_listening() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    wait_until(is_listening, "the socket file accepts connections")

    request = f"GET /metrics HTTP/1.1\r\nHost: x:{port}\r\n\r\n".encode()
    assert status_of(socket.AF_UNIX, str(path), request) == b"404"
    assert status_of(socket.AF_INET, ("127.0.0.1", port), request) == b"200"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is UWSGI], ids=str)
def test_a_proxy_that_names_the_port_of_the_metrics_gets_none(
    kind: Kind, launch: Start, database_url: str
) -> None:
    """A request through uwsgi_pass gets no metrics, even if the proxy sends the metrics port."""
    port = free_port()
    settings = {"DATABASE_URL": database_url, "SECRET_KEY": SECRET, "METRICS_BIND": f"127.0.0.1:{port}"}
    server = launch(kind, WEB_PROTOCOL="uwsgi", **settings)
    wait_until(lambda: "WSGI app 0" in server.log, "the worker is ready")

    names = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "SERVER_PORT": str(port), "HTTP_HOST": "x"}
    names |= {
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_URI": "/metrics",
        "QUERY_STRING": "",
        "SERVER_NAME": "x",
    }
    block = b"".join(struct.pack("<H", len(text)) + text.encode() for pair in names.items() for text in pair)
    request = struct.pack("<BHB", 0, len(block), 0) + block
    assert status_of(socket.AF_INET, ("127.0.0.1", server.port), request) == b"404"


def status_of(family: int, address: object, request: bytes) -> bytes:
    """Send raw bytes on a new connection, and return the status of the response."""
    with socket.socket(family) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(address)  # type: ignore[arg-type]
        connection.sendall(request)
        return connection.recv(12).split()[1]


@pytest.mark.parametrize("kind", MEASURED, ids=str)
def test_a_request_counts_once_and_only_its_port_serves_metrics(
    kind: Kind, start: Start, project: Project
) -> None:
    """All workers count together, and neither port serves the other's paths."""
    project.provoke("counted")
    port = free_port()
    server = start(kind, METRICS_BIND=f"127.0.0.1:{port}", UNCOMMITTED_WORK="log", WEB_CONCURRENCY="2")
    for _ in range(6):
        assert server.get("/counted").status == 200
    for _ in range(40):
        assert server.get("/samples?limit=1").status == 200
    server.get("/nowhere")

    expected = {
        ANSWERED: 40,
        ANSWERED.replace("/samples", "none").replace("200", "404"): 1,
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
        connection.request("GET", "/samples")
        assert connection.getresponse().status == 404


@pytest.mark.parametrize(("kind", "settings"), LOADED)
def test_a_metric_of_a_feature_is_served_and_kept(
    kind: Kind, settings: dict[str, str], start: Start, project: Project
) -> None:
    """A feature's metrics use the same files as the service's, which later workers reuse."""
    project.provoke("counted")
    project.append(f"{PACKAGE}/samples.py", "\nfrom .provocations import counted  # noqa\n")
    project.recycle(kind, 2) if kind in WITH_WORKERS else None
    port = free_port()
    server = start(kind, METRICS_BIND=f"127.0.0.1:{port}", UNCOMMITTED_WORK="off", **settings)

    for _ in range(6):
        wait_until(lambda: server.get("/counted").status == 200, "a worker answers")

    wait_until(lambda: scrape(port).get("asked_total") == 6, "all are counted")
    slots = {file.stem.rpartition("_")[2] for file in project.folder.glob("metrics-*/*.db")}
    assert slots <= set("0123"), "more files than processes at one time"


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_killed_worker_leaves_its_counts(kind: Kind, start: Start, project: Project) -> None:
    """The counts of a killed worker are kept, and its pool gauges are replaced by the next worker's."""
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
    assert scrape(port)["db_pool_size"] == size > 0


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_killed_worker_takes_its_gauges_with_it(kind: Kind, start: Start, project: Project) -> None:
    """After a kill no scrape counts the worker's requests or connections, even before its replacement."""
    project.provoke("held")
    port = free_port()
    server = start(kind, METRICS_BIND=f"127.0.0.1:{port}", WEB_CONCURRENCY="2")
    gauges = ("http_requests_in_flight", "db_pool_used")

    with ThreadPoolExecutor() as pool:
        held = pool.submit(server.get, "/held")
        (file,) = wait_until(lambda: list(project.folder.glob("held-*")), "a request holds a connection")
        wait_until(lambda: server.get("/pid").body.decode() != file.name[5:], "the other worker serves")
        wait_until(lambda: [scrape(port)[name] for name in gauges] == [1, 1], "both are counted")
        server.signal(signal.SIGSTOP)  # Its master cannot replace it.
        try:
            kill(server, int(file.name[5:]))
            after = scrape(port)
        finally:
            server.signal(signal.SIGCONT)
        assert held.exception()

    assert [after[name] for name in gauges] == [0, 0]


def kill(server: Server, worker: int) -> None:
    """Kill a worker whose master is suspended, and wait until its last thread has closed its files."""
    os.kill(worker, signal.SIGKILL)
    threads = Path("/proc", str(worker), "task")
    wait_until(lambda: worker not in server.processes() and len(list(threads.iterdir())) == 1, "it has ended")


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_the_folder_is_removed_and_no_other_one_is(
    kind: Kind, start: Start, project: Project, tmp_path: Path
) -> None:
    """A server locks the folder that it creates, removes it at exit, and keeps an operator's folder."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "not ours").touch()
    given = {"METRICS_BIND": f"127.0.0.1:{free_port()}", "PROMETHEUS_MULTIPROC_DIR": str(own)}
    server = start(kind, **given)
    server.get("/samples")
    wait_until(lambda: list(project.folder.glob("metrics-*/*")), "the request is counted")
    (folder,) = project.folder.glob("metrics-*")
    with pytest.raises(BlockingIOError):  # So that systemd-tmpfiles does not remove it.
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)

    server.signal(signal.SIGTERM)

    assert server.wait() == 0
    assert not list(project.folder.glob("metrics-*"))
    assert [file.name for file in own.iterdir()] == ["not ours"]
