"""Streams, as the README recommends and as commonly written; and a view that reports leaks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flask import Flask, Response, g, has_app_context, request, stream_with_context
from sqlalchemy import text
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.foundation.database import db


class Keeper:
    """A middleware that hides close() from the server and keeps the body, like some for measurements."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.kept: Iterable[bytes] = ()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        response: Iterable[bytes] = self.app(environ, start_response)
        if environ["PATH_INFO"] != "/careless":
            self.kept = ()  # The kept body is collected here, on another request's thread.
            return response
        self.kept = response
        return map(bytes, response)


class Looker:
    """A middleware that records whether a request sees a context before Flask starts."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["found_context"] = has_app_context()
        response: Iterable[bytes] = self.app(environ, start_response)
        return response


def add_to(app: Flask) -> None:
    """Serve endless streams and /state."""
    app.wsgi_app = Keeper(Looker(app.wsgi_app))  # type: ignore[method-assign]
    part = b"x" * 65536

    @app.get("/stream")
    def stream() -> Response:
        engine = db.engine

        def parts() -> Iterator[bytes]:
            with Session(engine) as session:
                session.execute(text("SELECT 1"))
                while True:
                    yield part

        return Response(parts())

    @app.get("/careless")
    def careless() -> Response:
        def parts() -> Iterator[bytes]:
            db.session.execute(text("SELECT 1"))
            while True:
                yield part

        return Response(stream_with_context(parts()))

    @app.get("/state")
    def state() -> dict[str, Any]:
        stranger = "seen" in g
        g.seen = True
        pool: Any = db.engine.pool
        return {
            "context": request.environ["found_context"] or stranger,
            "connections": pool.checkedout(),
            "sessions": len(db.session.registry.registry),
        }
