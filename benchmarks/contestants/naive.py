"""The usual additions for production: request ids, a JSON log line, security headers, pydantic, a ping."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid
from datetime import datetime
from typing import Any

from bare import Note, add_views, make_app
from flask import Response, g, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import HTTPException

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class JSONFormatter(logging.Formatter):
    """Format a record and its request as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.formatTime(record), "level": record.levelname, "message": record.getMessage()}
        return json.dumps(line | record.__dict__["request"])


class NoteIn(BaseModel):
    """The part of a note that a client writes."""

    text: str = Field(min_length=1, max_length=10_000)


class NoteOut(BaseModel):
    """A stored note."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    text: str
    created_at: datetime
    version: int


handler = logging.StreamHandler(sys.stderr)
handler.setFormatter(JSONFormatter())
access = logging.getLogger("access")
access.addHandler(handler)
access.propagate = False
access.setLevel("INFO")

app = make_app(__name__, pool_pre_ping=True, pool_recycle=1800)
app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]


@app.before_request
def begin() -> None:
    g.begun = time.perf_counter()
    g.request_id = request.headers.get("X-Request-ID") or uuid.uuid4().hex


@app.after_request
def end(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-ID"] = g.request_id
    if request.path != "/livez":
        fields = {
            "request_id": g.request_id,
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "duration_ms": (time.perf_counter() - g.begun) * 1000,
            "remote": request.remote_addr,
            "user_agent": request.user_agent.string,
        }
        access.info("request", extra={"request": fields})
    return response


@app.errorhandler(HTTPException)
def answer_error(error: HTTPException) -> tuple[dict[str, Any], int]:
    return {"status": error.code, "title": error.name, "detail": error.description}, error.code or 500


@app.errorhandler(ValidationError)
def answer_invalid(error: ValidationError) -> tuple[dict[str, Any], int]:
    return {"errors": error.errors()}, 422


def as_json(note: Note) -> dict[str, Any]:
    return NoteOut.model_validate(note).model_dump(mode="json")


add_views(app, as_json, lambda body: NoteIn.model_validate(body).text)
