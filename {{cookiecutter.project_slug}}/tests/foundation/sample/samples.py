"""Samples: a feature in one module, with every kind of operation that the proofs need."""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, url_for
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import MetaData, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from {{cookiecutter.package_name}}.foundation.database import (
    Base,
    Identified,
    Keyset,
    KeysetPosition,
    KeysetSlice,
    Timestamped,
    Versioned,
    db,
    transaction,
)
from {{cookiecutter.package_name}}.foundation.http import (
    Input,
    Page,
    PageQuery,
    Problem,
    StorableText,
    etag,
    operation,
    refuse_other_version,
)

bp = Blueprint("samples", __name__, url_prefix="/samples")


class SampleBase(Base):
    """A base with separate metadata, so that the project's migrations need not create the table."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class FoundationSample(Identified, Timestamped, Versioned, SampleBase):
    """A stored text with a version."""

    __tablename__ = "foundation_samples"

    text: Mapped[str] = mapped_column(Text)


NEWEST_FIRST = Keyset(FoundationSample.id, descending=True)


# -- service -----------------------------------------------------------------------------------


def add_sample(session: Session, text: str) -> FoundationSample:
    """Store a sample."""
    sample = FoundationSample(text=text)
    session.add(sample)
    session.flush()
    return sample


def newest_samples(
    session: Session, *, limit: int, position: KeysetPosition | None = None
) -> KeysetSlice[FoundationSample]:
    """Return the slice of samples at a position, by descending id."""
    return NEWEST_FIRST.read(session, select(FoundationSample), position=position, limit=limit)


def change_sample(session: Session, sample: FoundationSample, text: str) -> None:
    """Replace the sample's text. Raises `StaleDataError` if another transaction has changed it."""
    sample.text = text
    session.flush()


# -- views -------------------------------------------------------------------------------------


class SampleIn(Input):
    """The text of a sample."""

    text: StorableText = Field(min_length=1, max_length=10_000)


class SampleOut(BaseModel):
    """A stored sample."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    text: str
    created_at: datetime
    version: int


class SamplePage(Page[SampleOut]):
    """Samples, newest first, and the paths of the next and previous page."""


@bp.get("")
@operation()
def list_samples(query: PageQuery) -> SamplePage:
    """List samples, newest first."""
    samples = newest_samples(db.session(), limit=query.limit, position=query.position)
    return SamplePage.of(samples, query)


@bp.post("")
@operation(status=201, headers=["Location", "ETag"], idempotent=True)
def create_sample(body: SampleIn) -> tuple[SampleOut, dict[str, str]]:
    """Store a sample."""
    with transaction() as session:
        sample = add_sample(session, body.text)
    location = url_for(".read_sample", sample_id=sample.id)
    return SampleOut.model_validate(sample), {"Location": location, "ETag": etag(sample)}


@bp.get("/<row_id:sample_id>")
@operation(headers=["ETag"])
def read_sample(sample_id: int) -> tuple[SampleOut, dict[str, str]]:
    """Return a sample."""
    sample = _find(db.session(), sample_id)
    return SampleOut.model_validate(sample), {"ETag": etag(sample)}


@bp.patch("/<row_id:sample_id>")
@operation(headers=["ETag"], if_match="needed")
def update_sample(sample_id: int, body: SampleIn) -> tuple[SampleOut, dict[str, str]]:
    """Replace the text of a sample whose ETag is sent as If-Match."""
    with transaction() as session:
        sample = _find(session, sample_id)
        refuse_other_version(sample)
        change_sample(session, sample, body.text)
    return SampleOut.model_validate(sample), {"ETag": etag(sample)}


@bp.delete("/<row_id:sample_id>")
@operation(status=204, if_match="allowed")
def delete_sample(sample_id: int) -> None:
    """Delete a sample."""
    with transaction() as session:
        sample = _find(session, sample_id)
        refuse_other_version(sample)
        session.delete(sample)
        session.flush()


def _find(session: Session, sample_id: int) -> FoundationSample:
    if (sample := session.get(FoundationSample, sample_id)) is None:
        raise Problem(404, "There is no such sample.")
    return sample
