"""A thread as in scripts: started at the top, and writing to the log while the server forks."""

from __future__ import annotations

import logging
import os
import random
import threading

from flask import Flask


def add_to(app: Flask) -> None:
    """Start the thread, which holds the log's lock until a request reaches its process. Serve /log, /draw."""
    handler = logging.getLogger().handlers[0]
    writes, served = threading.Event(), threading.Event()

    def write() -> None:
        assert handler.lock
        with handler.lock:
            writes.set()
            served.wait()

    threading.Thread(target=write, daemon=True).start()
    writes.wait()

    @app.before_request
    def let_go() -> None:
        served.set()

    @app.get("/log")
    def log() -> str:
        logging.getLogger("early").warning("a line")
        return "written"

    @app.get("/draw")
    def draw() -> dict[str, float]:
        return {"worker": os.getpid(), "number": random.random()}  # noqa: S311
