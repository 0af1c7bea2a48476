"""Operations: views with typed, validated input and typed output."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from flask import Response, request
from pydantic import TypeAdapter
from werkzeug import Response as AnyResponse
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter

from .authentication import Authentication
from .errors import Problem
from .idempotency import KeyedRequest, read_key, run_once
from .inputs import KINDS, MOST_VALUES, Headers, read_all

BIGGEST_ID = 2**63 - 1
CONDITIONS = {"HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_RANGE", "HTTP_IF_RANGE"}
PAIR = dict[str, str]  # response headers, the second of a pair

View = Callable[..., Any]


class RowId(BaseConverter):
    """An id in a path: ASCII digits within the range of a BIGINT. Any other path is a 404."""

    regex = r"[1-9][0-9]{0,18}"
    schema = {"type": "integer", "minimum": 1, "maximum": BIGGEST_ID}

    def to_python(self, value: str) -> int:
        number = int(value)
        if number > BIGGEST_ID:
            # A converter's ValidationError may become a 405 for another rule.
            raise NotFound()
        return number


@dataclass(kw_only=True)
class operation:  # noqa: N801  # A decorator, which reads like a function.
    """Make a view part of the API: its annotations validate and document its input.

    The parameters `body`, `query`, `headers` and `form` are filled from the request, after `user`, which
    `auth` provides. Invalid JSON is rejected with 400, another content type with 415, input that does not fit
    its type with 422, which lists each error, and a missing but required If-Match with 428. The view returns
    a result or None, a pair of that and the headers named here, or a `Response` of the content type
    `content`. A GET whose If-None-Match has the ETag of the response gets 304. `responses` documents other
    statuses by the type of their body, or None for a problem without members. Input of more than
    `most_values` values gets 422 without validation.

    An `idempotent` operation stores its response in its transaction. A request that repeats an
    Idempotency-Key gets the first response; a request without a key runs, or gets 400 if the key is
    "required".
    """

    status: int = 200
    headers: Sequence[str] = ()
    if_match: Literal["needed", "allowed"] | None = None
    auth: Authentication[Any] | None = None
    responses: Mapping[int, Any] = field(default_factory=dict)
    tags: Sequence[str] | None = None
    deprecated: bool = False
    content: str = "application/json"
    most_values: int = MOST_VALUES
    idempotent: bool | Literal["required"] = False

    def __call__(self, view: View) -> View:
        """Return the function that Flask calls."""
        hints = get_type_hints(view, include_extras=True)
        self.answer, self.is_pair = _answer_of(hints.pop("return", Any))
        self.inputs = {
            name: kind(hints.pop(name), self.most_values) for name, kind in KINDS.items() if name in hints
        }
        self.takes_user = hints.pop("user", None) is not None
        if self.takes_user and not self.auth:
            raise TypeError(f"{view.__qualname__} takes a user: pass operation(auth=…)")
        if self.idempotent and self.auth and not self.auth.identity:
            raise TypeError(
                f"{view.__qualname__} is idempotent, and a key belongs to a user: pass {self.auth.name}"
                " Authentication(…, identity=…), which returns the id of a user"
            )
        self.arguments = hints  # The parameters in the path.

        @functools.wraps(view)
        def wrapper(**arguments: Any) -> Response:
            user = self.auth.user() if self.auth else None
            if self.takes_user:
                arguments["user"] = user
            if self.if_match == "needed" and not request.if_match:
                raise Problem(428, "Send the ETag that you have read as If-Match.")
            keyed = self._read_key(user) if self.idempotent else None
            arguments |= read_all(self.inputs)

            def run() -> Response:
                return self._respond(view(**arguments))

            return run_once(keyed, self.headers, run) if self.idempotent else run()

        wrapper.__dict__["operation"] = self
        return wrapper

    def _read_key(self, user: Any) -> KeyedRequest | None:
        scope = (self.auth.name, self.auth.identity(user)) if self.auth and self.auth.identity else ()
        headers = self.inputs.get("headers")
        read = headers.given() if isinstance(headers, Headers) else {}
        return read_key(scope, read, required=self.idempotent == "required")

    def _respond(self, result: Any) -> Response:
        answer, headers = result if self.is_pair and isinstance(result, tuple) else (result, {})
        if not isinstance(answer, Response):
            answer = Response(self._dump(answer), self.status, mimetype=self.content)
        answer.headers.update(headers)
        if "ETag" in headers and not CONDITIONS.isdisjoint(request.environ):
            answer.make_conditional(request)  # costs a twentieth of a read, even without a condition
        return answer

    def _dump(self, answer: Any) -> bytes | None:
        """Return a result as JSON. A result that does not fit the documented type is a bug of the service."""
        if self.answer:
            return self.answer.dump_json(answer, by_alias=True, warnings="error")
        if answer is not None:
            raise TypeError(f"{request.endpoint} is annotated without an answer, and returns {type(answer)}")
        return None


def _answer_of(returned: Any) -> tuple[TypeAdapter[Any] | None, bool]:
    """Return the type of a view's result, if any, and whether headers may accompany it."""
    members = get_args(returned) if get_origin(returned) in {Union, UnionType} else (returned,)
    pairs = [member for member in members if get_origin(member) is tuple and get_args(member)[1:] == (PAIR,)]
    types = [get_args(member)[0] if member in pairs else member for member in members]
    # A view's own Response can have any content.
    types = [each for each in types if not (isinstance(each, type) and issubclass(each, AnyResponse))]
    if not types or types == [NoneType]:
        return None, bool(pairs)
    answer: Any = Union[tuple(types)]  # noqa: UP007  # The types are known only here.
    return TypeAdapter(answer), bool(pairs)
