"""Notes over HTTP: input in, service, commit, answer out."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from typing import Annotated

from flask import Blueprint, Response, request, url_for
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy.orm.exc import StaleDataError

from ..api import BIGGEST_ID, Input, operation
from ..db import db, transaction
from ..errors import Problem
from . import service
from .models import Note

bp = Blueprint("notes", __name__, url_prefix="/notes")


def _storable(text: str) -> str:
    # PostgreSQL cannot store it, SQLite can: the answer must not depend on the database.
    if "\0" in text:
        raise ValueError("must not contain the character U+0000")
    return text


def _position(cursor: str) -> str:
    """Check a cursor, which is the id of the last note seen, written so that nobody counts on it."""
    try:
        digits = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        digits = b""
    if not re.fullmatch(rb"[1-9][0-9]{0,18}", digits) or int(digits) > BIGGEST_ID:
        raise ValueError("is not a cursor of this service")
    return digits.decode()


class NoteIn(Input):
    """What a client writes."""

    text: Annotated[str, Field(min_length=1, max_length=10_000), AfterValidator(_storable)]


class NoteOut(BaseModel):
    """A note as it is kept."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    text: str
    created_at: datetime
    version: int


class PageQuery(Input):
    """Which part of the notes."""

    cursor: Annotated[str, Field(max_length=40), AfterValidator(_position)] | None = None
    limit: int = Field(default=50, ge=1, le=100)


class NotePage(BaseModel):
    """Some notes, newest first, and where the next ones are."""

    items: list[NoteOut]
    next: str | None


@bp.get("")
@operation()
def list_notes(query: PageQuery) -> NotePage:
    """List notes, newest first."""
    before = int(query.cursor) if query.cursor else None
    # One more than asked for tells whether there is a next page, without counting the table.
    found = service.newest_notes(db.session(), before=before, limit=query.limit + 1)
    page = found[: query.limit]
    more = len(found) > len(page)
    return NotePage(
        items=[NoteOut.model_validate(note) for note in page],
        next=url_for(".list_notes", cursor=_cursor(page[-1].id), limit=query.limit) if more else None,
    )


@bp.post("")
@operation(status=201, headers=["Location", "ETag"])
def create_note(body: NoteIn) -> tuple[NoteOut, dict[str, str]]:
    """Keep a new note."""
    with transaction() as session:
        note = service.add_note(session, body.text)
    return NoteOut.model_validate(note), {
        "Location": url_for(".read_note", note_id=note.id),
        "ETag": _etag(note),
    }


@bp.get("/<row_id:note_id>")
@operation(headers=["ETag"])
def read_note(note_id: int) -> tuple[NoteOut, dict[str, str]]:
    """Read a note."""
    note = _found(service.find_note(db.session(), note_id))
    return NoteOut.model_validate(note), {"ETag": _etag(note)}


@bp.patch("/<row_id:note_id>")
@operation(headers=["ETag"], if_match="needed")
def change_note(note_id: int, body: NoteIn) -> tuple[NoteOut, dict[str, str]]:
    """Change a note. Send the ETag you read as If-Match, so that nobody's change is lost."""
    try:
        with transaction() as session:
            note = _found(service.find_note(session, note_id))
            _refuse_other_version(note)
            service.change_note(session, note, body.text)
    except StaleDataError:
        raise Problem(412, "The note has changed since you read it.") from None
    return NoteOut.model_validate(note), {"ETag": _etag(note)}


@bp.delete("/<row_id:note_id>")
@operation(status=204, if_match="allowed")
def remove_note(note_id: int) -> None:
    """Forget a note. With If-Match, only if it is still the one you read."""
    try:
        with transaction() as session:
            note = _found(service.find_note(session, note_id))
            if request.if_match:
                _refuse_other_version(note)
            service.remove_note(session, note)
    except StaleDataError:
        raise Problem(412, "The note has changed since you read it.") from None


@bp.after_request
def answer_not_modified(response: Response) -> Response:
    """Answer 304 to a GET whose If-None-Match names what it would get."""
    if response.status_code == 200:
        response.make_conditional(request)
    return response


def _found(note: Note | None) -> Note:
    if note is None:
        raise Problem(404, "There is no such note.")
    return note


def _refuse_other_version(note: Note) -> None:
    if not request.if_match.contains(str(note.version)):
        raise Problem(412, "The note has changed since you read it.")


def _etag(note: Note) -> str:
    return f'"{note.version}"'


def _cursor(note_id: int) -> str:
    return base64.urlsafe_b64encode(str(note_id).encode()).decode()
