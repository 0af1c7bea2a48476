"""The service: its settings, and the features it is made of. This file is yours."""

from __future__ import annotations

from flask import Flask

from .foundation.application import create_service, load_features
from .foundation.configuration import load
from .settings import Settings

# One name a line: that of a folder, whose module `views` has the blueprint `bp`.
FEATURES: list[str] = [
    "notes",
]


def create_app(settings: Settings | None = None) -> Flask:
    """Build the service from the settings, or from the environment when none are given.

    Raises `ConfigurationError` when the environment does not describe a service that can run.
    """
    name = __package__ or __name__
    return create_service(name, settings or load(Settings), features=load_features(name, FEATURES))
