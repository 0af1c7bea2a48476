"""A session as in notebooks: created once at the top, and kept."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.foundation.database import db


def add_to(app: Flask) -> None:
    """Open two connections now, before the server forks: one is kept, one returns to the pool."""
    with app.app_context():
        engine = db.engine
    session = Session(engine)
    session.execute(text("SELECT 1"))
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))

    @app.get("/echo/<int:number>")
    def echo(number: int) -> dict[str, Any]:
        row = db.session.execute(
            text("SELECT :number, pg_backend_pid(), pg_sleep(0.01)"), {"number": number}
        ).one()
        return {"number": row[0], "backend": row[1], "worker": os.getpid()}

    @app.get("/kept")
    def kept() -> str:
        return str(session.execute(text("SELECT 1")).scalar())
