"""A model that loads as long as the proof wants, and records the processes that load it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flask import Flask

from {{cookiecutter.package_name}}.foundation.loading import loaded_once

FOLDER = Path.cwd()
PATIENCE = 45.0  # seconds


@loaded_once(warm=True)
def heavy_model() -> int:
    """Return the process that has loaded it."""
    with (FOLDER / "begun").open("a") as file:
        file.write(f"{os.getpid()}\n")
    deadline = time.monotonic() + PATIENCE
    while not (FOLDER / "may-end").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return os.getpid()


def add_to(app: Flask) -> None:
    """Serve /heavy."""

    @app.get("/heavy")
    def heavy() -> dict[str, object]:
        threads = os.environ.get("OMP_NUM_THREADS")
        return {"worker": os.getpid(), "loaded_in": heavy_model(), "threads": threads}
