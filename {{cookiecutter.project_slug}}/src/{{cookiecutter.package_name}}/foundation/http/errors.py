"""Errors as problem+json (RFC 9457), without internal details."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, current_app, g, has_request_context, request
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from ..database.constraints import taken_fields
from ..database.keyset import InvalidPosition
from ..database.session import refuse_commit
from ..observability.logs import request_id

log = logging.getLogger(__name__)

RETRY_AFTER = 2  # seconds
Shape = Callable[[dict[str, Any]], Response]  # builds a response from the members of a problem
MISFIT = "The request does not fit what is documented."
CHANGED = "It has changed since you read it."


class Problem(HTTPException):
    """An error response: a status, a sentence about the problem, headers, and extra members."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.code = status
        self.headers = headers or {}
        self.members = members

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        """Return the headers of the response."""
        return [*super().get_headers(*args, **kwargs), *self.headers.items()]


def problem(status: int, detail: str | None = None, **members: Any) -> Response:
    """Return a problem+json response, or the shape passed to `create_service` for this path.

    Creating an error response inside `transaction()` rolls it back.
    """
    body = {"type": "about:blank", "title": HTTP_STATUS_CODES.get(status, "Error"), "status": status}
    if identity := request_id.get():
        body["request_id"] = identity
    if detail:
        body["detail"] = detail
    body |= members
    if has_request_context():
        if status >= 400:
            refuse_commit()
            g.problem = True  # For the commit guard: earlier commits are intended.
        return _shape(current_app.extensions["error_shapes"], f"{request.path}/")(body)
    return problem_json(body)


def problem_json(members: dict[str, Any]) -> Response:
    """Return the members of a problem as problem+json: the default shape."""
    return Response(json.dumps(members), members["status"], mimetype="application/problem+json")


def _shape(shapes: Mapping[str, Shape], path: str) -> Shape:
    """Return the shape for the longest matching prefix of a path."""
    prefixes = [prefix for prefix in shapes if path.startswith(f"{prefix.rstrip('/')}/")]
    return shapes[max(prefixes, key=len)] if prefixes else problem_json


def init_app(app: Flask, shapes: Mapping[str, Shape] | None = None) -> None:
    """Return every error as problem+json, or in the shape for its path prefix."""
    app.extensions["error_shapes"] = shapes or {}
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(DBAPIError, _database)
    app.register_error_handler(PoolTimeout, _database)
    app.register_error_handler(StaleDataError, _stale)
    app.register_error_handler(InvalidPosition, _invalid_cursor)


def _http(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < 400:
        return error  # A redirect.
    # A 500 has no public description: Flask wraps the bug in an InternalServerError.
    detail = error.description if error.code < 500 or isinstance(error, Problem) else None
    response = problem(error.code, detail, **getattr(error, "members", {}))
    for name, value in error.get_headers():
        if name not in {"Content-Type", "Content-Length"}:
            response.headers[name] = value
    return response


def _database(error: DBAPIError | PoolTimeout) -> Response:
    if isinstance(error, IntegrityError):
        log.info("refused by a constraint: %s", _name(error))
        errors = [{"pointer": f"#/{name}", "detail": "is taken"} for name in taken_fields(error)]
        return problem(
            409, "This conflicts with what is stored already.", **({"errors": errors} if errors else {})
        )
    if isinstance(error, DataError):
        log.warning("the database rejected a value that had passed validation: %s", _name(error))
        return problem(422, "A value is out of the range that can be stored.")
    log.error("the database failed", exc_info=error)
    if isinstance(error, PoolTimeout) or error.connection_invalidated or _is_away(error):
        response = problem(503, "The database cannot answer right now, try again.")
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response
    return problem(500)


def _stale(error: StaleDataError) -> Response:
    # Another transaction changed the row between this request's read and write.
    return problem(412 if request.if_match else 409, CHANGED)


def _invalid_cursor(error: InvalidPosition) -> Response:
    errors = [{"pointer": "#/cursor", "detail": "is not a cursor of these pages"}]
    return problem(422, MISFIT, errors=errors)


def _name(error: DBAPIError) -> str:
    """Return an error's class and constraint only: the rest of the message contains client data."""
    constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    code = getattr(error.orig, "sqlite_errorname", None)
    return " ".join(filter(None, [type(error.orig).__name__, code, constraint]))


def _is_away(error: DBAPIError) -> bool:
    # SQLite raises OperationalError for invalid SQL, too.
    wrong_statement = getattr(error.orig, "sqlite_errorname", "") == "SQLITE_ERROR"
    return isinstance(error, OperationalError | InterfaceError) and not wrong_statement
