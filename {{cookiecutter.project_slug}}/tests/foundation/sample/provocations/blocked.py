"""A view that blocks its thread, and under gevent its process, until a file is unlocked."""

from __future__ import annotations

import fcntl
from pathlib import Path

from flask import Flask


def add_to(app: Flask) -> None:
    """Serve /blocked, which creates the file `blocking` and waits for the lock of the file `lock`."""
    folder = Path.cwd()

    @app.get("/blocked")
    def blocked() -> str:
        with (folder / "lock").open("w") as file:
            (folder / "blocking").touch()
            fcntl.flock(file, fcntl.LOCK_EX)
        return "blocked"
