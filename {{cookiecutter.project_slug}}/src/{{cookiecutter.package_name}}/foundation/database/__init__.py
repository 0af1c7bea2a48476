"""Engines, sessions, transactions, and the guards around them."""

from .base import Base, UTCDateTime
from .columns import Identified, Timestamped, Versioned
from .keyset import Keyset, KeysetPosition, KeysetSlice
from .session import db, transaction

__all__ = [
    "Base",
    "Identified",
    "Keyset",
    "KeysetPosition",
    "KeysetSlice",
    "Timestamped",
    "UTCDateTime",
    "Versioned",
    "db",
    "transaction",
]
