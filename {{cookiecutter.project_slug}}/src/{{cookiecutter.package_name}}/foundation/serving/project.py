"""The project, imported by name as a server imports it. Run as a module, it checks the environment."""

import importlib
from typing import Any, cast

from ..configuration import ServiceSettings, load_or_exit

# Not __name__, which is "__main__" in a module that is run.
PACKAGE = str(__package__).partition(".foundation.")[0]


def settings_class() -> type[ServiceSettings]:
    """Return the project's own settings class."""
    return cast(type[ServiceSettings], importlib.import_module(f"{PACKAGE}.settings").Settings)


def load_settings() -> ServiceSettings:
    """Read the environment once, or exit with 78 and one line per problem."""
    return load_or_exit(settings_class())


def create_app(settings: ServiceSettings) -> Any:
    """Build the service with the project's factory."""
    return importlib.import_module(f"{PACKAGE}.app").create_app(settings)


def load_app() -> Any:
    """Return the application that servers load, built on the first call."""
    return importlib.import_module(f"{PACKAGE}.wsgi").app


if __name__ == "__main__":
    load_settings()
