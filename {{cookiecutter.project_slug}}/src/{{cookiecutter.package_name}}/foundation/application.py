"""The Flask application and the WSGI layers around it."""

import importlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NoReturn
from urllib.parse import urlsplit, urlunsplit
from wsgiref.types import WSGIApplication

from flask import Blueprint, Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from .commands import Commands
from .configuration import ServiceSettings
from .database import commit_guard, engine, fork_safety
from .database.session import end_session, engines_of
from .edge.bodies import WholeBodies
from .edge.context import OwnContext
from .edge.cors import CrossOrigin
from .edge.headers import refuse_unsendable
from .edge.overload import Overload
from .edge.proxies import TrustedProxies
from .http import api, errors, health, openapi
from .observability import logs
from .observability.refusals import Refusals
from .observability.requests import PROBES, Requests
from .observability.telemetry import AfterFork
from .teardown import SafeTeardown, error_of

LONGEST_BODY = 1024 * 1024  # bytes
TURNS = 5  # concurrent requests per database connection, under gevent


class NoSession(NullSession):
    """A session that rejects writes; this service uses no session cookies."""

    def _fail(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("this service keeps no session cookies: Service.session_interface disables them")

    __setitem__ = __delitem__ = clear = pop = popitem = update = setdefault = _fail


class NoSessions(SessionInterface):
    """Ignore cookies: looking for a signed one is a third of Flask's own work per request."""

    nothing = NoSession()

    def open_session(self, app: Flask, request: Request) -> NoSession:
        return self.nothing


class Service(SafeTeardown):
    """The Flask application. It calls the database guards in a fixed order that no hook can change."""

    session_interface = NoSessions()

    # Flask's development version passes the context as the first argument of each of these methods.

    def preprocess_request(self, *args: Any, **kwargs: Any) -> Any:
        """Discard connections of the parent process before any before_request function runs."""
        fork_safety.discard_inherited_connections()
        return super().preprocess_request(*args, **kwargs)

    def raise_routing_exception(self, request: Request) -> NoReturn:
        """Redirect / to /docs, never to another host, and without a rule that hides a view of app.py."""
        openapi.lead_to_docs(request)
        if isinstance(redirect := request.routing_exception, RequestRedirect):
            # Without the host: the client chooses it.
            parts = urlsplit(redirect.new_url)
            redirect.new_url = urlunsplit(("", "", "/" + parts.path.lstrip("/"), parts.query, ""))
        super().raise_routing_exception(request)

    def handle_user_exception(self, *args: Any, **kwargs: Any) -> Any:
        """Roll back before any error handler runs, so that no handler finds unfinished work."""
        if not _is_redirect(args[-1]):
            commit_guard.roll_back()
        return super().handle_user_exception(*args, **kwargs)

    def process_response(self, *args: Any, **kwargs: Any) -> Response:
        """Refuse late commits before the first after_request function; check the response after the last."""
        if args[-1].status_code >= 400:
            commit_guard.fail_request()
        response = super().process_response(*args, **kwargs)
        refuse_unsendable(response.headers)
        commit_guard.check_response(response)
        return response

    def do_teardown_request(self, *args: Any, **kwargs: Any) -> None:
        """Check what a stream wrote, after every teardown function of the request."""
        super().do_teardown_request(*args, **kwargs)
        if error_of(args, kwargs) is None:
            commit_guard.check_stream()

    def do_teardown_appcontext(self, *args: Any, **kwargs: Any) -> None:
        """Close the session before the teardown functions, and again if one of them opened another."""
        end_session()
        try:
            super().do_teardown_appcontext(*args, **kwargs)
        finally:
            end_session()


def _is_redirect(error: Exception) -> bool:
    if not isinstance(error, HTTPException):
        return False
    return (error.response.status_code if error.response else error.code or 500) < 400


def load_features(package: str, names: Iterable[str]) -> list[Blueprint]:
    """Return the blueprint `bp` from each feature's module `views`."""
    return [_load_blueprint(f"{package}.{name}.views") for name in names]


def _load_blueprint(module: str) -> Blueprint:
    try:
        blueprint: Blueprint = importlib.import_module(module).bp
    except (ModuleNotFoundError, AttributeError) as error:
        if error.name not in {module, module.rpartition(".")[0], "bp"}:
            raise
        text = f"{module} does not define `bp`: define the blueprint, or remove the name from FEATURES"
        raise RuntimeError(text) from None
    return blueprint


def create_service(
    import_name: str,
    settings: ServiceSettings,
    features: Iterable[Blueprint],
    error_shapes: Mapping[str, errors.Shape] | None = None,
) -> Flask:
    """Build the service. Opens no connection and starts no thread: the server may fork afterwards.

    `error_shapes` maps a path prefix to a function that builds a response from the members of a problem.
    """
    logs.configure(settings.log_level, settings.log_style)
    app = Service(import_name)
    app.cli = Commands(import_name)
    app.extensions["settings"] = settings
    app.config.update(
        SECRET_KEY=settings.secret_key.get_secret_value(),
        SECRET_KEY_FALLBACKS=[key.get_secret_value() for key in settings.secret_key_fallbacks],
        TESTING=settings.app_env == "testing",
        MAX_CONTENT_LENGTH=LONGEST_BODY,
        TRUSTED_HOSTS=settings.trusted_hosts,
        SESSION_COOKIE_SECURE=settings.app_env == "production",  # for a service that does keep sessions
        SESSION_COOKIE_SAMESITE="Lax",
    )
    engine.init_app(app, settings)
    if settings.metrics_bind:
        # Imported lazily: without METRICS_BIND the library would only slow startup.
        from .observability.metrics import Metrics

        metrics = app.extensions["metrics"] = Metrics()
        for each in engines_of(app):
            metrics.watch(each)
    commit_guard.init_app(app, settings.on_uncommitted_work)
    errors.init_app(app, error_shapes)
    app.url_map.converters["row_id"] = api.RowId
    docs = [openapi.pages] if settings.api_docs == "on" else []
    for blueprint in (health.bp, *features, openapi.bp, *docs):
        app.register_blueprint(blueprint)
    app.wsgi_app = _layers(app, settings)  # type: ignore[method-assign, assignment]
    return app


def _layers(app: Flask, settings: ServiceSettings) -> WSGIApplication:
    """Wrap the application in its WSGI layers, innermost first."""
    layer: WSGIApplication = WholeBodies(app.wsgi_app, LONGEST_BODY)
    if settings.otel_exporter_otlp_endpoint:
        from .observability import tracing

        layer = tracing.trace_requests(layer, app, engines_of(app))
    if settings.sentry_dsn:
        from .observability import error_reports

        layer = AfterFork(layer, partial(error_reports.start, settings.sentry_dsn))
    if settings.cors_origins:
        layer = CrossOrigin(layer, settings.cors_origins, credentials=settings.cors_credentials)
    metrics = app.extensions.get("metrics")
    proxies = TrustedProxies(settings.forwarded_allow_ips)
    layer = Requests(layer, settings, proxies, metrics)
    if metrics and settings.metrics_bind:
        from .observability.metrics import OwnPort

        layer = OwnPort(layer, settings.metrics_bind.rpartition(":")[2])
    return _limit_queue(OwnContext(layer), settings, proxies, metrics)


def _limit_queue(
    layer: WSGIApplication, settings: ServiceSettings, proxies: TrustedProxies, metrics: Any
) -> WSGIApplication:
    """Wrap all layers in the one that rejects requests that have waited too long."""
    if not settings.longest_wait:
        return layer
    refusal: WSGIApplication = Refusals(proxies, settings.longest_wait, metrics)
    if settings.cors_origins:
        refusal = CrossOrigin(refusal, settings.cors_origins, credentials=settings.cors_credentials)
    refusal = OwnContext(WholeBodies(refusal, LONGEST_BODY))
    exempt = PROBES | ({"/metrics"} if metrics else set())
    return Overload(
        layer,
        refusal,
        limit=settings.longest_wait / 1000,
        turns=TURNS * settings.connections,
        exempt=frozenset(exempt | {f"{settings.url_prefix}{path}" for path in exempt}),
        observe=metrics.observe_wait if metrics else None,
    )
