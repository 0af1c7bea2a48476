"""Checks for production. Exit code: 0 without findings, 1 with findings, 78 without valid settings.

With --json, the output is a list of objects with name, problem and fix.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from flask import Flask
from flask.helpers import get_debug_flag
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from .. import configuration
from ..application import NoSessions
from ..configuration import Finding, ServiceSettings
from ..database.engine import engine_options, has_deadline
from .project import create_app, settings_class

COMMON = {"admin", "changeme", "password", "postgres", "root", "secret", "test"}


def examine(settings: ServiceSettings) -> Iterator[Finding]:
    """Yield each finding; settings of another environment are checked as in production."""
    production = settings.model_copy(update={"app_env": "production"})
    if settings.app_env != "production":
        yield Finding("APP_ENV", f"is {settings.app_env}, examined as production", "remove it in production")
    for name, problem, fix in configuration.refusals(production):
        yield Finding(name, f"{problem}; the service would not start", fix)
    if os.geteuid() == 0:
        yield Finding("UID", "is 0 (root): a compromise gives the whole host", "use an unprivileged user")
    yield from _database(make_url(production.database_url))
    if production.database_pool == "external":
        yield from _pooled(production)
    yield from _settings(production)
    yield from _application(create_app(production))


def _database(url: URL) -> Iterator[Finding]:
    if url.get_backend_name() == "sqlite" and find_spec("psycopg"):
        yield Finding("DATABASE_URL", "names SQLite in a project for PostgreSQL", "name a PostgreSQL server")
    if not configuration.remote_hosts(url):
        return
    if url.password and url.password in COMMON | {url.username}:
        yield Finding("DATABASE_URL", "contains a password that attackers try first", "set a random one")
    # As in libpq, the URL overrides the environment.
    modes = url.normalized_query.get("sslmode") or (os.environ.get("PGSSLMODE", ""),)
    if modes[-1] not in {"verify-full", "verify-ca", "require"}:
        problem = "permits an unencrypted connection"
        yield Finding("DATABASE_URL", problem, "add ?sslmode=verify-full, or =require on a trusted network")
    if url.username in {"postgres", "root"}:
        problem = "names the database's superuser: an SQL injection could do anything"
        yield Finding("DATABASE_URL", problem, "use a role that owns only the tables of this service")


def _pooled(settings: ServiceSettings) -> Iterator[Finding]:
    """Yield the settings missing from the role if a pooler prevents the service from setting them."""
    options = engine_options(settings.database_url, threads=1, timeout=2, name="doctor", is_pooled=True)
    engine = create_engine(settings.database_url, **options)
    try:
        with Session(engine) as session:
            if not has_deadline(session):
                problem = "is external, and the role has no deadline: statement_timeout is 0"
                yield Finding("DATABASE_POOL", problem, "ALTER ROLE … SET statement_timeout = '2s'")
    except SQLAlchemyError as error:
        problem = f"cannot be reached ({type(error).__name__}), so the deadlines of its role are unknown"
        yield Finding("DATABASE_URL", problem, "run this where the database can be reached")
    finally:
        engine.dispose()


def _settings(settings: ServiceSettings) -> Iterator[Finding]:
    if settings.database_timeout >= 30:
        problem = "permits statements of 30 seconds and more: a few slow ones block every thread"
        yield Finding("DATABASE_TIMEOUT", problem, "lower it, and move slow work out of requests")
    host = settings.web_bind.rpartition(":")[0]
    is_local = settings.web_bind.startswith(("unix:", "fd:")) or configuration.is_loopback(host)
    has_proxy = not set(re.split("[ ,]+", settings.forwarded_allow_ips)) <= {"127.0.0.1", "::1"}
    waits_for_clients = settings.web_worker_class in {"gthread", "sync"}
    if waits_for_clients and not (is_local or has_proxy):
        problem = "accepts connections from other machines, and no proxy there is trusted"
        other = ", or set WEB_WORKER_CLASS=gthread_patient" if find_spec("gunicorn") else ""
        yield Finding("WEB_BIND", f"{problem}: slow clients block each thread", f"put nginx in front{other}")
    if not 0 < settings.longest_wait < 5000:
        problem = f"is {settings.longest_wait} ms: under overload, clients leave before they get a response"
        yield Finding("QUEUE_LIMIT", problem, "remove it, so that it is 500")
    elif sys.platform != "linux":
        problem = "has no effect: only Linux counts how long a request has waited"
        yield Finding("QUEUE_LIMIT", problem, "run the service on Linux")
    if not settings.trusted_hosts:
        problem = "is not set: any Host is accepted, and links built from it may lead to another site"
        yield Finding("TRUSTED_HOSTS", problem, "set TRUSTED_HOSTS=example.com")
    if re.fullmatch(r"[A-Za-z]+(?:[ ,.'-]+[A-Za-z]+)+[ .!?]*", settings.secret_key.get_secret_value()):
        yield Finding("SECRET_KEY", "is a sentence: words are guessed from lists", configuration.MAKE_KEY)
    if "*" in settings.forwarded_allow_ips or "/0" in settings.forwarded_allow_ips:
        problem = "trusts every peer: a direct client can choose its address, scheme and request id"
        yield Finding("FORWARDED_ALLOW_IPS", problem, "list the proxies, unless only they reach the service")
    if settings.metrics_bind and not configuration.is_loopback(settings.metrics_bind.rpartition(":")[0]):
        problem = "accepts connections from other machines"
        yield Finding("METRICS_BIND", problem, "bind 127.0.0.1, unless only the scraper reaches this port")
    if settings.log_level == "debug":
        yield Finding("LOG_LEVEL", "is debug: libraries may log data of clients", "set LOG_LEVEL=info")
    if settings.log_style != "json":
        yield Finding("LOG_FORMAT", "is text: a client's line break can forge a line", "set LOG_FORMAT=json")
    if settings.on_uncommitted_work == "off":
        yield Finding("UNCOMMITTED_WORK", "is off: no log line for a forgotten commit", "set it to log")


def _application(app: Flask) -> Iterator[Finding]:
    """Yield unsafe changes in app.py."""
    for name in ("DEBUG", "TESTING", "PROPAGATE_EXCEPTIONS"):
        # FLASK_DEBUG sets DEBUG as well, and is already a finding.
        if app.config[name] and not (name == "DEBUG" and get_debug_flag()):
            yield Finding(name, "is on: exceptions reach the server unanswered", "remove it from app.py")
    for name in ("MAX_CONTENT_LENGTH", "MAX_FORM_MEMORY_SIZE", "MAX_FORM_PARTS"):
        if app.config[name] is None:
            yield Finding(name, "is None: the size of a request has no limit", "set a number in app.py")
    if isinstance(app.session_interface, NoSessions):
        return
    for name, risk in {"SECURE": "plain HTTP sends", "HTTPONLY": "scripts can read"}.items():
        if not app.config[f"SESSION_COOKIE_{name}"]:
            yield Finding(f"SESSION_COOKIE_{name}", f"is off: {risk} the cookie", "set it to True in app.py")
    if str(app.config["SESSION_COOKIE_SAMESITE"]).title() not in {"Lax", "Strict"}:
        problem = "is neither Lax nor Strict: requests from other sites carry the session cookie"
        yield Finding("SESSION_COOKIE_SAMESITE", problem, "set it to Lax in app.py")


def main() -> int:
    """Print two lines per finding and the count, or JSON, and return the exit code."""
    try:
        found = list(examine(configuration.read_environment(settings_class())))
    except configuration.ConfigurationError as error:
        configuration.exit_with(error)
    if sys.argv[1:] == ["--json"]:
        sys.stdout.write(json.dumps([finding._asdict() for finding in found]))
        return 1 if found else 0
    for name, problem, fix in found:
        sys.stdout.write(f"{name} {problem}\n    {fix}\n")
    sys.stdout.write(f"findings: {len(found)}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
