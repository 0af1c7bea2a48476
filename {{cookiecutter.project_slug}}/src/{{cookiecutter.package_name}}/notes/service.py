"""What can be done with notes. Knows neither HTTP nor commits: the caller ends the transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from .models import Note


def add_note(session: Session, text: str) -> Note:
    """Keep a new note."""
    note = Note(text=text)
    session.add(note)
    session.flush()
    return note


def find_note(session: Session, note_id: int) -> Note | None:
    """Return the note, or None."""
    return session.get(Note, note_id)


def newest_notes(session: Session, *, before: int | None, limit: int) -> Sequence[Note]:
    """Return notes, newest first, from the one before the given id on.

    A page by key costs the same wherever it is, and a note added meanwhile shifts none.
    """
    statement = select(Note).order_by(Note.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(Note.id < before)
    return session.scalars(statement).all()


def change_note(session: Session, note: Note, text: str) -> None:
    """Give the note another text. Raises `StaleDataError` when somebody was faster."""
    note.text = text
    session.flush()


def remove_note(session: Session, note: Note) -> None:
    """Forget the note. Raises `StaleDataError` when somebody was faster."""
    session.delete(note)
    session.flush()
