"""The HTTP layer: input that is checked by its type, output that is a model."""

from __future__ import annotations

import functools
import typing as t
from collections.abc import Callable, Sequence

from flask import Flask, Response, request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter

from .errors import Problem

BIGGEST_ID = 2**63 - 1

View = Callable[..., t.Any]
Answer = BaseModel | Response | None


class Input(BaseModel):
    """What a client sends: a name that is not known is an error, not something to drop."""

    model_config = ConfigDict(extra="forbid")


class RowId(BaseConverter):
    """An id in a path: ASCII digits, and only what a BIGINT can hold. Anything else is no page of ours."""

    regex = r"[1-9][0-9]{0,18}"

    def to_python(self, value: str) -> int:
        number = int(value)
        if number > BIGGEST_ID:
            # What a converter refuses by ValidationError may come out as a 405 for another rule.
            raise NotFound()
        return number


def init_app(app: Flask) -> None:
    """Teach the application to read ids in paths. Call before blueprints are registered."""
    app.url_map.converters["row_id"] = RowId


def operation(
    *, status: int = 200, headers: Sequence[str] = (), if_match: t.Literal["needed", "allowed"] | None = None
) -> Callable[[View], View]:
    """Make a view part of the API: its parameters `body` and `query` are filled from the request.

    Their annotations say what fits. A body that is no JSON is refused with 400, one of another
    type with 415, and input that does not fit its model with 422, naming each place; where If-Match is
    needed, a request without it with 428. The view returns a model, nothing, or a pair of that and the
    headers that are named here; it is sent with the status.
    """

    def decorate(view: View) -> View:
        hints = t.get_type_hints(view)

        @functools.wraps(view)
        def wrapper(**kwargs: t.Any) -> Response:
            if if_match == "needed" and not request.if_match:
                raise Problem(428, "Send the ETag that you have read as If-Match.")
            if "body" in hints:
                kwargs["body"] = _read_body(hints["body"])
            if "query" in hints:
                kwargs["query"] = _read_query(hints["query"])
            return _respond(view(**kwargs), status)

        wrapper.__dict__.update(hints=hints, status=status, headers=headers, if_match=if_match)
        return wrapper

    return decorate


def _read_body(model: type[BaseModel]) -> BaseModel:
    if not request.is_json:
        raise Problem(415, "Send the body as application/json.")
    try:
        # Straight from the bytes: the parser bounds depth and numbers, and refuses lone surrogates.
        return model.model_validate_json(request.get_data(cache=False))
    except ValidationError as error:
        raise _refusal(error) from None


def _read_query(model: type[BaseModel]) -> BaseModel:
    try:
        # A parameter that is given twice stays a list, which fits none.
        given = {name: values[0] if len(values) == 1 else values for name, values in request.args.lists()}
        return model.model_validate(given)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> Problem:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return Problem(
            400, "The body is not valid JSON.", errors=[{"pointer": "#", "detail": found[0]["msg"]}]
        )
    # Twenty are enough to mend a request; a hostile one could have a million.
    errors = [{"pointer": "#/" + "/".join(map(_step, e["loc"])), "detail": e["msg"]} for e in found[:20]]
    return Problem(422, "The request does not fit what is documented.", errors=errors)


def _step(part: int | str) -> str:
    """Return one step of a JSON pointer (RFC 6901); a name that the client made up is cut short."""
    return str(part)[:80].replace("~", "~0").replace("/", "~1")


def _respond(result: Answer | tuple[Answer, dict[str, str]], status: int) -> Response:
    answer, headers = result if isinstance(result, tuple) else (result, {})
    if not isinstance(answer, Response):
        text = None if answer is None else answer.model_dump_json()
        answer = Response(text, status, mimetype="application/json")
    answer.headers.update(headers)
    return answer
