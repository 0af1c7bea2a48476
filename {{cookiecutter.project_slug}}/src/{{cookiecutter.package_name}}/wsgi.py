"""What every server loads: a configuration error ends here, once, with 78."""

from __future__ import annotations

from flask import Flask

from . import fork_safety
from .settings import ConfigurationError, exit_with


class ApplicationFailed(Exception):
    """The application could not be built."""


def _build() -> Flask:
    try:
        # Imported here, so that an error in any of its modules is caught too.
        from .app import create_app
        from .db import engines_of

        application = create_app()
    except ConfigurationError as error:
        exit_with(error)
    except RuntimeError as error:
        # gunicorn shows the text of a RuntimeError and hides its traceback (gunicorn/app/base.py).
        failure = ApplicationFailed(f"{type(error).__name__}: {error}")
        raise failure.with_traceback(error.__traceback__) from None
    fork_safety.close_early_connections(engines_of(application))
    return application


app = _build()
