"""The list of `make settings`: every setting with its effective value, but no secrets."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal, assert_type

import pytest
from flask import Flask
from pydantic import Field, SecretStr

from {{cookiecutter.package_name}}.foundation.configuration import (
    ServiceSettings,
    current_settings,
)
from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.serving import settings as listed

from ..databases import Databases
from ..fixtures import SECRET, make_settings, required_settings
from ..sample.app import create_app


class Settings(ServiceSettings):
    """Settings including an owner's."""

    greeting: str = Field("hello", description="The first word of each answer")
    colours: tuple[Literal["red", "blue"], ...] = ("red",)
    limit: int | None = None
    names: list[str] = Field(default_factory=lambda: ["a", "b"])
    shop_password: SecretStr
    api_token: str = "hush"  # noqa: S105


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with only the required settings."""
    for name in {name.upper() for name in Settings.model_fields} & os.environ.keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("APP_ENV", "testing")
    monkeypatch.setenv("DATABASE_URL", "sqlite:////tmp/listed.db")
    monkeypatch.setenv("SECRET_KEY", SECRET)
    monkeypatch.setenv("SHOP_PASSWORD", "hush")
    return monkeypatch


def test_each_setting_is_listed_with_its_value_in_force(environment: pytest.MonkeyPatch) -> None:
    """Each setting, including the owner's, is listed with value, type, default and description."""
    environment.setenv("LIMIT", "0012")
    environment.setenv("WEB_PRELOAD", "no")

    lines, problems = listed.describe(Settings)

    text = "\n".join([*lines, ""])
    assert problems == 0
    assert {line.partition("=")[0] for line in lines if "=" in line and line[0] != " "} == {
        name.upper() for name in Settings.model_fields
    }
    for entry in (
        "GREETING=hello\n    str; default hello\n    The first word of each answer\n",
        "COLOURS=red\n    tuple[typing.Literal['red', 'blue'], ...]; default red\n",
        "LIMIT=12\n    int\n",
        "NAMES=a,b\n    list[str]; default a,b\n",
        "WEB_PRELOAD=false\n    bool; default true\n",
        "LOG_FORMAT=\n    json | text\n",
        "SECRET_KEY=**********\n    SecretStr; required\n",
    ):
        assert entry in text


@pytest.mark.parametrize("complete", [True, False])
def test_no_secret_is_listed(environment: pytest.MonkeyPatch, complete: bool) -> None:
    """No secret is listed, neither by its type nor by its name, and a database's URL has no password."""
    if find_spec("psycopg"):
        environment.setenv("DATABASE_URL", "postgresql://me:hush@db/name?password=hush")
    environment.setenv("SENTRY_DSN", "" if complete else "https://hush@host/1")
    if not complete:
        environment.setenv("LIMIT", "few")

    lines, _ = listed.describe(Settings)

    text = "\n".join(lines)
    assert "hush" not in text
    assert SECRET not in text
    assert "API_TOKEN=**********" in lines
    assert "CORS_CREDENTIALS=false" in lines


def test_problems_are_in_the_lines_of_their_settings(environment: pytest.MonkeyPatch) -> None:
    """A missing, invalid or misspelt setting is listed with its problem, and the others with their values."""
    environment.setenv("APP_ENV", "Production")
    environment.setenv("LIMIT", "few")
    environment.delenv("SHOP_PASSWORD")
    environment.setenv("SHOP_PASSWORDS", "misspelt")

    lines, problems = listed.describe(Settings)

    assert problems == 3
    assert "LIMIT should be a valid integer, unable to parse string as an integer" in lines
    assert "SHOP_PASSWORD is missing: set it in the environment (`make serve` reads .env)" in lines
    assert lines[-1] == "SHOP_PASSWORDS is no setting, SHOP_PASSWORD is: correct it or remove it"
    assert "GREETING=hello" in lines


def test_production_refusals_are_listed(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value that production rejects is listed as a problem, and the exit code is 78."""
    environment.setattr(listed, "settings_class", lambda: Settings)
    assert listed.main() == 0
    environment.setenv("APP_ENV", "production")
    environment.setenv("SECRET_KEY", "changeme" * 8)

    assert listed.main() == 78
    assert "\nSECRET_KEY can be guessed: " in capsys.readouterr().out


def test_a_view_reads_typed_settings(own_databases: Databases) -> None:
    """A view reads the settings of its application, as the owner's class."""
    required = required_settings(own_databases.sampled())
    app = create_app(Settings(**required, shop_password=SecretStr("hush"), greeting="good day"))

    @app.get("/greeting")
    def greeting() -> str:
        return assert_type(current_settings(Settings).greeting, str)

    assert app.test_client().get("/greeting").text == "good day"
    dispose(app)


def test_settings_of_another_class_are_an_error(own_databases: Databases) -> None:
    """Settings of another class raise an error that names both."""
    app = create_app(make_settings(own_databases.sampled()))

    with app.app_context(), pytest.raises(TypeError, match="with ServiceSettings, not with Settings"):
        current_settings(Settings)
    dispose(app)


def dispose(app: Flask) -> None:
    """Close the connections of an application."""
    for engine in engines_of(app):
        engine.dispose()
