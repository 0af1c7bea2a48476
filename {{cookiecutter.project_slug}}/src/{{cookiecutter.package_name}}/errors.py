"""Failures as problem+json (RFC 9457): the session is rolled back first, and nothing internal is told."""

from __future__ import annotations

import json
import logging
import typing as t

from flask import Flask, Response
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from .commit_guard import fail_request
from .logs import request_id

log = logging.getLogger(__name__)

RETRY_AFTER = 2  # seconds


class Problem(HTTPException):
    """Raise to answer with a status, a sentence about what is wrong, and members of your own."""

    def __init__(self, status: int, detail: str, **members: t.Any) -> None:
        super().__init__(detail)
        self.code = status
        self.members = members


def problem(status: int, detail: str | None = None, **members: t.Any) -> Response:
    """Return a problem+json response."""
    body = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES.get(status, "Error"),
        "status": status,
    }
    if known := request_id.get():
        body["request_id"] = known
    if detail:
        body["detail"] = detail
    return Response(json.dumps(body | members), status, mimetype="application/problem+json")


def init_app(app: Flask) -> None:
    """Answer every failure of the application with problem+json."""
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(DBAPIError, _database)
    app.register_error_handler(PoolTimeout, _database)


def _http(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < 400:
        return error  # A redirect.
    fail_request()
    # The description of a 500 is for its author: Flask wraps the bug in an InternalServerError.
    detail = error.description if error.code < 500 or isinstance(error, Problem) else None
    response = problem(error.code, detail, **getattr(error, "members", {}))
    for name, value in error.get_headers():
        if name not in {"Content-Type", "Content-Length"}:
            response.headers[name] = value
    return response


def _database(error: DBAPIError | PoolTimeout) -> Response:
    fail_request()
    if isinstance(error, IntegrityError):
        log.info("refused by a constraint: %s", error.orig)
        return problem(409, "This conflicts with what is stored already.")
    if isinstance(error, DataError):
        log.warning("a value passed validation that the database refuses: %s", error.orig)
        return problem(422, "A value is out of the range that can be stored.")
    log.error("the database failed", exc_info=error)
    if isinstance(error, PoolTimeout) or error.connection_invalidated or _is_away(error):
        response = problem(503, "The database cannot answer right now, try again.")
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response
    return problem(500)


def _is_away(error: DBAPIError) -> bool:
    # A statement that SQLite does not understand is operational to it, too.
    wrong_statement = getattr(error.orig, "sqlite_errorname", "") == "SQLITE_ERROR"
    return isinstance(error, OperationalError | InterfaceError) and not wrong_statement
