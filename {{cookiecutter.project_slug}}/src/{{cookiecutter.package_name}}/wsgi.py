"""The module that every server loads. A configuration error ends the process here, once, with 78."""

from __future__ import annotations

import gc
import sys

# The garbage collector would traverse the modules repeatedly while they load, and again in each worker, which
# would copy their memory. None of them is garbage, and startup is a seventh shorter.
gc.disable()

from flask import Flask  # noqa: E402

from .foundation.configuration import ConfigurationError, exit_with, load  # noqa: E402
from .foundation.database.fork_safety import close_early_connections  # noqa: E402
from .foundation.database.session import engines_of  # noqa: E402
from .foundation.loading import nothing_loaded, warm_up  # noqa: E402


class ApplicationFailed(Exception):
    """The application could not be built."""


def _build() -> Flask:
    try:
        # Imported here, so that an error in any of these modules is caught too.
        from .settings import Settings

        settings = load(Settings)
        if settings.metrics_bind:
            # Before the features: a metric defined earlier would choose its own files.
            from .foundation.observability import metrics  # noqa: F401
        with nothing_loaded():
            from .app import create_app

            application = create_app(settings)
    except ConfigurationError as error:
        exit_with(error)
    except RuntimeError as error:
        # gunicorn shows the text of a RuntimeError and hides its traceback (gunicorn/app/base.py).
        failure = ApplicationFailed(f"{type(error).__name__}: {error}")
        raise failure.with_traceback(error.__traceback__) from None
    close_early_connections(engines_of(application))
    return application


app = _build()
gc.freeze()
gc.enable()
# gunicorn has a hook for this. uWSGI loads this module in each worker; without lazy-apps the first probe
# starts the warm-ups.
if "uwsgi" in sys.modules and sys.modules["uwsgi"].worker_id():
    warm_up()
