"""A server that calls the application while it handles an error of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask import Flask


def add_to(app: Flask) -> None:
    """Call the application inside an `except` block, and say in the log what teardowns are told."""
    inner = app.wsgi_app

    def busy_server(environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        except BlockingIOError:
            return inner(environ, start_response)

    app.wsgi_app = busy_server  # type: ignore[method-assign]

    @app.teardown_request
    @app.teardown_appcontext
    def tell(error: BaseException | None) -> None:
        if error is not None:
            app.logger.error("a teardown was told of %r", error)
