"""A view that binds a field, and logs after another request has bound its own."""

from __future__ import annotations

import logging
import threading

from flask import Flask

from {{cookiecutter.package_name}}.foundation.observability import bind

log = logging.getLogger(__name__)


def add_to(app: Flask) -> None:
    """Serve /bound/<user_id>, which waits until two requests have bound a field."""
    both = threading.Barrier(2)

    @app.get("/bound/<int:user_id>")
    def bound(user_id: int) -> str:
        bind(user_id=user_id)
        both.wait(20)
        log.info("bound", extra={"own": user_id})
        return "bound"
