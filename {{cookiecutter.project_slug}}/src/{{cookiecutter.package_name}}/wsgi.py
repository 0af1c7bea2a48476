"""What every server loads: a configuration error ends here, once, with 78."""

from __future__ import annotations

import gc

# The collector would walk through what is being loaded again and again, and later once more in each worker,
# which would have to copy it. All of it stays: a seventh of the time until the service serves is saved.
gc.disable()

from flask import Flask  # noqa: E402

from . import fork_safety  # noqa: E402
from .settings import ConfigurationError, exit_with  # noqa: E402


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
gc.freeze()
gc.enable()
