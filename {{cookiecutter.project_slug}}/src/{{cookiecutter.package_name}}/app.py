"""The one place where the parts meet: `create_app` builds the service."""

from __future__ import annotations

import typing as t

from flask import Flask, Request
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import HTTPException

from . import api, commit_guard, db, errors, health, logs, openapi, telemetry
from .edge import Edge
from .middleware import OwnContext, WholeBodies
from .notes import views as notes
from .settings import Settings, load
from .teardown import SafeTeardown

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from .metrics import Metrics

LONGEST_BODY = 1024 * 1024  # bytes


class NoSession(NullSession):
    """What `flask.session` is here: nothing, and to write to it is an error."""

    def _fail(self, *args: t.Any, **kwargs: t.Any) -> t.NoReturn:
        raise RuntimeError(
            "this service keeps no session cookies: take `session_interface` out of Service in app.py"
        )

    __setitem__ = __delitem__ = clear = pop = popitem = update = setdefault = _fail


class NoSessions(SessionInterface):
    """Leave cookies alone: to look for a signed one costs each request a third of what Flask does."""

    nothing = NoSession()

    def open_session(self, app: Flask, request: Request) -> NoSession:
        return self.nothing


class Service(SafeTeardown):
    """The Flask application."""

    session_interface = NoSessions()

    def handle_user_exception(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Roll back before any error handler sees the session: what it finds there is not half done."""
        error = args[-1]  # Flask's development version passes the context first.
        if not (isinstance(error, HTTPException) and error.get_response().status_code < 400):
            commit_guard.roll_back()
        return super().handle_user_exception(*args, **kwargs)


def create_app(settings: Settings | None = None) -> Flask:
    """Build the service from the settings, or from the environment when none are given.

    Opens no connection and starts no thread: the server may fork afterwards. Raises
    `ConfigurationError` when the environment does not describe a service that can run.
    """
    settings = settings or load()
    logs.configure(settings.log_level, settings.log_style)

    app = Service(__package__ or __name__)
    metrics = app.extensions["metrics"] = _metrics(settings)
    app.config.from_mapping(
        SECRET_KEY=settings.secret_key.get_secret_value(),
        TESTING=settings.app_env == "testing",
        MAX_CONTENT_LENGTH=LONGEST_BODY,
        TRUSTED_HOSTS=settings.trusted_hosts,
        # For a service that does keep sessions.
        SESSION_COOKIE_SECURE=settings.app_env == "production",
        SESSION_COOKIE_SAMESITE="Lax",
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=db.engine_options(
            settings.database_url,
            threads=settings.web_threads,
            timeout=settings.database_timeout,
            name=app.name,
            pool=metrics.pool_class() if metrics else None,
        ),
    )
    db.init_app(app, timeout=settings.database_timeout)
    if metrics:
        for engine in db.engines_of(app):
            metrics.watch(engine)
    commit_guard.init_app(app, settings.on_uncommitted_work)
    errors.init_app(app)
    api.init_app(app)

    app.register_blueprint(health.bp)
    app.register_blueprint(notes.bp)
    app.register_blueprint(openapi.bp)

    db.end_sessions(app)
    inner: WSGIApplication = WholeBodies(app.wsgi_app, LONGEST_BODY)
    if settings.otel_exporter_otlp_endpoint:
        inner = telemetry.trace_requests(inner, app, db.engines_of(app))
    if settings.sentry_dsn:
        inner = telemetry.report_errors(inner, settings.sentry_dsn)
    app.wsgi_app = OwnContext(_edge(inner, settings, metrics))  # type: ignore[method-assign]
    return app


def _metrics(settings: Settings) -> Metrics | None:
    if not settings.metrics_bind:
        return None
    # Imported here: who wants no numbers pays nothing for them.
    from .metrics import Metrics

    return Metrics()


def _edge(inner: WSGIApplication, settings: Settings, metrics: Metrics | None) -> WSGIApplication:
    lines = {"json": logs.json_access, "text": logs.text_access}
    outer = Edge(
        inner,
        proxies=settings.forwarded_allow_ips,
        access_line=lines[settings.log_style] if settings.log_level in {"debug", "info"} else None,
        metrics=metrics,
        host=settings.trusted_hosts[0].lstrip(".") if settings.trusted_hosts else None,
    )
    if metrics and settings.metrics_bind:
        from .metrics import OwnPort

        return OwnPort(outer, metrics, settings.metrics_bind.rpartition(":")[2])
    return outer
