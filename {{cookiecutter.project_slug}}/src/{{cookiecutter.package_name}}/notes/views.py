"""The HTTP API of notes: validate input, call the service, commit, respond."""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, url_for
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from ..foundation.database import db, transaction
from ..foundation.http import (
    Input,
    Page,
    PageQuery,
    Problem,
    StorableText,
    etag,
    operation,
    refuse_other_version,
)
from . import service
from .models import Note

bp = Blueprint("notes", __name__, url_prefix="/notes")


class NoteIn(Input):
    """The fields of a note that clients write."""

    text: StorableText = Field(min_length=1, max_length=10_000)


class NoteOut(BaseModel):
    """A stored note."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    text: str
    created_at: datetime
    version: int


class NotePage(Page[NoteOut]):
    """Notes, newest first, and the paths of the next and previous page."""


@bp.get("")
@operation()
def list_notes(query: PageQuery) -> NotePage:
    """List notes, newest first."""
    notes = service.newest_notes(db.session(), limit=query.limit, position=query.position)
    return NotePage.of(notes, query)


@bp.post("")
@operation(status=201, headers=["Location", "ETag"], idempotent=True)
def create_note(body: NoteIn) -> tuple[NoteOut, dict[str, str]]:
    """Store a new note."""
    with transaction() as session:
        note = service.add_note(session, body.text)
    location = url_for(".read_note", note_id=note.id)
    return NoteOut.model_validate(note), {"Location": location, "ETag": etag(note)}


@bp.get("/<row_id:note_id>")
@operation(headers=["ETag"])
def read_note(note_id: int) -> tuple[NoteOut, dict[str, str]]:
    """Read a note."""
    note = _find(db.session(), note_id)
    return NoteOut.model_validate(note), {"ETag": etag(note)}


@bp.patch("/<row_id:note_id>")
@operation(headers=["ETag"], if_match="needed")
def change_note(note_id: int, body: NoteIn) -> tuple[NoteOut, dict[str, str]]:
    """Change a note. Send its ETag as If-Match, so that no other change is lost."""
    with transaction() as session:
        note = _find(session, note_id)
        refuse_other_version(note)
        service.change_note(session, note, body.text)
    return NoteOut.model_validate(note), {"ETag": etag(note)}


@bp.delete("/<row_id:note_id>")
@operation(status=204, if_match="allowed")
def remove_note(note_id: int) -> None:
    """Delete a note. With If-Match, only the version that you have read is deleted."""
    with transaction() as session:
        note = _find(session, note_id)
        refuse_other_version(note)
        service.remove_note(session, note)


def _find(session: Session, note_id: int) -> Note:
    if (note := service.find_note(session, note_id)) is None:
        raise Problem(404, "There is no such note.")
    return note
