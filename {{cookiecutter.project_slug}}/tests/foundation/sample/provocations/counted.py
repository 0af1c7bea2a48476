"""A view that forgets to commit, has a failing clean-up, and counts its own requests."""

from __future__ import annotations

from flask import Flask, g
from prometheus_client import Counter
from sqlalchemy import text

from {{cookiecutter.package_name}}.foundation.database import db

ASKED = Counter("asked_total", "How often it was asked")


def add_to(app: Flask) -> None:
    """Serve /counted."""

    @app.get("/counted")
    def counted() -> str:
        ASKED.inc()
        g.is_counted = True
        db.session.execute(text("UPDATE foundation_samples SET text = 'lost'"))
        return "counted"

    @app.teardown_appcontext
    def fail(error: BaseException | None) -> None:
        if "is_counted" in g:
            raise RuntimeError("this clean-up fails")
