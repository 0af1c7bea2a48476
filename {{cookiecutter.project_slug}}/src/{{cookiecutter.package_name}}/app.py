"""The one place where the parts meet: `create_app` builds the service."""

from __future__ import annotations

import logging
import typing as t

from flask import Flask
from werkzeug.exceptions import HTTPException

from . import api, commit_guard, db, errors, health, openapi
from .middleware import OwnContext, WholeBodies
from .notes import views as notes
from .settings import Settings, load
from .teardown import SafeTeardown

LONGEST_BODY = 1024 * 1024  # bytes


class Service(SafeTeardown):
    """The Flask application."""

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
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("alembic.runtime.plugins").setLevel("WARNING")  # It greets with seven lines.

    app = Service(__package__ or __name__)
    app.config.from_mapping(
        SECRET_KEY=settings.secret_key.get_secret_value(),
        TESTING=settings.app_env == "testing",
        MAX_CONTENT_LENGTH=LONGEST_BODY,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=db.engine_options(
            settings.database_url,
            threads=settings.web_threads,
            timeout=settings.database_timeout,
            name=app.name,
        ),
    )
    db.init_app(app, timeout=settings.database_timeout)
    commit_guard.init_app(app, settings.on_uncommitted_work)
    errors.init_app(app)
    api.init_app(app)

    app.register_blueprint(health.bp)
    app.register_blueprint(notes.bp)
    app.register_blueprint(openapi.bp)

    db.end_sessions(app)
    own_context = OwnContext(app.wsgi_app)
    app.wsgi_app = WholeBodies(own_context, LONGEST_BODY)  # type: ignore[method-assign]
    return app
