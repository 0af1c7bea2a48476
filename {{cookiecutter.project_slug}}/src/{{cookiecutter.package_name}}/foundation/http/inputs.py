"""Request input: bodies, queries, headers and forms, each validated by its annotated type."""

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Annotated, Any

from flask import request
from pydantic import BaseModel, ConfigDict, InstanceOf, TypeAdapter, ValidationError
from pydantic.json_schema import WithJsonSchema
from werkzeug.datastructures import FileStorage, MultiDict

from .errors import MISFIT, Problem

# pydantic builds an error for each invalid value, although only the first twenty are used: a body of one
# megabyte took 100 MB.
MOST_VALUES = 5000  # in a body, a query or a form
MOST_ERRORS = 1000  # beyond this, one summary error is returned
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
PREFIXES = ("Value error, ", "Assertion failed, ")  # pydantic's prefix of a validator's message

Schema = dict[str, Any]
Upload = Annotated[InstanceOf[FileStorage], WithJsonSchema({"type": "string", "format": "binary"})]


class Input(BaseModel):
    """The base class of input models. An unknown name is an error, not ignored."""

    model_config = ConfigDict(extra="forbid")


class Body:
    """A JSON body of any type."""

    def __init__(self, annotation: Any, most_values: int = MOST_VALUES) -> None:
        self.adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        self.most_values = most_values
        self.content_types = ["application/json"]

    def read(self) -> Any:
        """Return the validated value. Raises `Problem` or pydantic's `ValidationError`."""
        if not request.is_json:
            raise Problem(415, "Send the body as application/json.")
        # Directly from the bytes: the parser limits depth and numbers, and rejects lone surrogates.
        body = request.get_data(cache=False)
        if self.has_too_many_values(body):
            raise _too_many(self.most_values)
        # As documented: neither true nor "5" is a number.
        return self.adapter.validate_json(body, strict=True)

    def has_too_many_values(self, body: bytes) -> bool:
        """Return whether JSON has more values than allowed, or objects that could cause too many errors."""
        most_objects = 4 * self.most_values // self.errors_of_one
        if body.count(b",") < min(self.most_values, most_objects):
            return False  # The parser limits the depth.
        # Each value accounts for one string, and for another as its name.
        if next(islice(_STRING.finditer(body), 2 * self.most_values, None), None):
            return True
        bare = _STRING.sub(b"", body)
        commas = bare.count(b",")
        return commas >= self.most_values or min(commas, bare.count(b"{")) > most_objects

    @cached_property
    def errors_of_one(self) -> int:
        """The most errors that an empty object can cause: each model of a union reports missing members."""
        schema = self.adapter.json_schema()
        return max(_errors_of(part, schema.get("$defs", {})) for part in _parts(schema))


class Fields:
    """A model whose fields arrive as strings."""

    def __init__(self, annotation: Any, most_values: int = MOST_VALUES) -> None:
        self.adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        self.most_values = most_values

    @cached_property
    def properties(self) -> dict[str, Schema]:
        """The JSON schema of each field, by its name in the request."""
        found: dict[str, Schema] = self.adapter.json_schema().get("properties", {})
        return found

    @cached_property
    def lists(self) -> set[str]:
        """The names that may be given several times."""
        parts = {name: [schema, *schema.get("anyOf", ())] for name, schema in self.properties.items()}
        return {
            name for name, several in parts.items() if any(part.get("type") == "array" for part in several)
        }

    def values(self, given: MultiDict[str, Any]) -> dict[str, Any]:
        """Return one value per name, or a list for a list field.

        A repeated name stays a list, which other fields reject.
        """
        several = dict(given.lists())
        return {name: v if name in self.lists or len(v) > 1 else v[0] for name, v in several.items()}


class Query(Fields):
    """The parameters of the query string."""

    def read(self) -> Any:
        """Return the validated model. Raises `Problem` or pydantic's `ValidationError`."""
        if request.query_string.count(b"&") >= self.most_values:
            raise _too_many(self.most_values)
        return self.adapter.validate_python(self.values(request.args))


class Headers(Fields):
    """Request headers: the field `x_tenant` is X-Tenant. Other headers are ignored."""

    def given(self) -> dict[str, str]:
        """Return the headers of the request by field name."""
        names = {name: name.replace("_", "-") for name in self.properties}
        return {name: request.headers[header] for name, header in names.items() if header in request.headers}

    def read(self) -> Any:
        """Return the validated model. Raises pydantic's `ValidationError`."""
        return self.adapter.validate_python(self.given())


class Form(Fields):
    """The fields and files of a form; a field of the type `Upload` is a file."""

    @cached_property
    def content_types(self) -> list[str]:
        """The content types of the form."""
        files = "'binary'" in str(self.properties)
        return [MULTIPART] if files else [FORM, MULTIPART]

    def read(self) -> Any:
        """Return the validated model. Raises `Problem` or pydantic's `ValidationError`."""
        if request.mimetype not in self.content_types:
            raise Problem(415, f"Send the form as {' or '.join(self.content_types)}.")
        # Werkzeug limits the parts of the other type.
        if request.mimetype == FORM and request.get_data().count(b"&") >= self.most_values:
            raise _too_many(self.most_values)
        return self.adapter.validate_python(self.values(request.form) | self.values(request.files))


KINDS: dict[str, type[Body | Query | Headers | Form]] = {
    "headers": Headers,
    "query": Query,
    "body": Body,
    "form": Form,
}


def read_all(inputs: dict[str, Body | Query | Headers | Form]) -> dict[str, Any]:
    """Return the inputs of a view. Raises `Problem` for the first invalid one."""
    try:
        return {name: source.read() for name, source in inputs.items()}
    except ValidationError as error:
        raise _refusal(error) from None


def _parts(schema: Schema) -> Iterator[Schema]:
    """Yield a JSON schema and each nested schema."""
    yield schema
    for key, inner in schema.items():
        named = key in {"properties", "$defs"}
        for part in inner.values() if named else inner if isinstance(inner, list) else [inner]:
            if isinstance(part, dict):
                yield from _parts(part)


def _errors_of(schema: Schema, definitions: Schema, seen: frozenset[str] = frozenset()) -> int:
    """Return the number of errors that an empty object can cause for this schema."""
    if (name := schema.get("$ref", "").rpartition("/")[2]) and name not in seen:
        return _errors_of(definitions[name], definitions, seen | {name})
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        # With a discriminator only one model is tried.
        several = max if "discriminator" in schema else sum
        return several(_errors_of(variant, definitions, seen) for variant in variants)
    return 1 + len(schema.get("required", ()))


def _too_many(most: int) -> Problem:
    return Problem(
        422, MISFIT, errors=[{"pointer": "#", "detail": f"has more than {most} values, or too many objects"}]
    )


def _refusal(error: ValidationError) -> Problem:
    if error.error_count() > MOST_ERRORS:
        errors = [{"pointer": "#", "detail": f"More than {MOST_ERRORS} members do not fit"}]
        return Problem(422, MISFIT, errors=errors)
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        errors = [{"pointer": "#", "detail": found[0]["msg"]}]
        return Problem(400, "The body is not valid JSON.", errors=errors)
    # Twenty suffice to correct a request; a hostile request could have a million.
    errors = [
        {"pointer": "#/" + "/".join(map(_step, e["loc"])), "detail": _detail(e["msg"])} for e in found[:20]
    ]
    return Problem(422, MISFIT, errors=errors)


def _step(part: int | str) -> str:
    """Return one step of a JSON pointer (RFC 6901); long names from the client are truncated."""
    return str(part)[:80].replace("~", "~0").replace("/", "~1")


def _detail(message: str) -> str:
    for prefix in PREFIXES:
        message = message.removeprefix(prefix)
    return message
