"""A server that calls the application while it handles its own error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask import Flask


def add_to(app: Flask) -> None:
    """Call the application inside an `except` block, and log every error that teardown functions get."""
    inner = app.wsgi_app

    def busy_server(environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        except BlockingIOError:
            return inner(environ, start_response)

    app.wsgi_app = busy_server  # type: ignore[method-assign]

    @app.teardown_request
    @app.teardown_appcontext
    def report(error: BaseException | None) -> None:
        if error is not None:
            app.logger.error("a teardown got %r", error)
