"""Streams that write: as rule 5 of the README wants it, and in the ways that could lose a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flask import Flask, Response, stream_with_context
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.db import db, transaction
from {{cookiecutter.package_name}}.notes import service

PART = b"x" * 65536


def add_to(app: Flask) -> None:
    """Serve a POST /streams/... for each way; each one adds a note of its own name."""

    def streams(name: str) -> Callable[[Callable[[], Iterator[bytes]]], object]:
        def register(parts: Callable[[], Iterator[bytes]]) -> object:
            return app.add_url_rule(
                f"/streams/{name}", name, lambda: Response(stream_with_context(parts())), methods=["POST"]
            )

        return register

    @app.post("/streams/own-session")
    def own_session() -> Response:
        engine = db.engine

        def parts() -> Iterator[bytes]:
            with Session(engine) as session, session.begin():
                service.add_note(session, "own-session")
                yield PART

        return Response(parts())

    @app.post("/streams/written-before")
    def written_before() -> Response:
        service.add_note(db.session(), "written-before")

        def parts() -> Iterator[bytes]:
            yield PART
            db.session.commit()
            yield PART

        return Response(stream_with_context(parts()))

    @streams("commits")
    def commits() -> Iterator[bytes]:
        with transaction() as session:
            service.add_note(session, "commits")
            yield PART

    @streams("forgets")
    def forgets() -> Iterator[bytes]:
        service.add_note(db.session(), "forgets")
        yield PART

    @streams("raises")
    def raises() -> Iterator[bytes]:
        with transaction() as session:
            service.add_note(session, "raises")
            yield PART
            raise LookupError("in the middle of a stream")

    @streams("endless")
    def endless() -> Iterator[bytes]:
        service.add_note(db.session(), "endless")
        while True:
            yield PART
