"""Engine options for each dialect, and the listeners of every engine."""

import os
from typing import Any

from flask import Flask
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from ..configuration import OVERFLOW, ServiceSettings
from . import fork_safety, sqlite
from .session import db, engines_of


def init_app(app: Flask, settings: ServiceSettings) -> None:
    """Create the application's engines and register their listeners. Opens no connection."""
    url, timeout, threads = settings.database_url, settings.database_timeout, settings.web_threads
    is_pooled = settings.database_pool == "external"
    options = engine_options(url, threads=threads, timeout=timeout, name=app.name, is_pooled=is_pooled)
    # Parameters hold client data, and a logged error includes its statement.
    options["hide_parameters"] = settings.app_env != "development"
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINE_OPTIONS=options)
    db.init_app(app)
    for engine in engines_of(app):
        fork_safety.watch(engine)
        if engine.dialect.name == "sqlite":
            sqlite.begin_explicitly(engine)
            sqlite.leave_removed_file(engine)
        elif engine.dialect.name == "postgresql":
            # Imported lazily: a SQLite project has no psycopg.
            from . import postgresql

            postgresql.limit_wait(engine, timeout)
            postgresql.ping_without_waiting(engine)
            postgresql.leave_stale_connections(engine)
            postgresql.execute_statements(engine)


def engine_options(
    url: str, *, threads: int, timeout: int, name: str, is_pooled: bool = False
) -> dict[str, Any]:
    """Return the engine options for the dialect of the URL; times are in seconds.

    With a pooler, the role sets the deadlines, and nothing is prepared, because the next statement may reach
    another backend.

    Flask-SQLAlchemy converts the pool's times to integers: 0.5 would become 0.
    """
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 5}}
    return {
        "pool_size": threads,
        "max_overflow": OVERFLOW,
        "pool_timeout": 2,
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "pool_use_lifo": True,
        "connect_args": connect_args(
            url,
            f"-c statement_timeout={timeout}s -c lock_timeout={timeout}s"
            " -c idle_in_transaction_session_timeout=60s",
            is_pooled=is_pooled,
            connect_timeout=2,
            application_name=name,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        ),
    }


def has_deadline(session: Session) -> bool:
    """Return whether the server cancels slow statements."""
    found: str | None = session.scalar(text("SHOW statement_timeout"))
    return found != "0"


def connect_args(url: str, options: str, *, is_pooled: bool, **defaults: object) -> dict[str, object]:
    """Return arguments for PostgreSQL: defaults for unset parameters, and options beside those of the URL."""
    given = make_url(url).normalized_query
    # As in libpq, the variable applies only if the URL has no options.
    own = given.get("options") or [os.environ.get("PGOPTIONS", "")]
    defaults["client_encoding"] = "utf8"  # A SQL_ASCII database would return bytes instead of text.
    missing = {name: value for name, value in defaults.items() if name not in given}
    if is_pooled:
        return missing | {"prepare_threshold": None}
    return missing | {"options": " ".join(filter(None, [*own, options]))}
