"""A view that holds a connection until its process is killed, and one that returns the process id."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from flask import Flask
from sqlalchemy import text

from {{cookiecutter.package_name}}.foundation.database import db


def add_to(app: Flask) -> None:
    """Serve /held, which creates a file named after its process, and /pid."""
    folder = Path.cwd()

    @app.get("/held")
    def held() -> str:
        db.session.execute(text("SELECT 1"))
        (folder / f"held-{os.getpid()}").touch()
        threading.Event().wait(60)
        return "held"

    @app.get("/pid")
    def pid() -> str:
        return str(os.getpid())
