"""Requested faults: the process is killed, or the client gets a 503, before or after the commit."""

from __future__ import annotations

import os
import signal

from flask import Flask, Response, has_request_context, request
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from {{cookiecutter.package_name}}.foundation.database import db
from {{cookiecutter.package_name}}.foundation.http.errors import problem


def add_to(app: Flask) -> None:
    """Read the header X-Fault: `killed` or `refused`, and `before` or `after`."""

    @event.listens_for(db.session, "before_commit")
    def fail_before(session: object) -> None:
        if _fault() == "refused before":
            raise OperationalError("COMMIT", None, Exception("the connection broke"))
        _die("killed before")

    @event.listens_for(db.session, "after_commit")
    def die_after(session: object) -> None:
        # Immediately: anything committed after the work is lost.
        _die("killed after")

    @app.after_request
    def refuse_after(response: Response) -> Response:
        if _fault() == "refused after":
            # As if the connection broke after the database had committed.
            response = problem(503)
            response.headers["Retry-After"] = "2"
        return response


def _fault() -> str:
    return request.headers.get("X-Fault", "") if has_request_context() else ""


def _die(fault: str) -> None:
    if _fault() == fault:
        os.kill(os.getpid(), signal.SIGKILL)
