"""Spans: their start, end and content, and the content that they must not have."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation._semconv import _OpenTelemetrySemanticConventionStability as Conventions
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import IntegrityError
from werkzeug.test import EnvironBuilder

from {{cookiecutter.package_name}}.foundation.database import db
from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.edge.context import OwnContext
from {{cookiecutter.package_name}}.foundation.observability.tracing import Traced

from ..databases import Databases
from ..fixtures import make_settings
from ..sample.app import create_app

# Inserts into a table in every database. The second time it violates a unique constraint.
INSERT = text("INSERT INTO alembic_version VALUES (:value)")
VALUES = {"value": "hush"}


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Collect the spans of this process. OpenTelemetry has one provider per process, so it stays."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Callable[[], list[ReadableSpan]]:
    """Return a function that returns the spans ended during the test."""
    exporter.clear()
    return lambda: list(exporter.get_finished_spans())


Spans = Callable[[], list[ReadableSpan]]


def make_app(url: str) -> Flask:
    """Return the service with tracing, and with views that fail in the database."""
    app = create_app(make_settings(url, otel_exporter_otlp_endpoint="http://127.0.0.1:9"))
    app.config["PROPAGATE_EXCEPTIONS"] = False  # As in production.

    @app.get("/fail")
    def fail() -> str:
        try:
            for _ in range(2):
                db.session.execute(INSERT, VALUES)
        except IntegrityError as error:
            raise LookupError("a bug") from error
        return "inserted twice"

    @app.get("/stream")
    def stream() -> Iterator[str]:
        engine = db.engine

        def parts() -> Iterator[str]:
            yield "one"
            with engine.begin() as connection:
                for _ in range(2):
                    connection.execute(INSERT, VALUES)

        return parts()

    return app


@pytest.fixture(scope="module")
def app(own_databases: Databases, exporter: InMemorySpanExporter) -> Iterator[Flask]:
    """The service with tracing."""
    app = make_app(own_databases.sampled())
    yield app
    dispose(app)


def dispose(app: Flask) -> None:
    """Close the connections of an application."""
    for engine in engines_of(app):
        engine.dispose()


def of_kind(spans: list[ReadableSpan], kind: SpanKind) -> list[ReadableSpan]:
    """Return the spans of one kind: SERVER for requests, CLIENT for statements."""
    return [span for span in spans if span.kind is kind]


class Body(Iterator[bytes]):
    """A body of two parts, which records at each close whether the span is still open."""

    def __init__(self) -> None:
        self.parts = iter([b"one", b"two"])
        self.closed_in_span: list[bool] = []

    def __next__(self) -> bytes:
        return next(self.parts)

    def close(self) -> None:
        self.closed_in_span.append(get_current_span().is_recording())


def serve(body: Iterable[bytes], **environ: str) -> Any:
    """Return a server's view of a response with this body."""

    def respond(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return body

    return call(respond, **environ)


def call(wsgi_app: Any, **environ: str) -> Any:
    """Return a server's view of a traced application."""
    traced = OwnContext(Traced(wsgi_app))
    return traced(
        EnvironBuilder("/").get_environ() | environ, lambda status, headers, exc_info=None: lambda part: None
    )


def test_a_body_that_is_never_read_ends_its_span(spans: Spans) -> None:
    """A body that is closed before its first part ends the span, and is closed once."""
    body = Body()
    response = serve(body)

    response.close()

    assert [span.name for span in spans()] == ["GET"]
    assert body.closed_in_span == [True]


@pytest.mark.parametrize("parts", [1, 2])
def test_the_span_ends_after_the_body_is_closed(spans: Spans, parts: int) -> None:
    """The span lasts until the body is closed, once, whether or not it was read to its end."""
    body = Body()
    response = serve(body)

    assert [next(response) for _ in range(parts)] == [b"one", b"two"][:parts]
    if parts == 2:
        assert next(response, None) is None
    assert spans() == []
    response.close()

    assert len(spans()) == 1
    assert body.closed_in_span == [True]


def test_an_error_outside_flask_is_recorded(spans: Spans) -> None:
    """An error of an inner layer is raised, and ends the span with its message."""

    def fail(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise LookupError("a bug in a layer")

    with pytest.raises(LookupError):
        call(fail)

    (span,) = spans()
    assert span.status.status_code is StatusCode.ERROR
    assert [(event.attributes or {})["exception.message"] for event in span.events] == ["a bug in a layer"]


@pytest.mark.parametrize("conventions", ["", "http", "http/dup,database/dup", "http,database"])
def test_a_span_has_no_query_string(spans: Spans, monkeypatch: pytest.MonkeyPatch, conventions: str) -> None:
    """No attribute contains the query string, whichever attribute names the operator chooses."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", conventions)
    monkeypatch.setattr(Conventions, "_initialized", False)
    monkeypatch.setattr(Conventions, "_OTEL_SEMCONV_STABILITY_SIGNAL_MAPPING", {})
    raw = "http://localhost/notes?token=hush"

    for names in ({}, {"RAW_URI": raw}, {"REQUEST_URI": raw}):
        serve([], PATH_INFO="/notes", QUERY_STRING="token=hush", **names).close()

    assert len(spans()) == 3
    for span in spans():
        assert "hush" not in span.to_json()
        assert {"/notes"} <= {value for value in (span.attributes or {}).values() if isinstance(value, str)}


@pytest.mark.parametrize("port", ["", "db8", "²"])
def test_a_port_that_is_no_number_fails_no_request(spans: Spans, port: str) -> None:
    """At a unix socket gunicorn takes the port from the client's Host header."""
    assert list(serve([b"answer"], SERVER_PORT=port)) == [b"answer"]


def test_a_probe_has_no_span(app: Flask, spans: Spans) -> None:
    """Neither a probe nor its statement is traced."""
    assert app.test_client().get("/readyz").status_code == 200

    assert spans() == []


def test_a_statement_outside_a_request_has_no_span(app: Flask, spans: Spans) -> None:
    """Statements of scripts and threads belong to no request."""
    with app.app_context(), db.engine.connect() as connection:
        connection.execute(text("SELECT 1"))

    assert spans() == []


def read_to_the_error(app: Flask, path: str) -> None:
    """Read a response that fails, immediately or in the middle."""
    response = app.test_client().get(path, buffered=False)
    with contextlib.suppress(IntegrityError):
        response.get_data()
    response.close()


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [("/fail", "LookupError", "a bug"), ("/stream", "sqlalchemy.exc.IntegrityError", "")],
)
def test_an_error_quotes_no_value_of_a_statement(
    app: Flask, spans: Spans, path: str, kind: str, message: str
) -> None:
    """No span contains the database's or SQLAlchemy's message, which quote values."""
    read_to_the_error(app, path)

    (request,) = of_kind(spans(), SpanKind.SERVER)
    assert (request.name, request.status.status_code) == (f"GET {path}", StatusCode.ERROR)
    (recorded,) = request.events
    attributes = recorded.attributes or {}
    assert (attributes["exception.type"], attributes["exception.message"]) == (kind, message)
    assert "test_tracing.py" in str(attributes["exception.stacktrace"])
    assert not any("hush" in span.to_json() for span in spans())


def test_the_span_of_a_failed_statement_has_an_error(app: Flask, spans: Spans) -> None:
    """A failed statement ends its span with an error."""
    read_to_the_error(app, "/fail")

    inserts = [span for span in of_kind(spans(), SpanKind.CLIENT) if span.name.startswith("INSERT ")]
    assert [span.status.status_code for span in inserts] == [StatusCode.UNSET, StatusCode.ERROR]


def test_two_applications_trace_each_statement_once(
    own_databases: Databases, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    """A second application duplicates no span of the first, and starts no second exporter."""
    apps = [make_app(own_databases.sampled()) for _ in range(2)]

    for app in apps:
        assert app.test_client().get("/samples").status_code == 200

    first, second = of_kind(spans(), SpanKind.SERVER)
    for request in (first, second):
        below = [span for span in spans() if span.parent == request.context]
        assert [span.name.partition(" ")[0] for span in below].count("SELECT") == 1
    assert caplog.messages == []
    for app in apps:
        dispose(app)


def test_an_engine_of_another_has_no_spans(app: Flask, spans: Spans) -> None:
    """Only the application's engines are instrumented, not those of Alembic or scripts."""
    (own,) = engines_of(app)
    engine = create_engine(own.url, poolclass=NullPool)

    with trace.get_tracer("test").start_as_current_span("around"), engine.connect() as connection:
        connection.execute(text("SELECT 1"))

    assert [span.name for span in spans()] == ["around"]
