"""The service: its settings and its features. This file is yours."""

from __future__ import annotations

from flask import Flask

from .foundation.application import create_service, load_features
from .foundation.configuration import load
from .settings import Settings

# One folder name per line; its module `views` defines the blueprint `bp`.
FEATURES: list[str] = [
    "notes",
]


def create_app(settings: Settings | None = None) -> Flask:
    """Build the service from the given settings, or from the environment.

    Raises `ConfigurationError` if the environment has no valid configuration.
    """
    name = __package__ or __name__
    return create_service(name, settings or load(Settings), features=load_features(name, FEATURES))
