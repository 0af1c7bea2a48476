"""Each request is traced, whichever process answers it, and its span ends with its answer.

What sends spans has a thread, which a fork leaves behind. Today's SDK starts another one; it did not always.
A span that is ended by a teardown ends before a stream has begun.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from .collector import Collector, collecting
from .conftest import Start
from .harness import Kind, Project, wait_until


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of spans."""
    with collecting() as found:
        yield found


def settings(port: int, *, delay: int = 50) -> dict[str, str]:
    """Return the settings that send spans to a port; the delay is milliseconds."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": str(delay),
    }


def spans(collector: Collector) -> list[Any]:
    """Return the spans that have come."""
    return [
        span
        for path, body in [*collector.received]
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if path == "/v1/traces"
    ]


def requests(collector: Collector) -> list[Any]:
    """Return those spans that are about requests."""
    return [span for span in spans(collector) if span.kind == Span.SPAN_KIND_SERVER]


def attributes(span: Any) -> dict[str, Any]:
    """Return what a span tells."""
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def test_each_request_has_a_span_and_each_statement_one_below_it(
    kind: Kind, start: Start, collector: Collector
) -> None:
    server = start(kind, **settings(collector.port))

    ids = {server.get("/notes").headers["X-Request-ID"] for _ in range(40)}

    wait_until(lambda: len(requests(collector)) >= 40, "a span of each request has come")
    found = requests(collector)
    assert {attributes(span)["request.id"] for span in found} == ids
    told = {(span.name, attributes(span)["http.response.status_code"]) for span in found}
    assert told == {("GET /notes", 200)}
    statements = [span for span in spans(collector) if span.kind == Span.SPAN_KIND_CLIENT]
    selects = [span.parent_span_id for span in statements if span.name == "SELECT"]
    assert {span.span_id for span in found} <= {*selects}
    assert "Traceback" not in server.log


def test_no_query_string_is_told(kind: Kind, start: Start, collector: Collector) -> None:
    server = start(kind, **settings(collector.port))

    assert server.get("/nowhere?token=hush").status == 404

    (span,) = wait_until(lambda: requests(collector), "the span has come")
    assert span.name == "GET"
    assert not any(b"hush" in body for _, body in collector.received)


def test_a_trace_that_a_caller_has_begun_goes_on(kind: Kind, start: Start, collector: Collector) -> None:
    server = start(kind, **settings(collector.port))
    trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

    server.send("GET", "/notes", headers={"traceparent": f"00-{trace}-{caller}-01"})

    (span,) = wait_until(lambda: requests(collector), "the span has come")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, caller)


def test_the_span_of_a_bug_says_so(kind: Kind, start: Start, project: Project, collector: Collector) -> None:
    project.provoke("raising_views")
    server = start(kind, **settings(collector.port))

    assert server.get("/raise").status == 500

    (span,) = wait_until(lambda: requests(collector), "the span has come")
    assert span.status.code == Status.STATUS_CODE_ERROR
    (event,) = span.events
    assert attributes(event)["exception.message"] == "a bug in a view"


def test_the_span_of_a_stream_ends_behind_its_last_statement(
    kind: Kind, start: Start, project: Project, collector: Collector
) -> None:
    project.provoke("stream_commits")
    server = start(kind, **settings(collector.port))

    assert server.send("POST", "/streams/own-session").status == 200

    (span,) = wait_until(lambda: requests(collector), "the span has come")
    statements = [below for below in spans(collector) if below.parent_span_id == span.span_id]
    assert "INSERT" in {below.name for below in statements}
    assert span.end_time_unix_nano >= max(below.end_time_unix_nano for below in statements)


def test_spans_that_wait_are_sent_when_the_server_stops(
    kind: Kind, start: Start, collector: Collector
) -> None:
    server = start(kind, **settings(collector.port, delay=600_000))
    server.get("/notes")

    server.signal(signal.SIGTERM)

    assert server.wait() == 0, server.log
    assert [span.name for span in requests(collector)] == ["GET /notes"], server.log


def test_a_collector_that_says_nothing_costs_no_request(kind: Kind, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = settings(silent.getsockname()[1]) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        server = start(kind, **told)

        assert {server.get("/notes").status for _ in range(10)} == {200}

        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log
