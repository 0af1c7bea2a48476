"""The service's own settings, in addition to the foundation's. This file is yours."""

from __future__ import annotations

from .foundation.configuration import ServiceSettings


class Settings(ServiceSettings):
    """Every setting of the service: a field `greeting: str = "hello"` reads the variable GREETING.

    A view reads it as `current_settings(Settings).greeting`, and `make settings` lists it.
    """
