"""Every check finds what it is for, and nothing in a service as it should be."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from {{cookiecutter.package_name}} import doctor
from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.doctor import CHECKS, HTTPS, Service, examine
from {{cookiecutter.package_name}}.settings import Settings

KEY = "gB3vQx9-LmT7_pRz2WcYh5NdKe8UaJf4SoXi6VtMq1rCbHwPZGEy0Dkl"
GOOD = {
    "app_env": "production",
    "database_url": "postgresql://notes:pw-of-its-own@db.example.com/notes?sslmode=verify-full",
    "secret_key": KEY,
    "trusted_hosts": "example.com",
}


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user that a service should run as."""
    monkeypatch.setattr(os, "geteuid", lambda: 10001, raising=False)


@pytest.fixture
def settings(tmp_path: object) -> Callable[..., Settings]:
    """Make the settings of a good service, with changes."""

    def settings(**changes: Any) -> Settings:
        given = dict(GOOD)
        if importlib.util.find_spec("psycopg") is None:
            given["database_url"] = f"sqlite:///{tmp_path}/notes.db"
        return Settings(**given | changes)

    return settings


def url(
    user: str = "notes",
    own: str = "pw-of-its-own",
    query: str = "?sslmode=require",
    host: str = "db.example.com",
) -> dict[str, str]:
    return {"database_url": f"postgresql://{user}:{own}@{host}/notes{query}"}


WRONG_SETTINGS = [
    ("S01", {"secret_key": "x1" * 20}),
    ("S02", {"secret_key": KEY + "-changeme"}),
    ("D05", {"database_timeout": 60}),
    ("H01", {"trusted_hosts": None}),
    ("H02", {"forwarded_allow_ips": "*"}),
    ("H03", {"metrics_bind": "0.0.0.0:9100"}),
    ("L01", {"log_level": "debug"}),
    ("L02", {"log_format": "text"}),
    ("L03", {"uncommitted_work": "off"}),
]
if importlib.util.find_spec("psycopg"):
    WRONG_SETTINGS += [
        ("D01", {"database_url": f"sqlite:///{tempfile.gettempdir()}/notes.db"}),
        ("D02", url(own="notes")),
        ("D02", url(own="postgres")),
        ("D02", url(own="postgres", host="", query="?host=localhost&host=db-2:5432&sslmode=require")),
        ("D02", url(own="")),
        ("D03", url(query="")),
        ("D03", url(query="?sslmode=prefer")),
        ("D03", url(host="", query="?host=db-1,db-2")),
        ("D04", url(user="postgres")),
    ]

WRONG_APPLICATIONS = [
    ("E02", {"DEBUG": True}),
    ("E03", {"PROPAGATE_EXCEPTIONS": True}),
    ("E03", {"TESTING": True}),
    ("S03", {"SECRET_KEY_FALLBACKS": ["old"]}),
    ("H04", {"MAX_CONTENT_LENGTH": None}),
    ("H05", {"MAX_FORM_PARTS": None}),
    ("B08", {"SESSION_COOKIE_SECURE": False}),
    ("B09", {"SESSION_COOKIE_HTTPONLY": False}),
    ("B10", {"SESSION_COOKIE_SAMESITE": None}),
]

WRONG_HEADERS = [
    ("B02", "Strict-Transport-Security", "max-age=31536000"),
    ("B03", "X-Content-Type-Options", None),
    ("B04", "X-Frame-Options", "SAMEORIGIN"),
    ("B05", "Content-Security-Policy", "default-src *"),
    ("B06", "Referrer-Policy", "unsafe-url"),
    ("B07", "Cross-Origin-Opener-Policy", None),
]


def test_a_good_service_has_nothing_to_mend(settings: Callable[..., Settings]) -> None:
    assert [check.name for check in examine(settings(), {})] == []


@pytest.mark.parametrize(("name", "changes"), WRONG_SETTINGS)
def test_a_setting_that_is_wrong_is_found_and_nothing_else(
    settings: Callable[..., Settings], name: str, changes: dict[str, Any]
) -> None:
    assert [check.name for check in examine(settings(**changes), {})] == [name]


@pytest.mark.parametrize(("name", "changes"), WRONG_APPLICATIONS)
def test_an_application_that_is_wrong_is_found_and_nothing_else(
    settings: Callable[..., Settings], name: str, changes: dict[str, Any]
) -> None:
    service = good_service(settings())
    service.app.config.from_mapping(changes)

    assert found(service) == [name]


@pytest.mark.parametrize(("name", "header", "value"), WRONG_HEADERS)
def test_a_header_that_is_wrong_is_found_and_nothing_else(
    settings: Callable[..., Settings], name: str, header: str, value: str | None
) -> None:
    service = good_service(settings())
    headers = {name: told for name, told in service.headers.items() if name != header}
    if value:
        headers[header] = value

    assert found(replace(service, headers=headers)) == [name]


def test_an_answer_without_hsts_is_found(settings: Callable[..., Settings]) -> None:
    service = good_service(settings())
    headers = {k: v for k, v in service.headers.items() if k != "Strict-Transport-Security"}

    assert found(replace(service, headers=headers)) == ["B01", "B02"]


def test_another_environment_than_production_is_found(settings: Callable[..., Settings]) -> None:
    # Its cookies may go over plain HTTP, too.
    changed = settings(app_env="development", log_format="json")

    assert [check.name for check in examine(changed, {})] == ["E01", "B08"]


def test_the_drivers_own_way_to_encrypt_and_to_know_the_password_counts(
    settings: Callable[..., Settings],
) -> None:
    service = good_service(settings())
    bare = replace(service, settings=service.settings.model_copy(update=url(query="")))
    by_file = url(own="", query="?sslmode=require&passfile=/run/secrets/pgpass")

    assert found(bare) == ["D03"]
    assert found(replace(bare, environment={"PGSSLMODE": "verify-full"})) == []
    assert found(replace(service, settings=service.settings.model_copy(update=by_file))) == []


def test_development_modes_and_root_are_found(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [check.name for check in examine(settings(), {"PYTHONDEVMODE": "1"})] == ["E05"]

    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    assert [check.name for check in examine(settings(), {})] == ["E04"]


def test_every_check_has_a_name_of_its_own_and_says_how_to_mend() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) >= 23
    assert all(check.what and check.mend for check in CHECKS)


def test_the_command_tells_each_and_ends_with_1(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "load_or_exit", lambda: settings(trusted_hosts=None))

    assert doctor.main() == 1

    assert capsys.readouterr().out.splitlines() == [
        "H01 any Host is answered: links that are made from it may lead elsewhere",
        "    set TRUSTED_HOSTS=example.com",
        f"{len(CHECKS)} checks, 1 to mend",
    ]


def test_the_command_ends_with_0_when_nothing_is_wrong(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "load_or_exit", settings)

    assert doctor.main() == 0
    assert capsys.readouterr().out == f"{len(CHECKS)} checks, nothing to mend\n"


def good_service(settings: Settings) -> Service:
    """Return a service in which nothing is wrong."""
    app = create_app(settings)
    answer = app.test_client().get("/livez", environ_overrides=HTTPS, buffered=True)
    return Service(settings, app, dict(answer.headers), {})


def found(service: Service) -> list[str]:
    return [check.name for check in CHECKS if check.is_wrong(service)]
