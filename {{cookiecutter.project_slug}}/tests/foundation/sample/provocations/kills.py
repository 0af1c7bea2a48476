"""A view that hangs in its transaction, one that waits, and a list of the workers."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

from flask import Flask

from {{cookiecutter.package_name}}.foundation.database import transaction

from ..samples import FoundationSample, add_sample, change_sample


def add_to(app: Flask) -> None:
    """Serve /hang and /wait. Processes create files named by their pid in `workers`, `hanging`, `waiting`."""
    folder = Path.cwd()

    def leave_pid(place: str) -> None:
        (folder / place).mkdir(exist_ok=True)
        (folder / place / str(os.getpid())).touch()

    @app.before_request
    def serve() -> None:
        leave_pid("workers")

    @app.post("/hang/<int:sample_id>")
    def hang(sample_id: int) -> str:
        with transaction() as session:
            sample = session.get_one(FoundationSample, sample_id, with_for_update=True)
            change_sample(session, sample, "half done")
            add_sample(session, "half done")
            leave_pid("hanging")
            # Like a C extension that holds the interpreter's lock: no other thread runs.
            ctypes.PyDLL(None).sleep(60)
        return "done"

    @app.post("/wait")
    def wait() -> str:
        leave_pid("waiting")
        # Like a request to another service without a timeout.
        threading.Event().wait(60)
        return "waited"
