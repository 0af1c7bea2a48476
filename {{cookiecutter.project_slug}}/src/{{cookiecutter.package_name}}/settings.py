"""What is read from the environment, and nowhere else. Run as a module, it checks the environment."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import ipaddress
import math
import os
import re
import sys
import typing as t
from collections import Counter
from pathlib import Path

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

EX_CONFIG = 78  # <sysexits.h>; systemd's RestartPreventExitStatus=78 keeps it from trying again.
# What keys are made of that somebody meant to replace.
PLACEHOLDERS = {"changeme", "change-me", "change_me", "example", "insecure", "password", "secret"}
OFF = {"", "0", "false", "no"}  # What Flask takes FLASK_DEBUG for off by: flask.helpers.get_debug_flag.
DRIVERS = {"postgresql+psycopg": "psycopg", "sqlite+pysqlite": "sqlite3"}


class ConfigurationError(Exception):
    """The environment does not describe a service that can run; each problem is one line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _database_url(text: str) -> str:
    """Return the URL with its driver named and a SQLite path made absolute."""
    try:
        url = make_url(re.sub(r"^postgres://", "postgresql://", text))
    except (ArgumentError, ValueError):
        raise ValueError("is not a database URL such as postgresql://user:password@host/name") from None
    if url.drivername in {"postgresql", "sqlite"}:
        url = url.set(
            drivername=f"{url.drivername}+{'psycopg' if url.drivername == 'postgresql' else 'pysqlite'}"
        )
    if url.drivername not in DRIVERS:
        raise ValueError(f"names {url.drivername}, known are postgresql:// and sqlite:///")
    if importlib.util.find_spec(DRIVERS[url.drivername]) is None:
        raise ValueError(
            f"names {url.get_backend_name()}, whose driver {DRIVERS[url.drivername]} is not installed"
        )
    if url.get_backend_name() == "sqlite":
        return _sqlite_file(url)
    if not url.database:
        raise ValueError("names no database, add /name at its end")
    return url.render_as_string(hide_password=False)


def _sqlite_file(url: URL) -> str:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ValueError("names no file: in memory, every process would have a database of its own")
    # Flask-SQLAlchemy and Alembic resolve a relative path each in a way of their own.
    path = Path(url.database).absolute()
    if not path.parent.is_dir():
        raise ValueError(f"names a file in {path.parent}, which is no folder")
    return url.set(database=str(path)).render_as_string(hide_password=False)


def _bind(text: str) -> str:
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]*):([0-9]{1,5})", text)
    if not (match and int(match[1]) < 65536) and not re.fullmatch(r"unix:.+|fd://[0-9]+", text):
        raise ValueError("is not host:port (127.0.0.1:8000), unix:/path or fd://number")
    return text


def _tcp(text: str) -> str:
    if _bind(text).startswith(("unix:", "fd:")):
        raise ValueError("is not host:port (127.0.0.1:9100)")
    return text


def _hosts(text: object) -> object:
    """Return the names the service is called by; a leading dot takes every subdomain, too."""
    if not isinstance(text, str):
        return text
    hosts = tuple(host.strip() for host in text.split(","))
    for host in hosts:
        if not re.fullmatch(r"\.?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:.]+\]", host):
            raise ValueError("is not a list of names such as example.com,.example.org, without ports or *")
    return hosts


def _proxies(text: str) -> str:
    for address in text.split(","):
        if address.strip() != "*":
            try:
                ipaddress.ip_network(address.strip())
            except ValueError:
                raise ValueError("is not a list of addresses such as 127.0.0.1,10.0.0.0/8") from None
    return text


def _collector(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", url):
        raise ValueError("is not the address of a collector such as http://127.0.0.1:4318")
    _need(
        "opentelemetry.exporter.otlp.proto.http", "opentelemetry-sdk, opentelemetry-exporter-otlp-proto-http"
    )
    return url


def _dsn(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@:]+@[^\s/?#]+(/[^\s/?#]+)*/[0-9]+", url):
        raise ValueError("is not a DSN of Sentry such as https://key@host/1")
    _need("sentry_sdk", "sentry-sdk")
    return url


def _need(module: str, packages: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError:
        raise ValueError(f"needs {packages}: name them in pyproject.toml, make lock") from None


def _key(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 32:
        raise ValueError(
            "is shorter than 32 characters, make one with:"
            " python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    return secret


_lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


class Settings(BaseSettings):
    """Every setting of the service; the name in the environment is the field's name in capitals."""

    # An empty variable counts as a missing one; without hide_input_in_errors a secret could be printed.
    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    app_env: t.Annotated[t.Literal["production", "development", "testing"], _lower] = "production"
    database_url: t.Annotated[str, AfterValidator(_database_url)] = Field(repr=False)
    secret_key: t.Annotated[SecretStr, AfterValidator(_key)]
    log_level: t.Annotated[t.Literal["debug", "info", "warning", "error", "critical"], _lower] = "info"
    log_format: t.Annotated[t.Literal["json", "text"] | None, _lower] = None
    database_timeout: PositiveInt = Field(default=2, le=3600)
    uncommitted_work: t.Annotated[t.Literal["raise", "log", "off"] | None, _lower] = None

    web_bind: t.Annotated[str, AfterValidator(_bind)] = "127.0.0.1:8000"
    web_protocol: t.Literal["http", "uwsgi"] | None = None
    web_concurrency: PositiveInt | None = Field(default=None, le=512)
    web_threads: PositiveInt = Field(default=4, le=512)
    web_worker_class: t.Literal["gthread", "sync", "gevent", "gevent_pywsgi"] = "gthread"
    web_preload: bool = True
    metrics_bind: t.Annotated[str, AfterValidator(_tcp)] | None = None
    forwarded_allow_ips: t.Annotated[str, AfterValidator(_proxies)] = "127.0.0.1,::1"
    otel_exporter_otlp_endpoint: t.Annotated[str, AfterValidator(_collector)] | None = None
    sentry_dsn: t.Annotated[str, AfterValidator(_dsn)] | None = Field(default=None, repr=False)
    trusted_hosts: t.Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_hosts)] = None

    @model_validator(mode="after")
    def _ports_differ(self) -> t.Self:
        # What came at the port of the metrics is told by the port alone.
        if self.metrics_bind and self.metrics_bind.rpartition(":")[2] == self.web_bind.rpartition(":")[2]:
            raise ValueError("METRICS_BIND has the port of WEB_BIND, give it another one")
        return self

    @property
    def log_style(self) -> str:
        """Say how lines of the log are written: `json`, or `text` for people."""
        return self.log_format or ("json" if self.app_env == "production" else "text")

    @property
    def on_uncommitted_work(self) -> str:
        """Say what a request that forgot its commit comes to: `raise`, `log` or `off`."""
        return self.uncommitted_work or ("log" if self.app_env == "production" else "raise")


@functools.cache
def load() -> Settings:
    """Read the environment once, so that a reload of the server's own file cannot change what runs.

    Raises `ConfigurationError` with all problems at once.
    """
    try:
        settings = Settings()  # type: ignore[call-arg]  # The fields come from the environment.
    except ValidationError as error:
        problems = [
            " ".join([*(str(part).upper() for part in e["loc"][:1]), _reason(e["type"], e["msg"])])
            for e in error.errors()
        ]
        raise ConfigurationError(problems + _misspellings()) from None
    if problems := [*_misspellings(), *_unsafe(settings)]:
        raise ConfigurationError(problems)
    return settings


def load_or_exit() -> Settings:
    """Read the environment, or end the process with 78 and one line for each problem."""
    try:
        return load()
    except ConfigurationError as error:
        exit_with(error)


def exit_with(error: ConfigurationError) -> t.NoReturn:
    """End the process with 78 (EX_CONFIG) and one line for each problem, without a traceback."""
    for problem in error.problems:
        sys.stderr.write(f"configuration error: {problem}\n")
    sys.stderr.flush()
    raise SystemExit(EX_CONFIG)


def tcp_address(bind: str) -> tuple[str, int]:
    """Return host and port of an address, or end the process with 78 when it names a socket file."""
    host, _, port = bind.rpartition(":")
    if not port.isdigit():
        exit_with(ConfigurationError(["WEB_BIND names a socket file, this server needs host:port"]))
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  # What ":8000" means elsewhere.


def check_uwsgi_address(settings: Settings) -> None:
    """End the process with 78 where uWSGI cannot listen, or where clients could reach it without a proxy.

    Its HTTP parser takes what is no HTTP, so a proxy and it may see different requests in the same
    bytes; its own protocol trusts whoever speaks it.
    """
    bind, protocol = settings.web_bind, settings.web_protocol
    problem = None
    if bind.startswith("unix:"):
        problem = "WEB_BIND names a socket file, uWSGI needs host:port, or fd://3 for systemd's socket"
    elif not _is_local(bind) and protocol == "uwsgi":
        problem = f"WEB_BIND={bind} lets others than this machine speak the uwsgi protocol"
    elif not _is_local(bind) and protocol is None and settings.app_env == "production":
        problem = (
            f"WEB_BIND={bind} lets clients reach uWSGI, which takes malformed requests: bind 127.0.0.1 and"
            " put a proxy in front, or set WEB_PROTOCOL=http where nobody but a proxy can reach this address"
        )
    if problem:
        exit_with(ConfigurationError([problem]))


def _is_local(bind: str) -> bool:
    return bind.startswith("fd://") or is_loopback(bind.rpartition(":")[0])


def _reason(kind: str, message: str) -> str:
    if kind == "missing":
        return "is missing: set it in the environment (`make serve` reads .env)"
    return message.removeprefix("Value error, ").replace("Input should be", "should be")


def _unsafe(settings: Settings) -> list[str]:
    """Name what no production may have; what should only be thought about is for doctor.py."""
    if settings.app_env != "production":
        return []
    problems = []
    if os.environ.get("FLASK_DEBUG", "").lower() not in OFF:
        problems.append("FLASK_DEBUG shows clients tracebacks, and APP_ENV is production: take one away")
    key = settings.secret_key.get_secret_value()
    if bits_of(key) < 100 or any(word in key.lower() for word in PLACEHOLDERS):
        problems.append(
            "SECRET_KEY can be guessed, make one with:"
            " python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    if needs_no_password(make_url(settings.database_url)):
        problems.append(
            "DATABASE_URL names another machine's database and no password: add one,"
            " or ?require_auth=none if that is meant"
        )
    return problems


def bits_of(key: str) -> float:
    """Return how many bits a key has, if each of its characters were drawn as often as it occurs."""
    # What is repeated counts once.
    period = (key + key).find(key, 1)
    counts = Counter(key[:period])
    return -sum(n * math.log2(n / period) for n in counts.values())


def needs_no_password(url: URL) -> bool:
    """Say whether a database that is reached by the network lets in who only knows its name."""
    known = url.password or any(
        os.environ.get(name) for name in ("PGPASSWORD", "PGPASSFILE", "PGREQUIREAUTH")
    )
    told = any(
        values_of(url, name) for name in ("password", "passfile", "sslcert", "require_auth", "service")
    )
    return bool(remote_hosts(url)) and not known and not told


def remote_hosts(url: URL) -> list[str]:
    """Return the hosts of a database's URL that are not this machine; it may name several."""
    several = ",".join((*values_of(url, "host"), *values_of(url, "hostaddr"))).split(",")
    named = [url.host or "", *(re.sub(r"^([^:]+|\[.*\]):[0-9]*$", r"\1", host) for host in several)]
    if not any(named) and url.get_backend_name() == "postgresql":
        named = os.environ.get("PGHOST", "").split(",")
    return [host for host in named if host and not host.startswith("/") and not is_loopback(host)]


def values_of(url: URL, name: str) -> tuple[str, ...]:
    """Return what a URL's query says by a name: nothing, something, or several things."""
    found = url.query.get(name, ())
    return (found,) if isinstance(found, str) else tuple(found)


def is_loopback(host: str) -> bool:
    """Say whether a host's name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _misspellings() -> list[str]:
    """Name each variable that looks like one of ours which is not set."""
    ours = {name.upper() for name in Settings.model_fields}
    pairs = (
        (name, close)
        for name in sorted(ours - os.environ.keys())
        for close in difflib.get_close_matches(name, os.environ.keys() - ours, cutoff=0.85)
    )
    return [
        f"{close} is no setting, {name} is: correct it or remove it"
        for name, close in pairs
        # DATABASE_URL_RO or TEST_SECRET_KEY are names of somebody else's settings.
        if not close.startswith(f"{name}_") and not close.endswith(f"_{name}")
    ]


if __name__ == "__main__":
    load_or_exit()
