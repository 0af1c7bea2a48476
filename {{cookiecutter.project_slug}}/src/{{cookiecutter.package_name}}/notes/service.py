"""Operations on notes. They handle neither HTTP nor commits: the caller commits the transaction."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..foundation.database import Keyset, KeysetPosition, KeysetSlice
from .models import Note

NEWEST_FIRST = Keyset(Note.id, descending=True)


def add_note(session: Session, text: str) -> Note:
    """Store a new note."""
    note = Note(text=text)
    session.add(note)
    session.flush()
    return note


def find_note(session: Session, note_id: int) -> Note | None:
    """Return the note, or None."""
    return session.get(Note, note_id)


def newest_notes(
    session: Session, *, limit: int, position: KeysetPosition | None = None
) -> KeysetSlice[Note]:
    """Return the slice of notes at a position, newest first."""
    statement = select(Note)
    return NEWEST_FIRST.read(session, statement, position=position, limit=limit)


def change_note(session: Session, note: Note, text: str) -> None:
    """Replace the note's text. Raises `StaleDataError` if another transaction has changed it."""
    note.text = text
    session.flush()


def remove_note(session: Session, note: Note) -> None:
    """Delete the note. Raises `StaleDataError` if another transaction has changed it."""
    session.delete(note)
    session.flush()
