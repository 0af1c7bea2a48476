"""Keyset pagination: slices of an ordered table, with the positions of the next and previous slice.

The cost of a slice does not depend on its position, and added rows do not shift the next slice. sqlakeyset
trusts the types that clients write into its bookmarks: docs/decisions.md of the template.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError
from sqlalchemy import Select, inspect, literal, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from .base import StorableText, UTCDateTime

Row = TypeVar("Row")
BOUNDED: dict[type, Any] = {
    int: Annotated[int, Field(ge=-(2**63), lt=2**63)],
    float: Annotated[float, Field(allow_inf_nan=False)],
    str: StorableText,
}


class InvalidPosition(ValueError):
    """A position that does not match the order."""


class KeysetPosition(NamedTuple):
    """A row next to the wanted slice: its order values as JSON, and the side on which the slice is."""

    values: bytes
    side: Literal["after", "before"]


@dataclass(frozen=True)
class KeysetSlice(Generic[Row]):
    """Ordered rows, and the positions of the next and previous slice, if any."""

    rows: Sequence[Row]
    next: KeysetPosition | None
    previous: KeysetPosition | None


class Keyset:
    """An order of a model's rows: `Keyset(Note.created_at, descending=True)`.

    The primary key is appended to make the order unique. Raises `ValueError` for a nullable column, because
    databases sort NULL differently.
    """

    def __init__(self, *columns: InstrumentedAttribute[Any], descending: bool = False) -> None:
        mapper = inspect(columns[0].class_)
        keys = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
        self.columns = [*columns, *(key for key in keys if key.key not in {column.key for column in columns})]
        self.descending = descending
        if optional := [column.key for column in self.columns if column.expression.nullable]:
            raise ValueError(f"{', '.join(optional)} may be NULL, which has no defined place in an order")
        kinds: Any = tuple[tuple(map(_type, self.columns))]  # type: ignore[misc]  # Known only here.
        self.adapter: TypeAdapter[Any] = TypeAdapter(kinds)

    def read(
        self, session: Session, statement: Select[Row], *, position: KeysetPosition | None, limit: int
    ) -> KeysetSlice[Row]:
        """Return the slice next to a position, or the first slice. Raises `InvalidPosition`."""
        backwards = position is not None and position.side == "before"
        if position:
            statement = statement.where(self._beside(position))
        keys = [column.desc() if self.descending != backwards else column.asc() for column in self.columns]
        # One extra row shows whether there is another slice, without counting the table.
        found: Sequence[Row] = list(session.scalars(statement.order_by(*keys).limit(limit + 1)))
        rows = found[:limit][::-1] if backwards else found[:limit]
        is_more = len(found) > limit
        following = rows and (backwards or is_more)
        preceding = rows and (is_more if backwards else position is not None)
        return KeysetSlice(
            rows,
            next=self._position(rows[-1], "after") if following else None,
            previous=self._position(rows[0], "before") if preceding else None,
        )

    def _beside(self, position: KeysetPosition) -> Any:
        try:
            values = self.adapter.validate_json(position.values)
        except ValidationError:
            raise InvalidPosition(position.values) from None
        given = tuple_(*(literal(value, c.type) for value, c in zip(values, self.columns, strict=True)))
        row = tuple_(*self.columns)
        return row < given if self.descending == (position.side == "after") else row > given

    def _position(self, row: Any, side: Literal["after", "before"]) -> KeysetPosition:
        values = tuple(getattr(row, column.key) for column in self.columns)
        return KeysetPosition(self.adapter.dump_json(values), side)


def _type(column: InstrumentedAttribute[Any]) -> Any:
    """Return the Python type of a column whose values every database can compare."""
    if isinstance(column.type, UTCDateTime):
        return AwareDatetime
    kind = column.type.python_type
    return BOUNDED.get(kind, kind)
