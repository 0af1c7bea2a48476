"""Requests that provoke database failures."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flask import Flask, request
from sqlalchemy import text

from {{cookiecutter.package_name}}.foundation.database import db, transaction


def add_to(app: Flask) -> None:
    """Serve /slow, /greedy, /change-slowly and /cross."""
    folder = Path.cwd()
    touch = text("UPDATE foundation_samples SET text = :by WHERE id = :id")

    @app.get("/slow")
    def slow() -> str:
        db.session.execute(text("SELECT pg_sleep(60)"))
        return "awake"

    @app.get("/greedy")
    def greedy() -> str:
        # Two connections for one request: as many such requests as threads wait for each other.
        db.session.execute(text("SELECT 1"))
        with db.engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(0.1)"))
        return "had both"

    @app.post("/change-slowly/<int:sample>")
    def change_slowly(sample: int) -> str:
        with transaction() as session:
            session.execute(touch, {"id": sample, "by": "half done"})
            (folder / f"changing-{os.getpid()}").touch()
            session.execute(text("SELECT pg_sleep(60)"))
        return "changed"

    @app.post("/cross/<int:first>/<int:second>")
    def cross(first: int, second: int) -> str:
        with transaction() as session:
            session.execute(touch, {"id": first, "by": request.path})
            (folder / f"locked-{first}").touch()
            deadline = time.monotonic() + 10
            while not (folder / f"locked-{second}").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            session.execute(touch, {"id": second, "by": request.path})
        return "crossed"
