"""A view that hangs in the middle of its transaction; and a list of the processes that serve."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from flask import Flask

from {{cookiecutter.package_name}}.db import transaction
from {{cookiecutter.package_name}}.notes import service
from {{cookiecutter.package_name}}.notes.models import Note


def add_to(app: Flask) -> None:
    """Serve /hang. Every process leaves a file named for its pid in `workers`, and in `hanging` there."""
    folder = Path.cwd()

    @app.before_request
    def leave_pid() -> None:
        (folder / "workers").mkdir(exist_ok=True)
        (folder / "workers" / str(os.getpid())).touch()

    @app.post("/hang/<int:note_id>")
    def hang(note_id: int) -> str:
        with transaction() as session:
            note = session.get_one(Note, note_id, with_for_update=True)
            service.change_note(session, note, "half done")
            service.add_note(session, "half done")
            (folder / "hanging").mkdir()
            (folder / "hanging" / str(os.getpid())).touch()
            # As an extension in C does it that keeps the interpreter to itself: no other thread runs.
            ctypes.PyDLL(None).sleep(60)
        return "done"
