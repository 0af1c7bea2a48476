"""A view that returns the version of its code and its process."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask
from sqlalchemy import text

from {{cookiecutter.package_name}}.foundation.database import db

VERSION = "the old code"


def add_to(app: Flask) -> None:
    """Serve /version."""

    @app.get("/version")
    def version() -> dict[str, Any]:
        db.session.execute(text("SELECT 1"))
        return {"version": VERSION, "process": os.getpid()}
