"""The settings of the service, read from the environment and nowhere else."""

import contextlib
import difflib
import functools
import importlib.util
import ipaddress
import math
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, TypeVar, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

PLACEHOLDERS = {"changeme", "change-me", "change_me", "example", "insecure", "password", "secret"}
PLACEHOLDERS |= {"replaceme", "replace-me", "replace_me", "placeholder", "your-key", "your_key"}
DEADLINES = re.compile(
    r"(?:-c\s*|--)(statement_timeout|lock_timeout|idle_in_transaction_session_timeout)\s*="
)
NUMBERS = re.compile("(connect|tcp_user)_timeout|keepalives.*")  # libpq reads these when it connects.
OVERFLOW = 2  # spare connections per process, beyond one per thread, for requests that open a second one
# Connections that may wait: more than QUEUE_LIMIT times the rate of arrival. The kernel drops any more, and
# their clients retry only after a second.
BACKLOG = 4096
GRACE = 25  # seconds for requests in flight after SIGTERM; shorter than the supervisor's deadline
QUEUE_LIMIT = 500  # milliseconds; well below the timeouts of clients
SERVER_NAME = "web"  # The Server header: the name of the real server would help an attacker.
DEFAULT_PORTS = {("http", "80"), ("https", "443")}
DRIVERS = {"postgresql+psycopg": "psycopg", "sqlite+pysqlite": "sqlite3"}
MAKE_KEY = "make one with python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
SettingsT = TypeVar("SettingsT", bound="ServiceSettings")


class ConfigurationError(Exception):
    """An invalid configuration; each problem is one line."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Finding(NamedTuple):
    """A configuration problem and its fix."""

    name: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.name} {self.problem}: {self.fix}"


def _database_url(text: str) -> str:
    """Return the URL with an explicit driver and an absolute SQLite path."""
    text = re.sub(r"^postgres(ql)?:", "postgresql+psycopg:", re.sub(r"^sqlite:", "sqlite+pysqlite:", text))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("is not a database URL such as postgresql://user:password@host/name") from None
    if url.drivername not in DRIVERS:
        raise ValueError(f"names {url.drivername}, known are postgresql:// and sqlite:///")
    driver, backend = DRIVERS[url.drivername], url.get_backend_name()
    if importlib.util.find_spec(driver) is None:
        raise ValueError(f"names {backend}, whose driver {driver} is not installed")
    if backend != "sqlite":
        if importlib.util.find_spec("psycopg"):  # Tests may replace it.
            _check_parameters(url)
        if not url.database:
            raise ValueError("names no database, add /name at its end")
        if not 0 < (url.port or 5432) < 65536:
            raise ValueError(f"has the port {url.port}, the last one is 65535")
        return url.render_as_string(hide_password=False)
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ValueError("names no file: in memory, every process would have a separate database")
    # Flask-SQLAlchemy and Alembic each resolve a relative path differently.
    path = Path(url.database).absolute()
    if not path.parent.is_dir():
        raise ValueError(f"names a file in {path.parent}, which is no folder")
    _check_parameters(url)
    return url.set(database=str(path)).render_as_string(hide_password=False)


def _check_parameters(url: URL) -> None:
    """Reject parameters that the driver does not know or ignores, and values that libpq rejects."""
    known: set[str] = set()
    postgresql = url.get_backend_name() == "postgresql"
    if postgresql and (url.query or any(name.startswith("PG") for name in os.environ)):
        # Imported lazily: it would slow every startup, and few URLs have parameters.
        from psycopg.pq import Conninfo

        known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    for name in url.query.keys() - known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"perhaps {close[0]} is meant" if close else "remove it"
        raise ValueError(f"has the parameter {name}, which has no effect: {hint}")
    if known and (reason := _refused_by_libpq(url.normalized_query)):
        raise ValueError(f"has a parameter, or a PG… variable has a value, that cannot work: {reason}")
    for option in url.normalized_query.get("options", ()):
        if found := DEADLINES.search(option):
            raise ValueError(f"sets {found[1]} in options, which has no effect: set DATABASE_TIMEOUT")


def _refused_by_libpq(parameters: Mapping[str, Sequence[str]]) -> str:
    """Return why libpq would reject these parameters, or its own variables, before it connects."""
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import PGconn

    nowhere = "/dev/null"  # Not a directory, so no server is reachable.
    texts = {name: ",".join(values) for name, values in parameters.items()}
    for name in texts:
        if NUMBERS.fullmatch(name) and not re.fullmatch("-?[0-9]+", texts[name]):
            return f"{name} is not a number"
    here = {"host": nowhere, "hostaddr": "", "port": "5432"}
    attempt = PGconn.connect(make_conninfo("", **(texts | here)).encode())
    reason = attempt.error_message.decode(errors="replace").strip()
    attempt.finish()
    return "" if nowhere in reason else reason


def _pool(pool: str, info: ValidationInfo) -> str:
    """Reject connection options if a pooler shares connections between clients."""
    url = info.data.get("database_url")
    if pool == "external" and url and url.startswith("sqlite"):
        raise ValueError("is external, but SQLite has no pooler: remove it")
    if pool == "external" and url and (os.environ.get("PGOPTIONS") or "options" in make_url(url).query):
        raise ValueError("is external, and a pooler rejects options: ALTER ROLE … SET search_path = …")
    return pool


def _count(value: str | int | None) -> str | int | None:
    if not re.fullmatch("[0-9]+", str(value or 0)):  # uWSGI interprets "+4" and "4.0" differently.
        raise ValueError("is not a number such as 4")
    return value


def _bind(text: str) -> str:
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]*):([0-9]{1,5})", text)
    if not (match and int(match[1]) < 65536) and not re.fullmatch(r"unix:.+|fd://[0-9]+", text):
        raise ValueError("is not host:port (127.0.0.1:8000), unix:/path or fd://number")
    return text


def _metrics_bind(text: str, info: ValidationInfo) -> str:
    if _bind(text).startswith(("unix:", "fd:")) or int(text.rpartition(":")[2]) == 0:
        raise ValueError("is not host:port with a fixed port (127.0.0.1:9100)")
    # Metrics requests are recognised by their port.
    if text.rpartition(":")[2] == info.data.get("web_bind", "").rpartition(":")[2]:
        raise ValueError("has the port of WEB_BIND, give it another one")
    return text


def _hosts(text: str | None) -> tuple[str, ...] | None:
    """Return the host names of the service; a leading dot includes every subdomain."""
    hosts = tuple(host.strip().lower() for host in text.split(",")) if text else None
    pattern = r"\.?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:.]+\]"
    if not all(re.fullmatch(pattern, host) for host in hosts or ()):
        raise ValueError("is not a list of names such as example.com,.example.org, without ports or *")
    return hosts


def _origins(text: str | None, info: ValidationInfo) -> tuple[str, ...] | None:
    """Return the origins as browsers send them: in lower case, without a default port."""
    origins = tuple(origin.strip() for origin in text.split(",")) if text else None
    pattern = r"https?://(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
    for origin in origins or ():
        scheme, _, port = origin.partition(":")[0], *origin.rpartition(":")[1:]
        if origin != "*" and (not re.fullmatch(pattern, origin) or (scheme, port) in DEFAULT_PORTS):
            raise ValueError("is not a list of origins such as https://app.example.com, without paths")
    if origins and "*" in origins and (len(origins) > 1 or info.data.get("cors_credentials")):
        raise ValueError("has * beside another origin or CORS_CREDENTIALS: list the origins")
    return origins


def _prefix(text: str) -> str:
    if not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)+", text):
        raise ValueError("is not a path such as /api, without a slash at its end")
    return text


def _proxies(text: str) -> str:
    try:
        for address in {address.strip() for address in text.split(",")} - {"*"}:
            ipaddress.ip_network(address)
    except ValueError:
        raise ValueError("is not a list of addresses such as 127.0.0.1,10.0.0.0/8") from None
    return text


def _backend(pattern: str, description: str, *modules: str) -> AfterValidator:
    """Return a check of a telemetry backend's address and of the packages that it requires."""

    def check(url: str) -> str:
        if not re.fullmatch(pattern, url):
            raise ValueError(f"is not {description}")
        try:
            for module in modules:
                importlib.import_module(module)
        except ImportError:
            packages = re.sub("[._]", "-", ", ".join(modules))
            raise ValueError(f"needs {packages}: add them to pyproject.toml, then run make lock") from None
        return url

    return AfterValidator(check)


def _key(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 32:
        raise ValueError(f"is shorter than 32 characters: {MAKE_KEY}")
    return secret


def _fallbacks(text: str | tuple[str, ...]) -> tuple[SecretStr, ...]:
    keys = text.split(",") if isinstance(text, str) else text
    return tuple(_key(SecretStr(key.strip())) for key in keys)


_collector = _backend(
    r"https?://[^\s/?#]+[^\s?#]*",
    "the address of a collector such as http://127.0.0.1:4318",
    "opentelemetry.sdk",
    "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry.instrumentation.wsgi",
    "opentelemetry.instrumentation.sqlalchemy",
)
_dsn_pattern = r"https?://[^\s/@:]+@[^\s/?#]+(/[^\s/?#]+)*/[0-9]+"
_dsn = _backend(_dsn_pattern, "a DSN of Sentry such as https://key@host/1", "sentry_sdk")
_Count = Annotated[int, BeforeValidator(_count)]
_lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


class ServiceSettings(BaseSettings):
    """The settings of the foundation; each field is read from the variable of the same name in capitals."""

    # An empty variable counts as missing; without hide_input_in_errors, errors could print a secret.
    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read the files of `_FILE` variables, and reject values with stray spaces or line breaks."""
        values = {name: value for name, value in values.items() if value != ""}
        for name in ("database_url", "migration_database_url", "secret_key", "secret_key_fallbacks"):
            if file := values.get(f"{name}_file"):
                if name in values:
                    raise ValueError(f"{name.upper()} and {name.upper()}_FILE are both set: remove one")
                try:
                    values[name] = Path(file).read_text("utf-8").strip()
                except (OSError, ValueError) as error:
                    raise ValueError(f"{name.upper()}_FILE cannot be read: {error}") from None
        for name, value in values.items():
            if isinstance(value, str) and not (value.isprintable() and value == value.strip()):
                raise ValueError(f"{name.upper()} has a line break, or a space at an end: remove it")
        return values

    app_env: Annotated[Literal["production", "development", "testing"], _lower] = Field(
        "production", description="Where the service runs; production rejects unsafe settings"
    )
    database_url: Annotated[str, AfterValidator(_database_url)] = Field(
        repr=False, description="postgresql://user:password@host/name or sqlite:////absolute/path.db"
    )
    migration_database_url: Annotated[str, AfterValidator(_database_url)] | None = Field(
        None, repr=False, description="Where migrations run, bypassing a pooler; by default DATABASE_URL"
    )
    database_pool: Annotated[Literal["app", "external"], _lower, AfterValidator(_pool)] = Field(
        "app", description="external: a pooler such as PgBouncer is used, and roles set the deadlines"
    )
    secret_key: Annotated[SecretStr, AfterValidator(_key)] = Field(description="At least 32 characters")
    database_url_file: Path | None = Field(None, description="A file with DATABASE_URL, in place of it")
    migration_database_url_file: Path | None = Field(
        None, description="A file with MIGRATION_DATABASE_URL, in place of it"
    )
    secret_key_file: Path | None = Field(None, description="A file with SECRET_KEY, in place of it")
    secret_key_fallbacks_file: Path | None = Field(
        None, description="A file with SECRET_KEY_FALLBACKS, in place of it"
    )
    secret_key_fallbacks: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_fallbacks)] = Field(
        (), description="Former keys, whose signatures are still accepted"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], _lower] = Field(
        "info", description="The lowest level that is logged; with warning, requests are not logged"
    )
    log_format: Annotated[Literal["json", "text"] | None, _lower] = Field(
        None, description="The format of log lines; by default json in production, else text"
    )
    database_timeout: int = Field(
        2, gt=0, le=3600, description="Seconds a statement of a request may take; then the client gets a 503"
    )
    queue_limit: int | None = Field(
        None,
        ge=0,
        le=60_000,
        description="Milliseconds a request may wait before a 503; by default 500 in production, else 0",
    )
    uncommitted_work: Annotated[Literal["raise", "log", "off"] | None, _lower] = Field(
        None, description="The policy for a forgotten commit; by default log in production, else raise"
    )

    web_bind: Annotated[str, AfterValidator(_bind)] = Field(
        "127.0.0.1:8000", description="The address to serve on: host:port, unix:/path or fd://number"
    )
    web_protocol: Literal["http", "uwsgi"] | None = Field(
        None, description="The protocol of uWSGI: http, or uwsgi for nginx's uwsgi_pass"
    )
    web_concurrency: _Count | None = Field(
        None, gt=0, le=512, description="Worker processes; by default from the processors"
    )
    web_threads: _Count = Field(4, gt=0, le=512, description="Threads of a worker, connections in its pool")
    web_worker_class: Literal["gthread", "gthread_patient", "sync", "gevent", "gevent_pywsgi"] = Field(
        "gthread", description="The kind of gunicorn's workers"
    )
    web_preload: bool = Field(True, description="gunicorn loads the service once, before it forks")
    metrics_bind: Annotated[str, AfterValidator(_metrics_bind)] | None = Field(
        None, description="The address of Prometheus metrics: host:port"
    )
    forwarded_allow_ips: Annotated[str, AfterValidator(_proxies)] = Field(
        "127.0.0.1,::1", description="Proxies whose X-Forwarded-* and X-Request-ID headers are trusted"
    )
    otel_exporter_otlp_endpoint: Annotated[str, _collector] | None = Field(
        None, description="The collector that traces are sent to"
    )
    sentry_dsn: Annotated[str, _dsn] | None = Field(
        None, repr=False, description="The project of Sentry that errors are reported to"
    )
    cors_credentials: bool = Field(
        False, description="Pages of CORS_ORIGINS may send cookies; bearer tokens do not need it"
    )
    cors_origins: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_origins)] = Field(
        None, description="Origins whose pages may use the API: https://app.example.com, or * for every one"
    )
    api_docs: Annotated[Literal["on", "off"], _lower] = Field(
        "on", description="Whether /docs shows the API; /openapi.json is always served"
    )
    url_prefix: Annotated[str, AfterValidator(_prefix)] | None = Field(
        None, description="The path prefix of the service, such as /api; a proxy may strip it or keep it"
    )
    trusted_hosts: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_hosts)] = Field(
        None, description="Host names, .example.com for all subdomains; any other Host gets a 400"
    )

    @property
    def log_style(self) -> str:
        """Return the format of log lines: `json`, or the readable `text`."""
        return self.log_format or ("json" if self.app_env == "production" else "text")

    @property
    def connections(self) -> int:
        """Return the maximum number of database connections per process."""
        return self.web_threads + OVERFLOW

    @property
    def longest_wait(self) -> int:
        """Return the milliseconds after which a waiting request is rejected, or 0 for no limit."""
        if self.queue_limit is None:
            return QUEUE_LIMIT if self.app_env == "production" else 0
        return self.queue_limit

    @property
    def on_uncommitted_work(self) -> str:
        """Return the policy for uncommitted work: `raise`, `log` or `off`."""
        return self.uncommitted_work or ("log" if self.app_env == "production" else "raise")


def current_settings(kind: type[SettingsT]) -> SettingsT:
    """Return the settings of the running application: `current_settings(Settings).greeting` in a view."""
    from flask import current_app  # Imported lazily: gunicorn's master reads settings without Flask.

    settings = current_app.extensions["settings"]
    if not isinstance(settings, kind):
        raise TypeError(f"create_app() was called with {type(settings).__name__}, not with {kind.__name__}")
    return settings


def load(kind: type[SettingsT]) -> SettingsT:
    """Return the settings as first read, or raise `ConfigurationError` with every problem."""
    return cast(SettingsT, _load(kind))


@functools.cache  # A reload of the server's configuration must not change a running service.
def _load(kind: type[ServiceSettings]) -> ServiceSettings:
    settings = read_environment(kind)
    if problems := [*map(str, refusals(settings))]:
        raise ConfigurationError(*problems)
    return settings


def read_environment(kind: type[SettingsT]) -> SettingsT:
    """Build the settings from the environment, even those with which the service refuses to start."""
    try:
        return kind()  # type: ignore[call-arg]  # The fields come from the environment.
    except ValidationError as error:
        problems = [_line(e["loc"], e["type"], e["msg"]) for e in error.errors()]
        raise ConfigurationError(*problems, *map(str, _misspellings(kind))) from None


def _line(location: tuple[int | str, ...], kind: str, message: str) -> str:
    if kind == "missing":
        message = "is missing: set it in the environment (`make serve` reads .env)"
    message = message.removeprefix("Value error, ").replace("Input should be", "should be")
    return " ".join([*(str(part).upper() for part in location[:1]), message])


def load_or_exit(kind: type[SettingsT]) -> SettingsT:
    """Read the environment, or exit with 78 and one line per problem."""
    try:
        return load(kind)
    except ConfigurationError as error:
        exit_with(error)


def exit_with(error: ConfigurationError) -> NoReturn:
    """Exit with 78 and one line per problem, without a traceback."""
    sys.stderr.writelines(f"configuration error: {problem}\n" for problem in error.problems)
    raise SystemExit(os.EX_CONFIG)  # systemd does not restart it, because of RestartPreventExitStatus=78.


def tcp_address(bind: str) -> tuple[str, int]:
    """Return the host and port of an address, or exit with 78 if it has none."""
    host, _, port = bind.rpartition(":")
    if not port.isdigit():
        exit_with(ConfigurationError(f"WEB_BIND={bind} is no host:port, which this server needs"))
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  # The meaning of ":8000" elsewhere.


def listen(bind: str) -> socket.socket:
    """Return a socket that listens at host:port, or print the reason and exit with 1."""
    host, port = tcp_address(bind)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        sys.exit(f"cannot listen at {bind}: {str(error.strerror).partition(' (')[0]}")
    # Accepted connections inherit TCP_NODELAY. Without it a body may wait 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def refuse_closed_descriptor(bind: str) -> None:
    """Exit with 78 if fd://number is not a listening socket of this process."""
    if not bind.startswith("fd://"):
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(bind[5:]))) as listener:
        if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return
    exit_with(ConfigurationError(f"WEB_BIND={bind} is no listening socket: start the socket unit"))


def refusals(settings: ServiceSettings) -> Iterator[Finding]:
    """Yield the reasons not to start with these settings. The doctor checks for what may be wrong."""
    yield from _misspellings(type(settings))
    if settings.app_env != "production":
        return
    if os.environ.get("FLASK_DEBUG", "").lower() not in {"", "0", "false", "no"}:  # as in flask.helpers
        yield Finding("FLASK_DEBUG", "shows clients tracebacks", "remove it, or set APP_ENV=development")
    key = settings.secret_key.get_secret_value()
    unit = key[: (key + key).find(key, 1)]  # A repeated unit counts once.
    bits = -sum(math.log2(unit.count(character) / len(unit)) for character in unit)
    if bits < 100 or any(word in key.lower() for word in PLACEHOLDERS):
        yield Finding("SECRET_KEY", "can be guessed", MAKE_KEY)
    url = make_url(settings.database_url)
    given = any(os.environ.get(name) for name in ("PGPASSWORD", "PGPASSFILE", "PGREQUIREAUTH"))
    named = {"password", "passfile", "sslcert", "require_auth", "service"} & url.query.keys()
    if remote_hosts(url) and not (url.password or given or named):
        problem = "names another machine's database and no password"
        yield Finding("DATABASE_URL", problem, "add one, or ?require_auth=none if that is intended")


def remote_hosts(url: URL) -> list[str]:
    """Return the remote hosts in a database URL."""
    query = url.normalized_query
    several = ",".join((*query.get("host", ()), *query.get("hostaddr", ()))).split(",")
    named = [url.host or "", *(re.sub(r"^([^:]+|\[.*\]):[0-9]*$", r"\1", host) for host in several)]
    if not any(named) and url.get_backend_name() == "postgresql":
        named = os.environ.get("PGHOST", "").split(",")
    return [host for host in named if host and not host.startswith("/") and not is_loopback(host)]


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _misspellings(kind: type[ServiceSettings]) -> list[Finding]:
    """Return each variable that looks like a misspelled setting."""
    ours = {name.upper() for name in kind.model_fields}
    return [
        Finding(close, f"is no setting, {name} is", "correct it or remove it")
        for name in sorted(ours - os.environ.keys())
        for close in difflib.get_close_matches(name, os.environ.keys() - ours, cutoff=0.85)
        # Names such as DATABASE_URL_RO or TEST_SECRET_KEY belong to other programs.
        if not close.startswith(f"{name}_") and not close.endswith(f"_{name}")
    ]
