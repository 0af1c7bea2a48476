"""Fixtures of every test. This file is yours: add your own below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

from {{cookiecutter.package_name}}.foundation.database.session import engines_of

from .foundation.databases import Databases
from .foundation.fixtures import (
    client,
    database_url,
    each_databases,
    isolated,
    own_databases,
    postgresql,
    required_settings,
    session,
    sign_in,
    sqlite,
    statements,
)
from .foundation.processes import pytest_runtest_makereport

if TYPE_CHECKING:
    from {{cookiecutter.package_name}}.settings import Settings


def make_settings(url: str, **changes: Any) -> Settings:
    """Return the settings of the service for a test, with changes."""
    # Imported lazily, as below: the foundation's tests run without your code.
    from {{cookiecutter.package_name}}.settings import Settings

    return Settings(**required_settings(url) | changes)


@pytest.fixture(scope="session")
def app(own_databases: Databases) -> Iterator[Flask]:
    """The service, on a database that no test changes: `client` and `session` roll back."""
    from {{cookiecutter.package_name}}.app import create_app

    app = create_app(make_settings(own_databases.migrated()))
    yield app
    for engine in engines_of(app):
        engine.dispose()
