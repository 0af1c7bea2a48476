"""The table of notes."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import BigInteger, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from ..db import Base, UTCDateTime


class Note(Base):
    """A piece of text somebody wants to keep."""

    __tablename__ = "notes"

    # SQLite numbers rows by itself only in a column of exactly this type.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=lambda: datetime.now(UTC))
    version: Mapped[int] = mapped_column()

    # Every UPDATE names the version it read, so that of two writers one is told.
    __mapper_args__ = {"version_id_col": version}
