"""The foundation's table: stored responses by Idempotency-Key, used by `http/idempotency.py`."""

from sqlalchemy import JSON, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base
from .columns import Identified, Timestamped


class IdempotencyKey(Identified, Timestamped, Base):
    """The response to the first request with a key, committed together with its writes."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("scope", "key"), Index(None, "created_at"))

    scope: Mapped[str] = mapped_column(String(64))  # a digest of the user
    key: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))  # a digest of the request
    status: Mapped[int]
    headers: Mapped[list[tuple[str, str]]] = mapped_column(JSON)
    body: Mapped[bytes] = mapped_column(LargeBinary)
