"""The factory of the sample service."""

from __future__ import annotations

from flask import Flask

from {{cookiecutter.package_name}}.foundation.application import create_service
from {{cookiecutter.package_name}}.foundation.configuration import ServiceSettings, load

from . import samples
from .settings import Settings


def create_app(settings: ServiceSettings | None = None) -> Flask:
    """Build the sample service from the given settings, or from the environment."""
    name = "{{cookiecutter.package_name}}"
    return create_service(name, settings or load(Settings), features=[samples.bp])
