"""Views that raise or send a broken header, and one that holds a lock while they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response, request


def add_to(app: Flask) -> None:
    """Serve /raise, /export, which raises in the middle, /header, and /hold, which waits for its test."""
    folder = Path.cwd()

    @app.get("/raise")
    def fail() -> str:
        raise RuntimeError("a bug in a view")

    @app.get("/export")
    def export() -> Response:
        def rows() -> Iterator[str]:
            yield "the first row\n"
            raise RuntimeError("a bug in the middle of an answer")

        return Response(rows())

    @app.get("/header")
    def header() -> Response:
        return Response("an answer", headers={request.args["name"]: request.args["value"]})

    @app.get("/hold/<int:number>")
    def hold(number: int) -> str:
        lock = folder / f"{number}.lock"
        lock.touch(exist_ok=False)
        try:
            deadline = time.monotonic() + 20
            while not (folder / "end").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            lock.unlink()
        return "answered"
