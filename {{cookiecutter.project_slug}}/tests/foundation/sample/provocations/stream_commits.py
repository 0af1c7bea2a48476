"""Streams that write: as rule 5 of the README requires, and in ways that could lose a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flask import Flask, Response, stream_with_context
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.foundation.database import db, transaction

from ..samples import add_sample

PART = b"x" * 65536


def add_to(app: Flask) -> None:
    """Serve a POST /streams/... for each way; each one adds a sample with its own name."""

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
                add_sample(session, "own-session")
                yield PART

        return Response(parts())

    @app.post("/streams/written-before")
    def written_before() -> Response:
        add_sample(db.session(), "written-before")

        def parts() -> Iterator[bytes]:
            yield PART
            db.session.commit()
            yield PART

        return Response(stream_with_context(parts()))

    @streams("commits")
    def commits() -> Iterator[bytes]:
        with transaction() as session:
            add_sample(session, "commits")
            yield PART

    @streams("forgets")
    def forgets() -> Iterator[bytes]:
        add_sample(db.session(), "forgets")
        yield PART

    @streams("raises")
    def raises() -> Iterator[bytes]:
        with transaction() as session:
            add_sample(session, "raises")
            yield PART
            raise LookupError("in the middle of a stream")

    @streams("endless")
    def endless() -> Iterator[bytes]:
        add_sample(db.session(), "endless")
        while True:
            yield PART
