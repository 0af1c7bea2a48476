"""Valid settings in the environment, and the errors for invalid ones."""

from __future__ import annotations

import importlib.util
import re
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from {{cookiecutter.package_name}}.foundation import configuration
from {{cookiecutter.package_name}}.foundation.configuration import (
    ConfigurationError,
    ServiceSettings,
)

from .databases import PROJECT
from .fixtures import SECRET, make_settings

PASSWORD = "pa55word"  # noqa: S105  # It must not be found in anything that is printed.


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A valid environment, without variables of this machine."""
    for name in ServiceSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/app.db")
    monkeypatch.setenv("SECRET_KEY", SECRET)
    configuration._load.cache_clear()
    yield
    configuration._load.cache_clear()


@pytest.fixture
def postgresql_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver for PostgreSQL, or a substitute in a project without one."""
    monkeypatch.setitem(configuration.DRIVERS, "postgresql+psycopg", "sqlite3")


def problems() -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        configuration.load(ServiceSettings)
    return list(caught.value.problems)


def test_all_problems_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """All problems are reported together, one per line."""
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("SECRET_KEY", "short")
    monkeypatch.setenv("WEB_THREADS", "many")
    monkeypatch.setenv("LOG_LEVL", "debug")

    lines = problems()

    assert [line.split()[0] for line in lines] == ["DATABASE_URL", "SECRET_KEY", "WEB_THREADS", "LOG_LEVL"]
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("name", ["DATABASE_URL", "SECRET_KEY"])
@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_a_setting_without_a_default_is_required(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    """A setting without a default must be set, and an empty value does not count."""
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)

    assert problems() == [f"{name} is missing: set it in the environment (`make serve` reads .env)"]


@pytest.mark.parametrize("name", [n for n, f in ServiceSettings.model_fields.items() if not f.is_required()])
def test_an_empty_variable_is_a_missing_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An empty variable counts as missing, so the default applies."""
    monkeypatch.setenv(name.upper(), "")

    assert getattr(configuration.load(ServiceSettings), name) == ServiceSettings.model_fields[name].default


@pytest.mark.usefixtures("postgresql_driver")
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql//user:{PASSWORD}@host/name",
        f"postgresql://user:{PASSWORD}@host:port/name",
        f"postgresql://user:{PASSWORD}@host",
        f"mysql://user:{PASSWORD}@host/name",
        f"postgresql+none://user:{PASSWORD}@host/name",
        f"sqlite://user:{PASSWORD}@host/no-folder/name",
        PASSWORD,
    ],
)
def test_a_configuration_error_reveals_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    """A configuration error reveals no secret in its text, its traceback or its output."""
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("SECRET_KEY", "hunter2")

    with pytest.raises(ConfigurationError) as caught:
        configuration.load(ServiceSettings)
    with pytest.raises(SystemExit):
        configuration.load_or_exit(ServiceSettings)

    shown = [str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)]
    shown += [str(caught.value.__context__), *capsys.readouterr()]
    assert "DATABASE_URL" in shown[0]
    assert "SECRET_KEY" in shown[0]
    assert not any(PASSWORD in text or "hunter2" in text for text in shown)


@pytest.mark.usefixtures("postgresql_driver")
def test_settings_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings' representations do not show their secrets."""
    monkeypatch.setenv("DATABASE_URL", f"postgresql://user:{PASSWORD}@host/name")

    shown = [
        repr(configuration.load(ServiceSettings)),
        str(configuration.load(ServiceSettings)),
        f"{configuration.load(ServiceSettings)}",
        repr(configuration.load(ServiceSettings).secret_key),
        str(configuration.load(ServiceSettings).secret_key),
    ]

    assert not any(PASSWORD in text or SECRET in text for text in shown)


@pytest.mark.usefixtures("postgresql_driver")
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_postgresql_url_gets_its_driver(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """A PostgreSQL URL gets its driver and is otherwise unchanged."""
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://user:p%40ss%2Fword@host:5433/name?sslmode=require")

    assert configuration.load(ServiceSettings).database_url == (
        "postgresql+psycopg://user:p%40ss%2Fword@host:5433/name?sslmode=require"
    )


@pytest.mark.usefixtures("postgresql_driver")
def test_a_postgresql_url_may_name_several_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PostgreSQL URL may list several servers."""
    monkeypatch.setenv(
        "DATABASE_URL",
        "postgresql://user:own@/name?host=one:5432&host=two:5433&target_session_attrs=read-write",
    )

    url = make_url(configuration.load(ServiceSettings).database_url)

    assert url.query == {"host": ("one:5432", "two:5433"), "target_session_attrs": "read-write"}


def test_a_relative_sqlite_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative SQLite path becomes absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", "sqlite:///app.db")

    assert configuration.load(ServiceSettings).database_url == f"sqlite+pysqlite:///{tmp_path}/app.db"


@pytest.mark.usefixtures("postgresql_driver")
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("notes", "is not a database URL"),
        ("postgresql://user@host:port/name", "is not a database URL"),
        ("mysql://user@host/name", "names mysql, known are postgresql:// and sqlite:///"),
        ("postgresql+none://user@host/name", "names postgresql+none, known are"),
        ("postgresql://user@host", "names no database, add /name at its end"),
        ("postgresql://user@host/", "names no database, add /name at its end"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///file:notes?mode=memory&uri=true", "names no file"),
        ("sqlite:////no/such/folder/app.db", "names a file in /no/such/folder, which is no folder"),
        ("sqlite:////tmp/app.db?timeout=30", "has the parameter timeout, which has no effect: remove it"),
        ("postgresql://user@host:99999/name", "has the port 99999"),
    ],
)
def test_a_database_that_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    """An invalid database URL is rejected with the reason."""
    monkeypatch.setenv("DATABASE_URL", url)

    (problem,) = problems()

    assert problem.startswith(f"DATABASE_URL {reason}")


def test_a_database_whose_driver_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database whose driver is not installed is rejected."""
    monkeypatch.setitem(configuration.DRIVERS, "postgresql+psycopg", "no_such_driver")
    monkeypatch.setenv("DATABASE_URL", "postgresql://user@host/name")

    assert problems() == ["DATABASE_URL names postgresql, whose driver no_such_driver is not installed"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_ENV", "prod"),
        ("LOG_LEVEL", "loud"),
        ("UNCOMMITTED_WORK", "ignore"),
        ("WEB_BIND", "8000"),
        ("WEB_BIND", "127.0.0.1"),
        ("WEB_BIND", "127.0.0.1:"),
        ("WEB_BIND", "127.0.0.1:65536"),
        ("WEB_BIND", "127.0.0.1:\u0668\u0660\u0660\u0660"),
        ("WEB_BIND", "127.0.0.1:8000\n"),
        ("WEB_BIND", "::1:8000"),
        ("WEB_BIND", "http://127.0.0.1:8000"),
        ("WEB_BIND", "unix:"),
        ("WEB_BIND", "fd://"),
        ("WEB_BIND", "fd://x"),
        ("WEB_PROTOCOL", "https"),
        ("DATABASE_TIMEOUT", "0"),
        ("DATABASE_TIMEOUT", "2s"),
        ("DATABASE_TIMEOUT", "3601"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", "-1"),
        ("WEB_CONCURRENCY", "513"),
        ("WEB_CONCURRENCY", "two"),
        ("WEB_THREADS", "0"),
        ("WEB_THREADS", "1.5"),
        ("WEB_THREADS", "513"),
        ("WEB_WORKER_CLASS", "tornado"),
        ("WEB_PRELOAD", "perhaps"),
        ("FORWARDED_ALLOW_IPS", "proxy.internal"),
        ("FORWARDED_ALLOW_IPS", "127.0.0.1,"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.0/33"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """An invalid value is rejected with the name of its variable."""
    monkeypatch.setenv(name, value)

    (problem,) = problems()

    assert problem.startswith(f"{name} ")


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("APP_ENV", "Development", "development"),
        ("LOG_LEVEL", "WARNING", "warning"),
        ("WEB_BIND", "0.0.0.0:80", "0.0.0.0:80"),
        ("WEB_BIND", ":8000", ":8000"),
        ("WEB_BIND", "[::1]:8000", "[::1]:8000"),
        ("WEB_BIND", "unix:/run/app.sock", "unix:/run/app.sock"),
        ("WEB_BIND", "fd://3", "fd://3"),
        ("WEB_PROTOCOL", "uwsgi", "uwsgi"),
        ("DATABASE_TIMEOUT", "30", 30),
        ("WEB_CONCURRENCY", "2", 2),
        ("WEB_THREADS", "512", 512),
        ("WEB_WORKER_CLASS", "gevent_pywsgi", "gevent_pywsgi"),
        ("WEB_PRELOAD", "false", False),
        ("FORWARDED_ALLOW_IPS", "*", "*"),
        ("FORWARDED_ALLOW_IPS", "127.0.0.1, 10.0.0.0/8", "127.0.0.1, 10.0.0.0/8"),
    ],
)
def test_a_valid_value_is_accepted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: object
) -> None:
    """A valid value is accepted."""
    monkeypatch.setenv(name, value)

    assert getattr(configuration.load(ServiceSettings), name.lower()) == read


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("WEB_THREAD", "WEB_THREADS"), ("LOGLEVEL", "LOG_LEVEL"), ("FORWARDED_ALLOW_IP", "FORWARDED_ALLOW_IPS")],
)
def test_a_misspelt_name_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str, right: str) -> None:
    """A misspelt variable is rejected with the correct name."""
    monkeypatch.setenv(wrong, "1")

    assert problems() == [f"{wrong} is no setting, {right} is: correct it or remove it"]


def test_a_misspelt_and_a_missing_name_are_both_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is reported together with the missing one."""
    monkeypatch.delenv("SECRET_KEY")
    monkeypatch.setenv("SECRETKEY", SECRET)

    missing, misspelt = problems()

    assert missing.startswith("SECRET_KEY is missing")
    assert misspelt == "SECRETKEY is no setting, SECRET_KEY is: correct it or remove it"


@pytest.mark.parametrize("name", ["DATABASE_URL_RO", "TEST_DATABASE_URL", "MY_WEB_THREADS", "SHELL_LEVEL"])
def test_a_variable_of_another_program_is_ignored(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable of another program is ignored, even if its name is similar."""
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv(name, "1")

    (problem,) = problems()

    assert problem.startswith("DATABASE_URL is missing")


def test_settings_cannot_be_changed() -> None:
    """ServiceSettings cannot be changed."""
    with pytest.raises(ValidationError, match="frozen"):
        configuration.load(ServiceSettings).web_threads = 5


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is read once."""
    before = configuration.load(ServiceSettings)
    monkeypatch.setenv("WEB_THREADS", "9")

    assert configuration.load(ServiceSettings) is before


def test_a_bad_environment_ends_the_process_with_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An invalid environment ends the process with code 78 and one line on stderr for each problem."""
    monkeypatch.delenv("SECRET_KEY")
    monkeypatch.setenv("WEB_THREADS", "0")

    with pytest.raises(SystemExit) as ended:
        configuration.load_or_exit(ServiceSettings)

    assert ended.value.code == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[:3] for line in err.splitlines()] == [
        ["configuration", "error:", "SECRET_KEY"],
        ["configuration", "error:", "WEB_THREADS"],
    ]


@pytest.mark.parametrize(
    ("env", "chosen", "outcome"),
    [
        ("production", None, "log"),
        ("development", None, "raise"),
        ("testing", None, "raise"),
        ("production", "raise", "raise"),
        ("testing", "off", "off"),
    ],
)
def test_a_forgotten_commit_fails_a_request_except_in_production(
    env: str, chosen: str | None, outcome: str
) -> None:
    """A forgotten commit fails a request except in production, unless UNCOMMITTED_WORK is set."""
    chosen_settings = make_settings("sqlite:///app.db", app_env=env, uncommitted_work=chosen)

    assert chosen_settings.on_uncommitted_work == outcome


def test_the_example_names_every_setting() -> None:
    """The file .env.example lists each setting of the foundation once, without those of omitted parts."""
    text = (PROJECT / ".env.example").read_text()
    ours = {name.upper() for name in ServiceSettings.model_fields}
    known = ours.copy()
    # A part without its package counts as omitted, even if its files exist.
    parts = {
        "gunicorn": {"WEB_WORKER_CLASS", "WEB_PRELOAD"},
        "pyuwsgi": {"WEB_PROTOCOL"},
        "opentelemetry": {"OTEL_EXPORTER_OTLP_ENDPOINT"},
        "sentry_sdk": {"SENTRY_DSN"},
    }
    for package, settings in parts.items():
        if importlib.util.find_spec(package) is None:
            known -= settings

    named = [name for name in re.findall(r"^#?([A-Z0-9_]+)=", text, re.MULTILINE) if name in ours]

    assert sorted(named) == sorted(known)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (".env.example", r"^#(LOG_LEVEL|DATABASE_TIMEOUT|WEB_BIND|WEB_THREADS|WEB_\w+S|FORWARDED_\w+)=(.+)$"),
        ("README.md", r"^\| `([A-Z_]+)` \| `?([^`|]+?)`? \|"),
    ],
    ids=["example", "readme"],
)
def test_the_example_and_the_readme_show_the_defaults(file: str, line: str) -> None:
    """The defaults in .env.example and README.md match the settings."""
    defaults = {
        name.upper(): str(field.default).lower()
        for name, field in ServiceSettings.model_fields.items()
        if field.default is not None and not field.is_required()
    }

    shown = dict(re.findall(line, (PROJECT / file).read_text(), re.MULTILINE))

    assert {name: value for name, value in shown.items() if value != defaults.get(name, value)} == {}


@pytest.mark.parametrize(
    "value", ["*", "example.com:8000", "https://example.com", "a b", ",", "exa_mple.com"]
)
def test_a_trusted_host_is_a_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A trusted host that is not a plain host name is rejected."""
    monkeypatch.setenv("TRUSTED_HOSTS", value)

    (problem,) = problems()

    assert problem.startswith("TRUSTED_HOSTS is not a list of names")


def test_trusted_hosts_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trusted hosts are a list separated by commas."""
    monkeypatch.setenv("TRUSTED_HOSTS", "example.com, .example.org,[::1]")

    assert configuration.load(ServiceSettings).trusted_hosts == ("example.com", ".example.org", "[::1]")


def test_metrics_need_another_port_than_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """METRICS_BIND must not have the port of WEB_BIND."""
    monkeypatch.setenv("WEB_BIND", "127.0.0.1:8000")
    monkeypatch.setenv("METRICS_BIND", "127.0.0.2:8000")

    assert problems() == ["METRICS_BIND has the port of WEB_BIND, give it another one"]


def test_a_body_does_not_wait_for_its_headers() -> None:
    """A connection sends a body immediately, without waiting 40 ms for an acknowledgement."""
    listener = configuration.listen("127.0.0.1:0")

    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_address_that_cannot_be_bound_is_one_line() -> None:
    """An address that cannot be bound ends the process with 1, and a line with the reason."""
    with pytest.raises(SystemExit) as ended, configuration.listen("127.0.0.1:0") as taken:
        configuration.listen(f"127.0.0.1:{taken.getsockname()[1]}")

    assert re.fullmatch(r"cannot listen at 127\.0\.0\.1:\d+: Address already in use", str(ended.value.code))


@pytest.mark.parametrize("name", ["WEB_CONCURRENCY", "WEB_THREADS"])
@pytest.mark.parametrize("value", ["auto", "+4", "4.0", " 4", "-1", "0", "513"])
def test_a_count_is_plain_digits(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Numbers of processes and threads must be digits, which every server reads alike."""
    monkeypatch.setenv(name, value)

    assert [problem.split()[0] for problem in problems()] == [name]


@pytest.mark.parametrize("value", ["9100", "unix:/run/metrics", "nonsense", "127.0.0.1:0"])
def test_metrics_are_served_over_tcp(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """METRICS_BIND must be a host and a fixed port."""
    monkeypatch.setenv("METRICS_BIND", value)

    (problem,) = problems()

    assert problem.startswith("METRICS_BIND is not host:port")


@pytest.mark.parametrize(
    ("given", "style"),
    [
        ({}, "json"),
        ({"APP_ENV": "development"}, "text"),
        ({"APP_ENV": "development", "LOG_FORMAT": "JSON"}, "json"),
        ({"LOG_FORMAT": "text"}, "text"),
    ],
)
def test_the_log_is_text_in_development_and_json_in_production(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], style: str
) -> None:
    """The log is text in development and JSON in production, unless LOG_FORMAT is set."""
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert configuration.load(ServiceSettings).log_style == style


@pytest.mark.parametrize("value", ["1", "true", "yes", "on"])
def test_production_does_not_start_with_debug(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Production does not start with FLASK_DEBUG enabled."""
    monkeypatch.setenv("FLASK_DEBUG", value)

    (problem,) = problems()

    assert problem.startswith("FLASK_DEBUG shows clients tracebacks")


@pytest.mark.parametrize("value", ["", "0", "False", "no"])
def test_debug_that_is_off_for_flask_is_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Every value of FLASK_DEBUG that Flask reads as off is accepted."""
    monkeypatch.setenv("FLASK_DEBUG", value)

    assert configuration.load(ServiceSettings)


@pytest.mark.parametrize(
    "key",
    [
        "x" * 64,
        "changeme" * 8,
        "0123456789" * 4,
        "abc-" * 20,
        "notes-service-secret-key-of-production",
        "your password goes here, at least 32 characters",
        "django-insecure-8f2k1qj7w0p5x3z9c6v4b1n2m8a",
        "CHANGE_ME_gB3vQx9-LmT7_pRz2WcYh5NdKe8UaJf4SoX",
    ],
)
def test_production_does_not_start_with_a_guessable_key(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Production does not start with a guessable SECRET_KEY, and the error does not repeat it."""
    monkeypatch.setenv("SECRET_KEY", key)

    (problem,) = problems()

    assert problem.startswith("SECRET_KEY can be guessed: make one with")
    assert key not in problem


@pytest.mark.usefixtures("postgresql_driver")
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://notes@db.example.com/notes",
        "postgresql://notes:@db.example.com/notes",
        "postgresql://notes@10.0.0.5:5432/notes",
        "postgresql://notes@[2001:db8::1]/notes",
        "postgresql://notes@/notes?host=db-1:5432&host=db-2:5432",
        "postgresql://notes@/notes?host=127.0.0.1:5432&host=db-2:5432",
        "postgresql://notes@/notes?host=127.0.0.1,db-2",
        "postgresql://notes@/notes?hostaddr=10.0.0.5",
    ],
)
def test_production_needs_a_password_for_a_remote_database(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Production does not start with a remote database without a password."""
    monkeypatch.setenv("DATABASE_URL", url)

    (problem,) = problems()

    assert problem.startswith("DATABASE_URL names another machine's database and no password")


@pytest.mark.usefixtures("postgresql_driver")
def test_the_drivers_own_variables_name_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's own variables, such as PGHOST, also name the database's host."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://notes@/notes")
    monkeypatch.setenv("PGHOST", "/run/postgresql,db.example.com")

    (problem,) = problems()

    assert problem.startswith("DATABASE_URL names another machine's database and no password")


@pytest.mark.usefixtures("postgresql_driver")
@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("postgresql://notes:own@db.example.com/notes", None),
        ("postgresql://notes@127.0.0.1/notes", None),
        ("postgresql://notes@/notes?host=[::1]:5432", None),
        ("postgresql://notes@/notes?host=127.0.0.1:5432", None),
        ("postgresql://notes@/notes?host=/run/postgresql", None),
        ("postgresql:///notes", None),
        ("postgresql://notes@db.example.com/notes?sslcert=/etc/notes.crt", None),
        ("postgresql://notes@db.example.com/notes?require_auth=none", None),
        ("postgresql://notes@db.example.com/notes", "PGPASSWORD"),
        ("postgresql://notes@db.example.com/notes", "PGPASSFILE"),
    ],
)
def test_production_starts_with_an_authenticated_database(
    monkeypatch: pytest.MonkeyPatch, url: str, variable: str | None
) -> None:
    """Production starts if the database is local or authenticates its client."""
    monkeypatch.setenv("DATABASE_URL", url)
    if variable:
        monkeypatch.setenv(variable, "own")

    assert configuration.load(ServiceSettings).app_env == "production"


@pytest.mark.parametrize(
    "value", ["collector:4317", "grpc://collector:4317", "http://", "http://collector 1:4318", "http://a/?b"]
)
def test_a_collector_has_an_address_of_http(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The endpoint of a collector must be an HTTP URL."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", value)

    (problem,) = problems()

    assert problem.startswith("OTEL_EXPORTER_OTLP_ENDPOINT is not the address of a collector")


@pytest.mark.parametrize(
    "value", ["key@sentry.example/1", "https://sentry.example/1", "https://key@sentry.example/", "on"]
)
def test_a_dsn_names_a_key_and_a_project(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A Sentry DSN must name a key and a project, and the error does not repeat it."""
    monkeypatch.setenv("SENTRY_DSN", value)

    (problem,) = problems()

    assert problem.startswith("SENTRY_DSN is not a DSN")
    assert value not in problem.split("such as")[0]


@pytest.mark.parametrize(
    ("name", "value", "module"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318", "opentelemetry.exporter.otlp.proto.http"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318", "opentelemetry.instrumentation.sqlalchemy"),
        ("SENTRY_DSN", "https://key@sentry.example/1", "sentry_sdk"),
    ],
)
def test_telemetry_without_its_package_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, module: str
) -> None:
    """An endpoint for traces or error reports is rejected at startup if its package is missing."""
    monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, module, None)

    (problem,) = problems()

    assert problem.startswith(f"{name} needs ")


def test_development_may_have_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Development may enable FLASK_DEBUG."""
    monkeypatch.setenv("FLASK_DEBUG", "1")
    monkeypatch.setenv("APP_ENV", "development")

    assert configuration.load(ServiceSettings).app_env == "development"


ENDS = ["{}\n", "\n{}", "{} ", " {}", "{}\r\n", "{}\t"]


@pytest.mark.parametrize("pattern", ENDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "sqlite:////tmp/app.db"),
        ("SECRET_KEY", SECRET),
        ("LOG_LEVEL", "info"),
        ("WEB_THREADS", "4"),
        ("TRUSTED_HOSTS", "example.com"),
        ("CORS_ORIGINS", "https://example.com"),
        ("FORWARDED_ALLOW_IPS", "127.0.0.1"),
        ("SECRET_KEY_FALLBACKS", SECRET),
    ],
)
def test_white_space_at_an_end_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, pattern: str
) -> None:
    """A line break or surrounding space in any value is rejected by name, because servers read some, too."""
    monkeypatch.setenv(name, pattern.format(value))

    assert problems() == [f"{name} has a line break, or a space at an end: remove it"]


KEY_IN_A_FILE = "s0me-0ther-r4nd0m-ch4r4cters-of-a-file"


def test_secrets_can_be_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """URLs and keys can be mounted as files, whose final line break is ignored."""
    url = f"sqlite:///{tmp_path}/file.db"
    secrets = {"DATABASE_URL": url, "MIGRATION_DATABASE_URL": url, "SECRET_KEY": KEY_IN_A_FILE}
    for name, value in {**secrets, "SECRET_KEY_FALLBACKS": f"{SECRET},{'o' * 32}"}.items():
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
        (tmp_path / name).write_text(f"{value}\n")

    settings = configuration.load(ServiceSettings)

    assert settings.database_url.endswith("/file.db")
    assert settings.migration_database_url == settings.database_url
    assert settings.secret_key.get_secret_value() == KEY_IN_A_FILE
    assert [key.get_secret_value() for key in settings.secret_key_fallbacks] == [SECRET, "o" * 32]


def test_both_forms_of_a_secret_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable together with its file is rejected, and so is an unreadable file."""
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "missing"))
    assert problems() == ["SECRET_KEY and SECRET_KEY_FILE are both set: remove one"]

    monkeypatch.delenv("SECRET_KEY")
    (problem,) = problems()
    assert problem.startswith("SECRET_KEY_FILE cannot be read: ")
    assert "missing" in problem


def test_former_keys_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Former keys are a list of valid keys."""
    monkeypatch.setenv("SECRET_KEY_FALLBACKS", f"{SECRET},{'o' * 32}")
    settings = configuration.load(ServiceSettings)
    assert [key.get_secret_value() for key in settings.secret_key_fallbacks] == [SECRET, "o" * 32]

    configuration._load.cache_clear()
    monkeypatch.setenv("SECRET_KEY_FALLBACKS", f"{SECRET},short")
    (problem,) = problems()
    assert problem.startswith("SECRET_KEY_FALLBACKS is shorter than 32 characters")


def test_hosts_are_compared_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host names of the service are stored in lower case, for comparison."""
    monkeypatch.setenv("TRUSTED_HOSTS", "Good.Example,.Other.Example")

    assert configuration.load(ServiceSettings).trusted_hosts == ("good.example", ".other.example")


@pytest.mark.parametrize("key", ["REPLACE_ME_WITH_A_LONG_RANDOM_VALUE_1", "replace-me" + "x1Y" * 10])
def test_a_placeholder_is_refused_as_a_key(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Placeholders from examples are rejected in production."""
    monkeypatch.setenv("SECRET_KEY", key)

    (problem,) = problems()

    assert problem.startswith("SECRET_KEY can be guessed")


def test_sqlite_has_no_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    """An external pooler is rejected for SQLite."""
    monkeypatch.setenv("DATABASE_POOL", "external")

    assert problems() == ["DATABASE_POOL is external, but SQLite has no pooler: remove it"]


@pytest.mark.parametrize("prefix", ["api", "/api/", "/", "//api", "/a b", "/a?b", "http://example.com/api"])
def test_a_prefix_is_a_path(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """A prefix that is not a path, or ends with a slash, is rejected."""
    monkeypatch.setenv("URL_PREFIX", prefix)

    assert problems() == ["URL_PREFIX is not a path such as /api, without a slash at its end"]
