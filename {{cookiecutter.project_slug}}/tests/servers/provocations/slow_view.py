"""A view that answers when it is told to: the test holds a request in flight for as long as it needs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flask import Flask


def add_to(app: Flask) -> None:
    """Serve /slow, which says by a file that it has begun, and waits for one that lets it end."""
    folder = Path(os.getcwd())  # noqa: PTH109  # Before a server changes it.

    @app.get("/slow")
    def slow() -> str:
        (folder / "begun").touch()
        deadline = time.monotonic() + 20
        while not (folder / "end").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return "answered"
