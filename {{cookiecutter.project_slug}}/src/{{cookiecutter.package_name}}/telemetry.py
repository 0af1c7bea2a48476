"""Traces for OpenTelemetry, errors for Sentry, where a setting says whereto.

What sends them has a thread and connections, which do not survive a fork: each process starts its own
when its first request comes. Source: OpenTelemetry Python, "Working With Fork Process Models".
"""

from __future__ import annotations

import functools
import os
import typing as t
from collections.abc import Callable, Iterable

from flask import Flask, got_request_exception, has_request_context, request
from sqlalchemy import Engine, ExceptionContext, event

from .edge import PROBES
from .logs import request_id
from .middleware import at_close

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from opentelemetry.trace import Span, Tracer


class AfterFork:
    """Call something once in each process, when its first request comes: no server forks later."""

    def __init__(self, wsgi_app: WSGIApplication, start: Callable[[], None]) -> None:
        self.wsgi_app = wsgi_app
        self.start_in = functools.cache(lambda process: start())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.start_in(os.getpid())
        return self.wsgi_app(environ, start_response)


def trace_requests(wsgi_app: WSGIApplication, app: Flask, engines: Iterable[Engine]) -> WSGIApplication:
    """Make a span of each request, of each statement, and send them; the OTEL_ variables say how.

    opentelemetry-instrumentation-flask is not used: it ends the span of a stream before the stream begins.
    Nor is its sibling for SQLAlchemy, which refuses SQLAlchemy 2.1.
    """
    from opentelemetry import trace

    # It makes nothing until there is something that sends.
    tracer = trace.get_tracer(app.name)
    for engine in engines:
        _trace_statements(engine, tracer)
    return AfterFork(Traced(wsgi_app, app, tracer), lambda: _send_spans(app.name))


def report_errors(wsgi_app: WSGIApplication, dsn: str) -> WSGIApplication:
    """Send to Sentry what is logged as an error: bugs, forgotten commits, clean-ups that failed."""
    return AfterFork(wsgi_app, lambda: _send_errors(dsn))


class Traced:
    """Make a span of each request, from its first byte to the last one of its answer."""

    def __init__(self, wsgi_app: WSGIApplication, app: Flask, tracer: Tracer) -> None:
        self.wsgi_app, self.tracer = wsgi_app, tracer
        got_request_exception.connect(_note_exception, app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") in PROBES:
            return self.wsgi_app(environ, start_response)
        from opentelemetry import context, propagate
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        headers = {n[5:].replace("_", "-").lower(): v for n, v in environ.items() if n.startswith("HTTP_")}
        caller = propagate.extract(headers)
        method = environ["REQUEST_METHOD"]
        span = self.tracer.start_span(
            method,
            caller,
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "url.path": environ.get("PATH_INFO", ""),
                "url.scheme": environ["wsgi.url_scheme"],
                "client.address": environ.get("REMOTE_ADDR") or "",
                "user_agent.original": environ.get("HTTP_USER_AGENT") or "",
                "request.id": request_id.get(),
            },
        )
        # Nothing to detach: the request has a context of its own, which ends with it.
        context.attach(set_span_in_context(span, caller))

        def start(line: str, headers: list[tuple[str, str]], exc_info: t.Any = None) -> t.Any:
            span.set_attribute("http.response.status_code", int(line[:3]))
            if line >= "5":
                span.set_status(StatusCode.ERROR)
            if (seen := environ.get("werkzeug.request")) and seen.url_rule:
                span.set_attribute("http.route", seen.url_rule.rule)
                span.update_name(f"{method} {seen.url_rule.rule}")
            return start_response(line, headers, exc_info) if exc_info else start_response(line, headers)

        at_close(environ, span.end)
        return self.wsgi_app(environ, start)


def _note_exception(sender: Flask, exception: BaseException) -> None:
    from opentelemetry.trace import get_current_span

    get_current_span().record_exception(exception)


def _trace_statements(engine: Engine, tracer: Tracer) -> None:
    """Make a span of each statement that belongs to a request; values are not in it."""
    from opentelemetry.trace import SpanKind, StatusCode, get_current_span

    system = {"db.system.name": engine.dialect.name, "db.namespace": engine.url.database or ""}

    @event.listens_for(engine, "before_cursor_execute")
    def begin(
        connection: object, cursor: object, statement: str, values: object, execution: t.Any, many: bool
    ) -> None:
        if get_current_span().is_recording():
            about = system | {"db.query.text": statement}
            execution.span = tracer.start_span(statement.partition(" ")[0], None, SpanKind.CLIENT, about)

    @event.listens_for(engine, "after_cursor_execute")
    def end(
        connection: object, cursor: object, statement: str, values: object, execution: t.Any, many: bool
    ) -> None:
        if span := getattr(execution, "span", None):
            span.end()

    @event.listens_for(engine, "handle_error")
    def fail(context: ExceptionContext) -> None:
        span: Span | None = getattr(context.execution_context, "span", None)
        if span:
            span.record_exception(context.original_exception)
            span.set_status(StatusCode.ERROR)
            span.end()


def _send_spans(name: str) -> None:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # OTEL_SERVICE_NAME has the last word.
    named = Resource.create({"service.name": name}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _send_errors(dsn: str) -> None:
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration
    from sentry_sdk.integrations.logging import ignore_logger

    sentry_sdk.init(
        dsn,
        before_send=_name_request,
        # What is logged is all there is to know: nothing has to be patched.
        auto_enabling_integrations=False,
        # It would write lines that are no JSON into the log.
        integrations=[AtexitIntegration(callback=lambda pending, timeout: None)],
        # Servers tell once more of a stream that has failed, and do not know its request.
        disabled_integrations=[ExcepthookIntegration],
        # The values of variables are clients' data, and keys.
        include_local_variables=False,
    )
    ignore_logger("gunicorn.error")


def _name_request(report: t.Any, hint: object) -> t.Any:
    """Say in a report which request it is about; no query string, no header, no body."""
    report.setdefault("tags", {})["request_id"] = request_id.get()
    if has_request_context():
        report["request"] = {"method": request.method, "url": request.base_url}
        report["transaction"] = request.url_rule.rule if request.url_rule else ""
    return report
