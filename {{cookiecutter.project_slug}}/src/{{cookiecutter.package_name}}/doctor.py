"""Look at the service as it is configured here, and tell what should not go into production.

Run as a module, with the settings of production in the environment: `python -m` and this module's
name. Ends with 0 when nothing is wrong, 1 when something is, 78 when the service would not even start.
What Django's `check --deploy` asks is asked here too, where it applies.
"""

from __future__ import annotations

import os
import sys
import typing as t
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flask import Flask
from sqlalchemy import URL, make_url

from .app import create_app
from .settings import (
    OFF,
    PLACEHOLDERS,
    Settings,
    bits_of,
    is_loopback,
    load_or_exit,
    needs_no_password,
    remote_hosts,
    values_of,
)

ENCRYPTED = {"verify-full", "verify-ca", "require"}
HTTPS = {"wsgi.url_scheme": "https"}
COMMON = {"admin", "changeme", "password", "postgres", "root", "secret", "test"}


@dataclass(frozen=True)
class Service:
    """What is looked at: the settings, the application they make, and an answer of it over HTTPS."""

    settings: Settings
    app: Flask
    headers: dict[str, str]
    environment: t.Mapping[str, str]

    @property
    def url(self) -> URL:
        return make_url(self.settings.database_url)

    @property
    def is_remote_database(self) -> bool:
        return bool(remote_hosts(self.url))

    @property
    def has_common_password(self) -> bool:
        return bool(self.url.password) and self.url.password in COMMON | {self.url.username}

    @property
    def is_encrypted(self) -> bool:
        # The URL has the last word, as it has with libpq.
        asked = values_of(self.url, "sslmode") or (self.environment.get("PGSSLMODE"),)
        return asked[-1] in ENCRYPTED


@dataclass(frozen=True)
class Check:
    """Something that may be wrong: how to find out, and what to tell."""

    name: str
    is_wrong: Callable[[Service], object]
    what: str
    mend: str


def _lacks(header: str, *values: str) -> Callable[[Service], bool]:
    return lambda s: (
        not any(value in s.headers.get(header, "") for value in values or ("",)) or (header not in s.headers)
    )


CHECKS = [
    # -- how it runs -------------------------------------------------------------------------------
    Check(
        "E01",
        lambda s: s.settings.app_env != "production",
        "APP_ENV is not production: this looks at something else than what will run",
        "set APP_ENV=production, or nothing: it is the default",
    ),
    Check(
        "E02",
        lambda s: s.app.debug or s.environment.get("FLASK_DEBUG", "").lower() not in OFF,
        "debug is on: clients get tracebacks, and a shell where the debugger runs",
        "leave app.debug alone",
    ),
    Check(
        "E03",
        lambda s: s.app.testing or s.app.config["PROPAGATE_EXCEPTIONS"],
        "exceptions are handed to the server: clients get no answer to a failure",
        "leave TESTING and PROPAGATE_EXCEPTIONS alone in app.py",
    ),
    Check(
        "E04",
        lambda s: hasattr(os, "geteuid") and os.geteuid() == 0,
        "it runs as root: who gets into it has the machine",
        "run it as a user of its own",
    ),
    Check(
        "E05",
        lambda s: s.environment.get("PYTHONDEVMODE") or s.environment.get("PYTHONTRACEMALLOC"),
        "Python's development mode is on: it costs memory and time",
        "take PYTHONDEVMODE and PYTHONTRACEMALLOC away",
    ),
    # -- secrets -----------------------------------------------------------------------------------
    Check(
        "S01",
        lambda s: bits_of(s.settings.secret_key.get_secret_value()) < 100,
        "SECRET_KEY can be guessed: it has fewer than 100 bits",
        "make one: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'",
    ),
    Check(
        "S02",
        lambda s: any(word in s.settings.secret_key.get_secret_value().lower() for word in PLACEHOLDERS),
        "SECRET_KEY contains a word that such keys are made of",
        "make one: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'",
    ),
    Check(
        "S03",
        lambda s: s.app.config["SECRET_KEY_FALLBACKS"],
        "SECRET_KEY_FALLBACKS are in force: what old keys have signed is still believed",
        "take them away when the rotation is over",
    ),
    # -- the database ------------------------------------------------------------------------------
    Check(
        "D01",
        lambda s: s.url.get_backend_name() == "sqlite" and _is_installed("psycopg"),
        "the database is SQLite, and this project was made for PostgreSQL",
        "set DATABASE_URL=postgresql://user:password@host/name",
    ),
    Check(
        "D02",
        lambda s: s.is_remote_database and (s.has_common_password or needs_no_password(s.url)),
        "the database's password is empty or one that everybody tries",
        "give the role a password of its own",
    ),
    Check(
        "D03",
        lambda s: s.is_remote_database and not s.is_encrypted,
        "the connection to the database may go unencrypted",
        "add ?sslmode=verify-full to DATABASE_URL (or require, where nobody can stand in between)",
    ),
    Check(
        "D04",
        lambda s: s.is_remote_database and s.url.username in {"postgres", "root"},
        "the service is the database's superuser: an injection could do anything",
        "give it a role of its own that owns its tables alone",
    ),
    Check(
        "D05",
        lambda s: s.settings.database_timeout >= 30,
        "a statement may take 30 seconds and more: a few slow ones hold every thread",
        "lower DATABASE_TIMEOUT, and do what takes long outside of requests",
    ),
    # -- who is answered, who is believed ----------------------------------------------------------
    Check(
        "H01",
        lambda s: not s.settings.trusted_hosts,
        "any Host is answered: links that are made from it may lead elsewhere",
        "set TRUSTED_HOSTS=example.com",
    ),
    Check(
        "H02",
        lambda s: "*" in s.settings.forwarded_allow_ips,
        "everybody is believed to be a proxy: any client chooses its address, scheme and request id",
        "name the proxies in FORWARDED_ALLOW_IPS, unless nobody but a proxy can reach the service",
    ),
    Check(
        "H03",
        lambda s: s.settings.metrics_bind and not is_loopback(s.settings.metrics_bind.rpartition(":")[0]),
        "METRICS_BIND answers others than this machine",
        "bind 127.0.0.1, unless a network policy admits the scraper alone",
    ),
    Check(
        "H04",
        lambda s: not s.app.config["MAX_CONTENT_LENGTH"],
        "a body may be as long as it likes",
        "set MAX_CONTENT_LENGTH in app.py",
    ),
    Check(
        "H05",
        lambda s: not s.app.config["MAX_FORM_MEMORY_SIZE"] or not s.app.config["MAX_FORM_PARTS"],
        "a form may have as many parts as it likes",
        "set MAX_FORM_MEMORY_SIZE and MAX_FORM_PARTS in app.py",
    ),
    # -- what is told ------------------------------------------------------------------------------
    Check(
        "L01",
        lambda s: s.settings.log_level == "debug",
        "the log tells everything, parameters of statements among them",
        "set LOG_LEVEL=info",
    ),
    Check(
        "L02",
        lambda s: s.settings.log_style != "json",
        "the log is text: a client's line break is one in the log of an exception",
        "set LOG_FORMAT=json",
    ),
    Check(
        "L03",
        lambda s: s.settings.on_uncommitted_work == "off",
        "nobody is told when a request forgets its commit",
        "set UNCOMMITTED_WORK=log",
    ),
    # -- browsers ----------------------------------------------------------------------------------
    Check(
        "B01",
        _lacks("Strict-Transport-Security", "max-age="),
        "browsers are not told to come by HTTPS only",
        "send Strict-Transport-Security (edge.py)",
    ),
    Check(
        "B02",
        _lacks("Strict-Transport-Security", "includeSubDomains"),
        "browsers may come to subdomains without HTTPS",
        "add includeSubDomains to Strict-Transport-Security (edge.py)",
    ),
    Check(
        "B03",
        _lacks("X-Content-Type-Options", "nosniff"),
        "browsers guess what an answer is",
        "send X-Content-Type-Options: nosniff (edge.py)",
    ),
    Check(
        "B04",
        _lacks("X-Frame-Options", "DENY"),
        "other sites may show this one in a frame",
        "send X-Frame-Options: DENY (edge.py)",
    ),
    Check(
        "B05",
        _lacks("Content-Security-Policy", "default-src 'none'", "default-src 'self'"),
        "a page may load anything from anywhere",
        "send a Content-Security-Policy that begins with default-src 'none' or 'self' (edge.py)",
    ),
    Check(
        "B06",
        _lacks("Referrer-Policy", "no-referrer", "same-origin", "strict-origin"),
        "other sites learn the addresses of this one's pages",
        "send Referrer-Policy: no-referrer (edge.py)",
    ),
    Check(
        "B07",
        _lacks("Cross-Origin-Opener-Policy", "same-origin"),
        "other sites' windows can reach this one's",
        "send Cross-Origin-Opener-Policy: same-origin (edge.py)",
    ),
    Check(
        "B08",
        lambda s: not s.app.config["SESSION_COOKIE_SECURE"],
        "a session cookie would go over plain HTTP",
        "set SESSION_COOKIE_SECURE in app.py",
    ),
    Check(
        "B09",
        lambda s: not s.app.config["SESSION_COOKIE_HTTPONLY"],
        "scripts could read a session cookie",
        "set SESSION_COOKIE_HTTPONLY in app.py",
    ),
    Check(
        "B10",
        lambda s: s.app.config["SESSION_COOKIE_SAMESITE"] not in {"Lax", "Strict"},
        "other sites could send requests with a session cookie",
        "set SESSION_COOKIE_SAMESITE to Lax in app.py",
    ),
]


def examine(settings: Settings, environment: t.Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Return each check that finds something wrong."""
    app = create_app(settings)
    # Not a test: TESTING would change what is looked at.
    answer = app.test_client().get("/livez", environ_overrides=HTTPS, buffered=True)
    service = Service(settings, app, dict(answer.headers), environment)
    return (check for check in CHECKS if check.is_wrong(service))


def main() -> int:
    """Print what is wrong, two lines for each, and return the exit status."""
    found = list(examine(load_or_exit()))
    for check in found:
        sys.stdout.write(f"{check.name} {check.what}\n    {check.mend}\n")
    sys.stdout.write(f"{len(CHECKS)} checks, {len(found) or 'nothing'} to mend\n")
    return 1 if found else 0


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


if __name__ == "__main__":
    sys.exit(main())
