"""Each request is traced, whichever process serves it, and its span ends with its response.

An exporter has a thread, which does not survive a fork. Current SDKs start another one; older ones did not. A
span that ends in a teardown function ends before a stream begins.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ..servers import Kind, Project, wait_until
from .collector import Collector, collecting
from .conftest import Start


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
    """Return the spans that the collector has received."""
    return [
        span
        for path, body in [*collector.received]
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if path == "/v1/traces"
    ]


def requests(collector: Collector) -> list[Any]:
    """Return the spans of requests."""
    return [span for span in spans(collector) if span.kind == Span.SPAN_KIND_SERVER]


def attributes(span: Any) -> dict[str, Any]:
    """Return the attributes of a span or of an event, by name."""
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def test_requests_and_their_statements_have_spans(kind: Kind, start: Start, collector: Collector) -> None:
    """Each request has a span, whichever process serves it, and each of its statements a child span."""
    server = start(kind, **settings(collector.port))

    ids = {server.get("/samples").headers["X-Request-ID"] for _ in range(40)}

    wait_until(lambda: len(requests(collector)) >= 40, "the spans of all requests arrive")
    found = requests(collector)
    assert {attributes(span)["request.id"] for span in found} == ids
    named = {(span.name, attributes(span)["http.response.status_code"]) for span in found}
    assert named == {("GET /samples", 200)}
    statements = [span for span in spans(collector) if span.kind == Span.SPAN_KIND_CLIENT]
    selects = [span.parent_span_id for span in statements if span.name.startswith("SELECT ")]
    assert {span.span_id for span in found} <= {*selects}
    assert "Traceback" not in server.log


def test_no_query_string_is_sent(kind: Kind, start: Start, collector: Collector) -> None:
    """A query string may contain secrets, so it is never sent to the collector."""
    server = start(kind, **settings(collector.port))

    assert server.get("/nowhere?token=hush").status == 404

    (span,) = wait_until(lambda: requests(collector), "the span arrives")
    assert span.name == "GET"
    assert not any(b"hush" in body for _, body in collector.received)


def test_a_trace_of_the_caller_is_continued(kind: Kind, start: Start, collector: Collector) -> None:
    """A request with a traceparent has a span in that trace, below the caller's span."""
    server = start(kind, **settings(collector.port))
    trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

    server.send("GET", "/samples", headers={"traceparent": f"00-{trace}-{caller}-01"})

    (span,) = wait_until(lambda: requests(collector), "the span arrives")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, caller)


def test_the_span_of_a_bug_has_its_error(
    kind: Kind, start: Start, project: Project, collector: Collector
) -> None:
    """The span of a failed request has the status ERROR and the exception."""
    project.provoke("raising_views")
    server = start(kind, **settings(collector.port))

    assert server.get("/raise").status == 500

    (span,) = wait_until(lambda: requests(collector), "the span arrives")
    assert span.status.code == Status.STATUS_CODE_ERROR
    (event,) = span.events
    assert attributes(event)["exception.message"] == "a bug in a view"


def test_the_span_of_a_broken_stream_has_its_error(
    kind: Kind, start: Start, project: Project, collector: Collector
) -> None:
    """A stream that raises is aborted for the client, and its span has the error."""
    project.provoke("raising_views")
    server = start(kind, **settings(collector.port))

    with pytest.raises((OSError, HTTPException)):
        server.get("/export")

    (span,) = wait_until(lambda: requests(collector), "the span arrives")
    assert span.status.code == Status.STATUS_CODE_ERROR
    (event,) = span.events
    assert attributes(event)["exception.message"] == "a bug in the middle of an answer"
    assert "GET /export is broken off" in server.log


def test_the_span_of_a_stream_ends_after_its_statements(
    kind: Kind, start: Start, project: Project, collector: Collector
) -> None:
    """The statements of a stream are children of the request's span, which ends after the last of them."""
    project.provoke("stream_commits")
    server = start(kind, **settings(collector.port))

    assert server.send("POST", "/streams/own-session").status == 200

    (span,) = wait_until(lambda: requests(collector), "the span arrives")
    statements = [below for below in spans(collector) if below.parent_span_id == span.span_id]
    assert "INSERT" in {below.name.partition(" ")[0] for below in statements}
    assert span.end_time_unix_nano >= max(below.end_time_unix_nano for below in statements)


def test_waiting_spans_are_sent_at_shutdown(kind: Kind, start: Start, collector: Collector) -> None:
    """A stopping server sends its pending spans."""
    server = start(kind, **settings(collector.port, delay=600_000))
    server.get("/samples")

    server.signal(signal.SIGTERM)

    assert server.wait() == 0, server.log
    assert [span.name for span in requests(collector)] == ["GET /samples"], server.log


def test_a_silent_collector_costs_no_request(kind: Kind, start: Start) -> None:
    """A collector that accepts connections and never answers fails no request and no shutdown."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = start(kind, **settings(silent.getsockname()[1]), OTEL_EXPORTER_OTLP_TIMEOUT="1")

        assert {server.get("/samples").status for _ in range(10)} == {200}

        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log
