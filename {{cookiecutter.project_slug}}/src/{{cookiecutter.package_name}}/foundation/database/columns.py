"""Common columns as mixins: `class Order(Identified, Timestamped, Versioned, Base)`."""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, Integer
from sqlalchemy.orm import Mapped, mapped_column

from .base import UTCDateTime


class Identified:
    """An id assigned by the database; the first column of its table."""

    # SQLite assigns ids only in a column of exactly this type.
    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, sort_order=-1
    )


class Timestamped:
    """The creation time of the row."""

    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=lambda: datetime.now(UTC), sort_order=1)


class Versioned:
    """A version that each UPDATE increments. The second of two concurrent writers gets `StaleDataError`."""

    version: Mapped[int] = mapped_column(sort_order=1)
    __mapper_args__ = {"version_id_col": version}
