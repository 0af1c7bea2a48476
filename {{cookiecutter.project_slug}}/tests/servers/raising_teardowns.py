"""Clean-ups that fail, registered as applications register them."""

from __future__ import annotations

from flask import Flask, g

from {{cookiecutter.package_name}}.db import db, transaction
from {{cookiecutter.package_name}}.notes import service


def add_to(app: Flask) -> None:
    """Let two clean-ups raise after /leave, which has committed one note and reads on."""

    @app.post("/leave")
    def leave() -> str:
        g.leaving = True
        with transaction() as session:
            service.add_note(session, "kept")
        service.find_note(db.session(), 1)
        return "left"

    @app.teardown_request
    def first(error: BaseException | None) -> None:
        if "leaving" in g:
            raise RuntimeError("the first clean-up failed")

    @app.teardown_appcontext
    def second(error: BaseException | None) -> None:
        if "leaving" in g:
            raise RuntimeError("the second clean-up failed")
