"""OpenTelemetry traces. Imported only if a setting names a collector: the packages may be absent."""

import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, got_request_exception
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer, _handle_error
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider, NoOpUpDownCounter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import INVALID_SPAN, Span, StatusCode, Tracer, get_current_span
from sqlalchemy import Engine, ExceptionContext, event
from werkzeug.wsgi import ClosingIterator

from ..edge.context import at_close
from .logs import request_id
from .requests import PROBES
from .telemetry import AfterFork

# Keys in the library's copy of the environ: the original environ, and the library's start_response, which
# sets the status of the span.
_ENVIRON, _START = "telemetry.environ", "telemetry.start_response"
# Their exception messages quote statement values.
_DATABASE_PACKAGES = {"sqlalchemy", "psycopg", "sqlite3"}


def trace_requests(wsgi_app: WSGIApplication, app: Flask, engines: Iterable[Engine]) -> WSGIApplication:
    """Create a span for each request and each of its statements, exported as the OTEL_ variables specify."""
    # The stable attribute names. The libraries still default to the old ones.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    for engine in engines:
        _trace_statements(engine)
    got_request_exception.connect(_record_exception, app)
    return AfterFork(Traced(wsgi_app), lambda: _start_exporter(app.name))


class Traced:
    """A layer that creates a span for each request except probes, with OpenTelemetry's WSGI middleware."""

    def __init__(self, wsgi_app: WSGIApplication) -> None:
        self.wsgi_app = wsgi_app
        meters = NoOpMeterProvider()
        self.open = OpenTelemetryMiddleware(_answer_nothing, None, _add_route, meter_provider=meters)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") in PROBES:
            return self.wsgi_app(environ, start_response)
        shown = _without_query(environ)
        # The library ends its span in a generator around the body. If the generator is closed before it has
        # started, it neither ends the span nor closes the body. Therefore it gets no body, is started here,
        # and is closed after the response. Wrap the application instead when that is fixed: 0.66b1 has the
        # defect.
        opened = self.open(shown, start_response)
        next(opened)
        at_close(environ, opened.close)
        span = get_current_span()
        span.update_name(environ["REQUEST_METHOD"])
        span.set_attribute("request.id", request_id.get())
        with _recording_errors():
            body = self.wsgi_app(environ, shown[_START])
        return ClosingIterator(_recorded(body), getattr(body, "close", None))


def _answer_nothing(shown: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    shown[_START] = start_response
    return [b""]


def _without_query(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return a copy for the library without the query string, which may contain secrets."""
    port = environ.get("SERVER_PORT", "")
    return environ | {
        "QUERY_STRING": "",
        "RAW_URI": environ.get("PATH_INFO") or "/",
        # At a unix socket gunicorn derives the port from the Host header, and the library fails on
        # int("db8").
        "SERVER_PORT": port if port.isdecimal() else "",
        _ENVIRON: environ,
    }


def _add_route(span: Span, shown: WSGIEnvironment, status: str, headers: object) -> None:
    if (seen := shown[_ENVIRON].get("werkzeug.request")) and seen.url_rule:
        span.update_name(f"{shown['REQUEST_METHOD']} {seen.url_rule.rule}")
        span.set_attribute("http.route", seen.url_rule.rule)


def _recorded(body: Iterable[bytes]) -> Iterator[bytes]:
    with _recording_errors():
        # chain() hides close(), which is called once, by the ClosingIterator.
        yield from chain(body)


@contextmanager
def _recording_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        _record_exception(None, error)
        raise


def _record_exception(sender: object, exception: BaseException) -> None:
    """Record an exception in the current span, without the values in a database's message."""
    packages = {kind.__module__.partition(".")[0] for kind in type(exception).__mro__}
    own = {
        "exception.message": "" if packages & _DATABASE_PACKAGES else str(exception),
        # Without the messages of its causes.
        "exception.stacktrace": "".join(traceback.format_tb(exception.__traceback__)),
    }
    span = get_current_span()
    span.record_exception(exception, own)
    span.set_status(StatusCode.ERROR)


def _trace_statements(engine: Engine) -> None:
    """Create a span for each statement of this engine inside a request's span.

    SQLAlchemyInstrumentor instruments every engine of the process (including Alembic's), works only once, and
    skips SQLAlchemy 2.1 without skip_dep_check=True. Use it when it can leave other engines alone.
    """
    EngineTracer(ChildTracer(trace.get_tracer(__name__)), engine, NoOpUpDownCounter("connections"))
    # The library describes the failed span with the database's message, which quotes values.
    event.remove(engine, "handle_error", _handle_error)
    event.listen(engine, "handle_error", _end_failed_statement)


class ChildTracer:
    """A tracer that starts spans only inside recorded ones, so statements of probes and scripts have none."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def start_span(self, *args: Any, **kwargs: Any) -> Span:
        return self.tracer.start_span(*args, **kwargs) if get_current_span().is_recording() else INVALID_SPAN


def _end_failed_statement(context: ExceptionContext) -> None:
    span: Span | None = getattr(context.execution_context, "_otel_span", None)
    if span and span.is_recording():
        span.set_status(StatusCode.ERROR)
        span.end()


def _start_exporter(name: str) -> None:
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return  # Another application in this process has started it.
    # OTEL_SERVICE_NAME takes precedence.
    named = Resource.create({"service.name": name}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
