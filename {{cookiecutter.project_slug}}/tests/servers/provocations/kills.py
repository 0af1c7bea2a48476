"""A view that hangs in the middle of its transaction, one that waits; and a list of who serves."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

from flask import Flask

from {{cookiecutter.package_name}}.db import transaction
from {{cookiecutter.package_name}}.notes import service
from {{cookiecutter.package_name}}.notes.models import Note


def add_to(app: Flask) -> None:
    """Serve /hang and /wait. A process leaves a file named for its pid in `workers`, `hanging`, `waiting`."""
    folder = Path.cwd()

    def leave_pid(place: str) -> None:
        (folder / place).mkdir(exist_ok=True)
        (folder / place / str(os.getpid())).touch()

    @app.before_request
    def serve() -> None:
        leave_pid("workers")

    @app.post("/hang/<int:note_id>")
    def hang(note_id: int) -> str:
        with transaction() as session:
            note = session.get_one(Note, note_id, with_for_update=True)
            service.change_note(session, note, "half done")
            service.add_note(session, "half done")
            leave_pid("hanging")
            # As an extension in C does it that keeps the interpreter to itself: no other thread runs.
            ctypes.PyDLL(None).sleep(60)
        return "done"

    @app.post("/wait")
    def wait() -> str:
        leave_pid("waiting")
        # As who asks another service without a timeout.
        threading.Event().wait(60)
        return "waited"
