"""Slices of a table in any order, on every database."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, select
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, Session, mapped_column

from {{cookiecutter.package_name}}.foundation.database import Keyset, KeysetPosition, UTCDateTime
from {{cookiecutter.package_name}}.foundation.database.keyset import InvalidPosition

from ..databases import Databases


class OwnBase(DeclarativeBase):
    """Tables unknown to the migrations and the service."""

    metadata = MetaData()


class Kind(enum.Enum):
    """A sort of item."""

    LARGE = "large"
    SMALL = "small"


class Item(OwnBase):
    """A row with sort columns of many types."""

    __tablename__ = "foundation_items"

    shelf: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    made_at: Mapped[datetime] = mapped_column(UTCDateTime)
    weight: Mapped[float]
    is_new: Mapped[bool]
    kind: Mapped[Kind]
    key: Mapped[uuid.UUID]
    note: Mapped[str | None]


START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = [
    {
        "shelf": f"s{number % 2}",
        "number": number,
        "name": ("ä", "b", "B", "'")[number % 4],
        "made_at": START + timedelta(microseconds=number // 3),
        "weight": float(number % 3) / 3,
        "is_new": number % 2 == 0,
        "kind": Kind.LARGE if number % 3 else Kind.SMALL,
        "key": uuid.UUID(int=number * 7 % 11),
    }
    for number in range(11)
]
SORTED_BY = [Item.name, Item.made_at, Item.weight, Item.is_new, Item.kind, Item.key, Item.shelf, Item.number]


@pytest.fixture
def items(each_databases: Databases) -> Iterator[Session]:
    """A session on a database with items."""
    engine = create_engine(each_databases.empty())
    OwnBase.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Item(**row) for row in ROWS)
        session.flush()
        session.expunge_all()
        yield session
    engine.dispose()


@pytest.mark.parametrize("descending", [False, True])
def test_every_order_shows_each_row_once(items: Session, descending: bool) -> None:
    """Whatever the order's columns, the slices contain each row once, forwards and backwards."""
    for columns in [*([column] for column in SORTED_BY), [Item.is_new, Item.name], [Item.number, Item.shelf]]:
        order = Keyset(*columns, descending=descending)
        whole = order.read(items, select(Item), position=None, limit=100)
        assert (whole.next, whole.previous, len(whole.rows)) == (None, None, len(ROWS))
        assert walk(items, order, "next", None) == list(whole.rows)
        last = order.read(items, select(Item), position=None, limit=10).next
        assert last is not None
        end = order.read(items, select(Item), position=last, limit=10)
        assert walk(items, order, "previous", end.previous) == list(whole.rows)[9::-1][: len(ROWS) - 1]


def walk(session: Session, order: Keyset, way: str, position: KeysetPosition | None) -> list[Any]:
    """Return the rows of all slices in one direction."""
    found: list[Any] = []
    while True:
        page = order.read(session, select(Item), position=position, limit=4)
        found += page.rows if way == "next" else page.rows[::-1]
        if (position := getattr(page, way)) is None:
            return found


def test_the_key_breaks_ties() -> None:
    """The primary key is appended to the order unless it is already part of it."""
    assert [column.key for column in Keyset(Item.name).columns] == ["name", "shelf", "number"]
    assert [column.key for column in Keyset(Item.number, Item.name).columns] == ["number", "name", "shelf"]


def test_an_order_by_a_nullable_column_is_refused() -> None:
    """A nullable column is rejected when the order is created."""
    with pytest.raises(ValueError, match="note may be NULL"):
        Keyset(Item.note)


BAD = [b"", b"[]", b"[1]", b'["2026-01-01T00:00:00", "s1", 1]', b'["2026-01-01T00:00:00Z", "s\\u0000", 1]']


@pytest.mark.parametrize("values", BAD)
def test_a_position_of_another_order_is_refused(items: Session, values: bytes) -> None:
    """Values that do not match the types of the order's columns are rejected before any statement runs."""
    with pytest.raises(InvalidPosition):
        Keyset(Item.made_at).read(items, select(Item), position=KeysetPosition(values, "after"), limit=1)


def test_a_condition_stays(items: Session) -> None:
    """Slices keep the conditions of their statement."""
    statement = select(Item).where(Item.is_new)
    order = Keyset(Item.number, descending=True)

    first = order.read(items, statement, position=None, limit=2)
    second = order.read(items, statement, position=first.next, limit=2)

    assert [item.number for item in [*first.rows, *second.rows]] == [10, 8, 6, 4]


def test_values_of_every_type_survive(items: Session) -> None:
    """A position holds the exact value of a column, including fractions."""
    order: InstrumentedAttribute[Any] = Item.weight
    page = Keyset(order).read(items, select(Item), position=None, limit=5)

    assert page.next is not None
    assert Decimal(page.next.values.decode()[1:].partition(",")[0]) == Decimal(str(page.rows[-1].weight))
