"""What the environment may say, and how it is told when it says something else."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from {{cookiecutter.package_name}} import settings
from {{cookiecutter.package_name}}.settings import ConfigurationError, Settings

from .conftest import SECRET, make_settings
from .databases import PROJECT

PASSWORD = "pa55word"  # noqa: S105  # It must not be found in anything that is printed.


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment in which the service can run, with nothing in it that this machine has set."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/app.db")
    monkeypatch.setenv("SECRET_KEY", SECRET)
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


@pytest.fixture
def postgresql_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver for PostgreSQL, or what passes for one in a project that has none."""
    monkeypatch.setitem(settings.DRIVERS, "postgresql+psycopg", "sqlite3")


def problems() -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        settings.load()
    return caught.value.problems


def test_all_problems_are_told_at_once_with_one_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("SECRET_KEY", "short")
    monkeypatch.setenv("WEB_THREADS", "many")
    monkeypatch.setenv("LOG_LEVL", "debug")

    told = problems()

    assert [line.split()[0] for line in told] == ["DATABASE_URL", "SECRET_KEY", "WEB_THREADS", "LOG_LEVL"]
    assert not any("\n" in line for line in told)


@pytest.mark.parametrize("name", ["DATABASE_URL", "SECRET_KEY"])
@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_what_has_no_default_must_be_set(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)

    assert problems() == [f"{name} is missing: set it in the environment (`make serve` reads .env)"]


@pytest.mark.parametrize("name", [n for n, f in Settings.model_fields.items() if not f.is_required()])
def test_an_empty_variable_is_a_missing_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name.upper(), "")

    assert getattr(settings.load(), name) == Settings.model_fields[name].default


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
def test_a_refusal_tells_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("SECRET_KEY", "hunter2")

    with pytest.raises(ConfigurationError) as caught:
        settings.load()
    with pytest.raises(SystemExit):
        settings.load_or_exit()

    told = [str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)]
    told += [str(caught.value.__context__), *capsys.readouterr()]
    assert "DATABASE_URL" in told[0]
    assert "SECRET_KEY" in told[0]
    assert not any(PASSWORD in text or "hunter2" in text for text in told)


@pytest.mark.usefixtures("postgresql_driver")
def test_settings_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://user:{PASSWORD}@host/name")

    shown = [
        repr(settings.load()),
        str(settings.load()),
        f"{settings.load()}",
        repr(settings.load().secret_key),
        str(settings.load().secret_key),
    ]

    assert not any(PASSWORD in text or SECRET in text for text in shown)


@pytest.mark.usefixtures("postgresql_driver")
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_postgresql_url_gets_its_driver(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://user:p%40ss%2Fword@host:5433/name?sslmode=require")

    assert settings.load().database_url == (
        "postgresql+psycopg://user:p%40ss%2Fword@host:5433/name?sslmode=require"
    )


@pytest.mark.usefixtures("postgresql_driver")
def test_a_postgresql_url_may_name_several_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "DATABASE_URL",
        "postgresql://user:own@/name?host=one:5432&host=two:5433&target_session_attrs=read-write",
    )

    url = make_url(settings.load().database_url)

    assert url.query == {"host": ("one:5432", "two:5433"), "target_session_attrs": "read-write"}


def test_a_relative_sqlite_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", "sqlite:///app.db")

    assert settings.load().database_url == f"sqlite+pysqlite:///{tmp_path}/app.db"


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
    ],
)
def test_a_database_that_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)

    (told,) = problems()

    assert told.startswith(f"DATABASE_URL {reason}")


def test_a_database_whose_driver_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.DRIVERS, "postgresql+psycopg", "no_such_driver")
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
    monkeypatch.setenv(name, value)

    (told,) = problems()

    assert told.startswith(f"{name} ")


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
def test_a_value_that_works_is_taken(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: object
) -> None:
    monkeypatch.setenv(name, value)

    assert getattr(settings.load(), name.lower()) == read


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("WEB_THREAD", "WEB_THREADS"), ("LOGLEVEL", "LOG_LEVEL"), ("FORWARDED_ALLOW_IP", "FORWARDED_ALLOW_IPS")],
)
def test_a_misspelt_name_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str, right: str) -> None:
    monkeypatch.setenv(wrong, "1")

    assert problems() == [f"{wrong} is no setting, {right} is: correct it or remove it"]


def test_a_misspelt_name_is_told_beside_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY")
    monkeypatch.setenv("SECRETKEY", SECRET)

    missing, misspelt = problems()

    assert missing.startswith("SECRET_KEY is missing")
    assert misspelt == "SECRETKEY is no setting, SECRET_KEY is: correct it or remove it"


@pytest.mark.parametrize("name", ["DATABASE_URL_RO", "TEST_DATABASE_URL", "MY_WEB_THREADS", "SHELL_LEVEL"])
def test_a_name_of_somebody_elses_is_let_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv(name, "1")

    (told,) = problems()

    assert told.startswith("DATABASE_URL is missing")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings.load().web_threads = 5


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings.load()
    monkeypatch.setenv("WEB_THREADS", "9")

    assert settings.load() is before


def test_a_bad_environment_ends_the_process_with_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SECRET_KEY")
    monkeypatch.setenv("WEB_THREADS", "0")

    with pytest.raises(SystemExit) as ended:
        settings.load_or_exit()

    assert ended.value.code == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[:3] for line in err.splitlines()] == [
        ["configuration", "error:", "SECRET_KEY"],
        ["configuration", "error:", "WEB_THREADS"],
    ]


@pytest.mark.parametrize(
    ("bind", "protocol", "env"),
    [
        ("127.0.0.1:8000", None, "production"),
        ("[::1]:8000", "uwsgi", "production"),
        ("localhost:8000", "http", "production"),
        ("fd://3", "uwsgi", "production"),
        ("0.0.0.0:8000", "http", "production"),
        ("0.0.0.0:8000", None, "development"),
    ],
)
def test_uwsgi_listens_where_only_this_machine_asks_or_a_proxy_is_in_front(
    bind: str, protocol: str | None, env: str
) -> None:
    settings.check_uwsgi_address(
        make_settings("sqlite:///app.db", web_bind=bind, web_protocol=protocol, app_env=env)
    )


@pytest.mark.parametrize(
    ("bind", "protocol", "env"),
    [
        ("0.0.0.0:8000", None, "production"),
        (":8000", None, "production"),
        ("10.0.0.1:8000", None, "production"),
        ("web.internal:8000", None, "production"),
        ("0.0.0.0:8000", "uwsgi", "production"),
        ("0.0.0.0:8000", "uwsgi", "development"),
        ("unix:/run/app.sock", None, "development"),
    ],
)
def test_uwsgi_does_not_listen_where_clients_could_reach_it(
    bind: str, protocol: str | None, env: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = make_settings("sqlite:///app.db", web_bind=bind, web_protocol=protocol, app_env=env)

    with pytest.raises(SystemExit) as ended:
        settings.check_uwsgi_address(chosen)

    assert ended.value.code == 78
    assert capsys.readouterr().err.startswith("configuration error: WEB_BIND")


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
    chosen_settings = make_settings("sqlite:///app.db", app_env=env, uncommitted_work=chosen)

    assert chosen_settings.on_uncommitted_work == outcome


def test_the_example_names_every_setting_and_no_other() -> None:
    text = (PROJECT / ".env.example").read_text()
    named = re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)
    known = {name.upper() for name in Settings.model_fields}
    if not (PROJECT / "gunicorn.conf.py").exists():
        known -= {"WEB_WORKER_CLASS", "WEB_PRELOAD"}
    if not (PROJECT / "uwsgi.ini").exists():
        known -= {"WEB_PROTOCOL"}
    if not (PROJECT / "tests/servers/test_tracing.py").exists():
        known -= {"OTEL_EXPORTER_OTLP_ENDPOINT"}
    if not (PROJECT / "tests/servers/test_error_reporting.py").exists():
        known -= {"SENTRY_DSN"}

    assert sorted(named) == sorted(known)


def test_the_example_shows_the_defaults() -> None:
    text = (PROJECT / ".env.example").read_text()

    for name, value in re.findall(
        r"^#(LOG_LEVEL|DATABASE_TIMEOUT|WEB_BIND|WEB_THREADS|FORWARDED_\w+)=(.+)$", text, re.MULTILINE
    ):
        assert str(Settings.model_fields[name.lower()].default) == value


@pytest.mark.parametrize(
    "value", ["*", "example.com:8000", "https://example.com", "a b", ",", "exa_mple.com"]
)
def test_a_trusted_host_is_a_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TRUSTED_HOSTS", value)

    (told,) = problems()

    assert told.startswith("TRUSTED_HOSTS is not a list of names")


def test_trusted_hosts_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_HOSTS", "example.com, .example.org,[::1]")

    assert settings.load().trusted_hosts == ("example.com", ".example.org", "[::1]")


def test_metrics_have_a_port_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_BIND", "127.0.0.1:8000")
    monkeypatch.setenv("METRICS_BIND", "127.0.0.2:8000")

    assert problems() == ["METRICS_BIND has the port of WEB_BIND, give it another one"]


@pytest.mark.parametrize("value", ["9100", "unix:/run/metrics", "nonsense"])
def test_metrics_are_served_over_tcp(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("METRICS_BIND", value)

    (told,) = problems()

    assert told.startswith("METRICS_BIND is not host:port")


@pytest.mark.parametrize(
    ("given", "style"),
    [
        ({}, "json"),
        ({"APP_ENV": "development"}, "text"),
        ({"APP_ENV": "development", "LOG_FORMAT": "JSON"}, "json"),
        ({"LOG_FORMAT": "text"}, "text"),
    ],
)
def test_people_read_text_and_machines_json(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], style: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert settings.load().log_style == style


@pytest.mark.parametrize("value", ["1", "true", "yes", "on"])
def test_production_does_not_start_with_debug(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FLASK_DEBUG", value)

    (told,) = problems()

    assert told.startswith("FLASK_DEBUG shows clients tracebacks")


@pytest.mark.parametrize("value", ["", "0", "False", "no"])
def test_debug_that_is_off_for_flask_is_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FLASK_DEBUG", value)

    assert settings.load()


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
def test_production_does_not_start_with_a_key_that_can_be_guessed(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("SECRET_KEY", key)

    (told,) = problems()

    assert told.startswith("SECRET_KEY can be guessed, make one with")
    assert key not in told


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
def test_production_does_not_start_with_a_database_that_asks_nobody_for_a_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)

    (told,) = problems()

    assert told.startswith("DATABASE_URL names another machine's database and no password")


@pytest.mark.usefixtures("postgresql_driver")
def test_the_drivers_own_variables_say_where_the_database_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://notes@/notes")
    monkeypatch.setenv("PGHOST", "/run/postgresql,db.example.com")

    (told,) = problems()

    assert told.startswith("DATABASE_URL names another machine's database and no password")


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
def test_production_starts_where_the_database_knows_who_asks(
    monkeypatch: pytest.MonkeyPatch, url: str, variable: str | None
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    if variable:
        monkeypatch.setenv(variable, "own")

    assert settings.load().app_env == "production"


@pytest.mark.parametrize(
    "value", ["collector:4317", "grpc://collector:4317", "http://", "http://collector 1:4318", "http://a/?b"]
)
def test_a_collector_has_an_address_of_http(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", value)

    (told,) = problems()

    assert told.startswith("OTEL_EXPORTER_OTLP_ENDPOINT is not the address of a collector")


@pytest.mark.parametrize(
    "value", ["key@sentry.example/1", "https://sentry.example/1", "https://key@sentry.example/", "on"]
)
def test_a_dsn_names_a_key_and_a_project(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SENTRY_DSN", value)

    (told,) = problems()

    assert told.startswith("SENTRY_DSN is not a DSN")
    assert value not in told.split("such as")[0]


@pytest.mark.parametrize(
    ("name", "value", "module"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318", "opentelemetry.exporter.otlp.proto.http"),
        ("SENTRY_DSN", "https://key@sentry.example/1", "sentry_sdk"),
    ],
)
def test_what_cannot_be_sent_for_want_of_a_package_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, module: str
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, module, None)

    (told,) = problems()

    assert told.startswith(f"{name} needs ")


def test_development_may_have_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    monkeypatch.setenv("APP_ENV", "development")

    assert settings.load().app_env == "development"
