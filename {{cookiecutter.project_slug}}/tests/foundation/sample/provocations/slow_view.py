"""A view that waits for its test, to keep a request in flight as long as needed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flask import Flask


def add_to(app: Flask) -> None:
    """Serve /slow, which creates a file at its start, and waits for another file to finish."""
    folder = Path(os.getcwd())  # noqa: PTH109  # Before a server changes it.

    @app.get("/slow")
    def slow() -> str:
        (folder / "begun").touch()
        deadline = time.monotonic() + 20
        while not (folder / "end").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return "answered"
