"""Each error is reported once, with its request and without what a client sent.

What sends reports has a thread, which a fork leaves behind. Today's SDK starts another; it did not always.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

import pytest

from .collector import Collector, collecting
from .conftest import Start
from .harness import Kind, Project, Server, wait_until


@pytest.fixture
def collector() -> Iterator[Collector]:
    """What Sentry would be."""
    with collecting() as found:
        yield found


@pytest.fixture
def server(kind: Kind, start: Start, project: Project, collector: Collector) -> Server:
    """A service with views that raise."""
    project.provoke("raising_views")
    return start(kind, SENTRY_DSN=f"http://key@127.0.0.1:{collector.port}/1")


def reports(collector: Collector) -> list[dict[str, Any]]:
    """Return the reports of errors that have come."""
    found = []
    for _, body in [*collector.received]:
        lines = body.split(b"\n")
        for header, content in zip(lines[1::2], lines[2::2], strict=False):
            if json.loads(header).get("type") == "event":
                found.append(json.loads(content))
    return found


def test_each_bug_is_reported_once_with_its_request(server: Server, collector: Collector) -> None:
    ids = {server.get("/raise?token=hush").headers["X-Request-ID"] for _ in range(10)}

    wait_until(lambda: len(reports(collector)) >= 10, "each error is reported")
    found = reports(collector)
    assert sorted(report["tags"]["request_id"] for report in found) == sorted(ids)
    for report in found:
        (exception,) = report["exception"]["values"]
        assert (exception["type"], exception["value"]) == ("RuntimeError", "a bug in a view")
        assert report["request"] == {"method": "GET", "url": f"http://127.0.0.1:{server.port}/raise"}
    assert not any(b"hush" in body for _, body in collector.received)


def test_an_answer_that_breaks_off_is_reported(server: Server, collector: Collector) -> None:
    with pytest.raises((OSError, HTTPException)):
        server.get("/export")

    (report,) = wait_until(lambda: reports(collector), "the error is reported")
    assert "GET /export is broken off" in json.dumps(report["logentry"])


def test_reports_that_wait_are_sent_when_the_server_stops(server: Server, collector: Collector) -> None:
    server.get("/raise")

    server.signal(signal.SIGTERM)

    assert server.wait() == 0, server.log
    assert len(reports(collector)) == 1


def test_a_sentry_that_says_nothing_costs_no_request(kind: Kind, start: Start, project: Project) -> None:
    project.provoke("raising_views")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = start(kind, SENTRY_DSN=f"http://key@127.0.0.1:{silent.getsockname()[1]}/1")

        assert {server.get("/raise").status for _ in range(10)} == {500}
        assert server.get("/notes").status == 200

        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log
    assert "Sentry is attempting" not in server.log
