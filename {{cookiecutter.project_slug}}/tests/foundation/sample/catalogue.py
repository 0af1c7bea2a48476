"""A feature with every kind of operation: types of input and output, authentication, other statuses."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal
from urllib.parse import quote

from flask import Blueprint, Request, Response
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator
from pydantic.alias_generators import to_camel

from {{cookiecutter.package_name}}.foundation.http import (
    Authentication,
    Input,
    Problem,
    Upload,
    operation,
)

bp = Blueprint("catalogue", __name__, url_prefix="/catalogue")


class Colour(enum.Enum):
    """A colour of a thing."""

    RED = "red"
    BLUE = "blue"


class Tags(RootModel[list[str]]):
    """Words about a thing."""


class Part(Input):
    """A part of a thing."""

    name: str
    parts: list[Part] = []


class Circle(Input):
    """A round shape."""

    kind: Literal["circle"]
    radius: float


class Square(Input):
    """A square shape."""

    kind: Literal["square"]
    side: float


Shape = Annotated[Circle | Square, Field(discriminator="kind")]


class Thing(Input):
    """A thing with a member of every kind."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")

    made_on: date
    colour: Colour = Colour.RED
    size: tuple[int, int] = (1, 1)
    tags: Tags = Tags([])
    shape: Shape | None = None
    parts: dict[str, Part] = {}
    note: str | None = Field(None, examples=["a small one"])

    @field_validator("note")
    @classmethod
    def has_no_digit(cls, note: str | None) -> str | None:
        """Refuse digits."""
        if note and any(letter.isdigit() for letter in note):
            raise ValueError("must not contain a digit")
        return note


class Filter(Input):
    """A choice of things."""

    tags: list[str] = []
    colour: Colour | None = None
    sizes: set[int] | None = None
    limit: int = 10


class Client(BaseModel):
    """Headers of a client."""

    x_tenant: str
    accept_language: str | None = None


class Upload_(Input):  # noqa: N801  # The document shows the name.
    """A file with a title."""

    title: str
    files: list[Upload]


class Login(Input):
    """A form without files."""

    name: str
    scopes: list[str] = []


class OutOfStock(BaseModel):
    """The body of a refusal."""

    left: int


@dataclass(frozen=True)
class User:
    """The user of a request."""

    name: str


USERS = {"ada": User("ada")}  # by their tokens


def read_token(request: Request) -> User:
    """Return the user of the token."""
    token = request.authorization.token if request.authorization else None
    if token not in USERS:
        challenge = {"WWW-Authenticate": 'Bearer realm="catalogue"'}
        raise Problem(401, "Send a token.", headers=challenge)
    return USERS[token]


bearer = Authentication(read_token, name="bearer", scheme={"type": "http", "scheme": "bearer"})


@bp.post("/things/<uuid:key>")
@operation(status=202, responses={409: OutOfStock, 404: None}, tags=["things"])
def put_thing(key: uuid.UUID, body: Thing) -> Thing:
    """Keep a thing.

    It is returned as it is kept.
    """
    return body


@bp.get("/things")
@operation(deprecated=True)
def list_things(query: Filter) -> list[Thing]:
    """List things."""
    colour = query.colour or Colour.BLUE
    thing = Thing.model_validate({"madeOn": date(2026, 1, 1), "colour": colour, "tags": query.tags})
    return [thing][: query.limit]


@bp.put("/shapes/<int:number>/<name>")
@operation()
def put_shapes(number: int, name: str, body: list[Shape]) -> dict[str, Shape | None]:
    """Store shapes."""
    return {name: body[number] if number < len(body) else None}


@bp.get("/colours/<path:name>")
@operation()
def read_colour(name: str) -> Colour | None:
    """Return a colour."""
    return Colour(name) if name in {"red", "blue"} else None


@bp.get("/tenant")
@operation()
def read_tenant(headers: Client) -> tuple[str, int]:
    """Return the tenant and the length of its name."""
    return headers.x_tenant, len(headers.x_tenant)


@bp.post("/files")
@operation(status=201, headers=["Location"])
def add_files(form: Upload_) -> tuple[dict[str, int], dict[str, str]]:
    """Store files."""
    sizes = {file.filename or "": len(file.read()) for file in form.files}
    return sizes, {"Location": f"/{quote(form.title)}"}


@bp.post("/login")
@operation(responses={401: None})
def log_in(form: Login) -> list[str]:
    """Return the scopes."""
    return form.scopes


@bp.get("/export")
@operation(content="text/csv")
def export() -> Response:
    """Stream lines."""

    def lines() -> Iterator[str]:
        yield from ("name\n", "one\n")

    return Response(lines(), mimetype="text/csv")


@bp.delete("/things")
@operation(status=204, auth=bearer)
def delete_things() -> None:
    """Delete all things."""


@bp.post("/me")
@operation(auth=bearer)
def read_me(user: User, body: Thing) -> str:
    """Return the name of the user."""
    return user.name
