"""The table of notes."""

from __future__ import annotations

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from ..foundation.database import Base, Identified, Timestamped, Versioned


class Note(Identified, Timestamped, Versioned, Base):
    """A text stored by a client."""

    __tablename__ = "notes"

    text: Mapped[str] = mapped_column(Text)
