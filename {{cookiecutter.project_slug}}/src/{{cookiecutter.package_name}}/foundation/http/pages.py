"""Pagination: pages of ordered rows with links to the next and previous page."""

import base64
import binascii
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from flask import request, url_for
from pydantic import AfterValidator, BaseModel, Field

from ..database.keyset import KeysetPosition, KeysetSlice
from .inputs import Input

Item = TypeVar("Item", bound=BaseModel)
SIDES: dict[str, Literal["after", "before"]] = {"a": "after", "b": "before"}


def _decodable(cursor: str) -> str:
    _decode(cursor)
    return cursor


def _decode(cursor: str) -> KeysetPosition:
    """Return the position from a cursor. Cursors are encoded, because clients must not construct them."""
    try:
        text = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        return KeysetPosition(text[1:], SIDES[text[:1].decode("ascii")])
    except (binascii.Error, KeyError, UnicodeError):
        raise ValueError("is not a cursor of this service") from None


class PageQuery(Input):
    """The page that a client requests."""

    cursor: (
        Annotated[str, Field(pattern="^[A-Za-z0-9_=-]+$", max_length=1000), AfterValidator(_decodable)] | None
    ) = None
    limit: int = Field(default=50, ge=1, le=100)

    @property
    def position(self) -> KeysetPosition | None:
        """The position of the page; None for the first."""
        return _decode(self.cursor) if self.cursor else None


class Page(BaseModel, Generic[Item]):
    """Ordered rows, and the paths of the next and previous page."""

    items: list[Item]
    next: str | None
    previous: str | None

    @classmethod
    def of(cls, rows: KeysetSlice[Any], query: PageQuery) -> Self:
        """Return a page of the current view."""
        paths = {"next": _path(rows.next, query), "previous": _path(rows.previous, query)}
        return cls.model_validate({"items": rows.rows, **paths})


def _path(position: KeysetPosition | None, query: PageQuery) -> str | None:
    if position is None:
        return None
    cursor = base64.urlsafe_b64encode(position.side[:1].encode() + position.values).decode()
    values = query.model_dump(mode="json", exclude_none=True, exclude={"cursor"}) | {"cursor": cursor}
    return url_for(str(request.endpoint), **request.view_args or {}, **values)
