"""Each error is reported once, with its request but without client data.

The SDK has a thread, which does not survive a fork. Current SDKs start another one; older ones did not.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

import pytest

from ..servers import Kind, Project, Server, wait_until
from .collector import Collector, collecting
from .conftest import Start


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A receiver instead of Sentry."""
    with collecting() as found:
        yield found


@pytest.fixture
def server(kind: Kind, start: Start, project: Project, collector: Collector) -> Server:
    """A service with views that raise."""
    project.provoke("raising_views")
    return start(kind, SENTRY_DSN=f"http://key@127.0.0.1:{collector.port}/1")


def reports(collector: Collector) -> list[dict[str, Any]]:
    """Return the received error reports."""
    found = []
    for _, body in [*collector.received]:
        lines = body.split(b"\n")
        for header, content in zip(lines[1::2], lines[2::2], strict=False):
            if json.loads(header).get("type") == "event":
                found.append(json.loads(content))
    return found


def test_a_bug_is_reported_once_with_its_request(server: Server, collector: Collector) -> None:
    """Each error of a view is one report with the id, method and path of its request, without the query."""
    ids = {server.get("/raise?token=hush").headers["X-Request-ID"] for _ in range(10)}

    wait_until(lambda: len(reports(collector)) >= 10, "each error is reported")
    found = reports(collector)
    assert sorted(report["tags"]["request_id"] for report in found) == sorted(ids)
    for report in found:
        (exception,) = report["exception"]["values"]
        assert (exception["type"], exception["value"]) == ("RuntimeError", "a bug in a view")
        assert report["request"] == {"method": "GET", "url": f"http://127.0.0.1:{server.port}/raise"}
    assert not any(b"hush" in body for _, body in collector.received)


def test_a_broken_stream_is_reported(server: Server, collector: Collector) -> None:
    """An error in the middle of a response is reported."""
    with pytest.raises((OSError, HTTPException)):
        server.get("/export")

    (report,) = wait_until(lambda: reports(collector), "the error is reported")
    assert "GET /export is broken off" in json.dumps(report["logentry"])


def test_waiting_reports_are_sent_at_shutdown(server: Server, collector: Collector) -> None:
    """A stopping server sends its pending reports."""
    server.get("/raise")

    server.signal(signal.SIGTERM)

    assert server.wait() == 0, server.log
    assert len(reports(collector)) == 1


def test_a_silent_sentry_costs_no_request(kind: Kind, start: Start, project: Project) -> None:
    """A Sentry that accepts connections and never answers fails no request and no shutdown."""
    project.provoke("raising_views")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = start(kind, SENTRY_DSN=f"http://key@127.0.0.1:{silent.getsockname()[1]}/1")

        assert {server.get("/raise").status for _ in range(10)} == {500}
        assert server.get("/samples").status == 200

        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log
    assert "Sentry is attempting" not in server.log
