"""Operations on notes, before the caller commits them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from {{cookiecutter.package_name}}.notes import service
from {{cookiecutter.package_name}}.notes.models import Note


@pytest.fixture
def note(session: Session) -> Note:
    """A committed note that has been read."""
    note = service.add_note(session, "buy milk")
    session.commit()
    session.refresh(note)
    return note


def texts(session: Session) -> list[str]:
    session.expire_all()
    return [note.text for note in service.newest_notes(session, limit=100).rows]


def test_a_new_note_has_an_id_a_version_and_a_time(session: Session) -> None:
    """A new note has an id, the version 1 and the current time."""
    before = datetime.now(UTC)

    note = service.add_note(session, "buy milk")

    assert note.id >= 1
    assert note.version == 1
    assert before <= note.created_at <= datetime.now(UTC)


def test_a_note_can_be_found(session: Session, note: Note) -> None:
    """A note can be found by its id."""
    session.expunge_all()

    found = service.find_note(session, note.id)

    assert found is not None
    assert (found.id, found.text, found.version) == (note.id, "buy milk", 1)
    assert found.created_at == note.created_at


def test_a_missing_note_is_none(session: Session, note: Note) -> None:
    """A missing note is returned as None."""
    assert service.find_note(session, note.id + 1) is None


def test_the_newest_notes_come_first(session: Session) -> None:
    """The newest notes come first, up to a limit, and a position leads to older ones."""
    for number in range(5):
        service.add_note(session, str(number))

    newest = service.newest_notes(session, limit=3)
    older = service.newest_notes(session, limit=3, position=newest.next)

    assert [found.text for found in newest.rows] == ["4", "3", "2"]
    assert [found.text for found in older.rows] == ["1", "0"]
    assert older.next is None


def test_a_change_increments_the_version(session: Session, note: Note) -> None:
    """A change increments the version."""
    service.change_note(session, note, "buy oat milk")

    assert (note.text, note.version) == ("buy oat milk", 2)


def test_a_change_to_the_same_text_keeps_the_version(session: Session, note: Note) -> None:
    """A change to the same text keeps the version."""
    service.change_note(session, note, note.text)

    assert note.version == 1


def test_a_removed_note_is_gone(session: Session, note: Note) -> None:
    """A removed note cannot be found."""
    service.remove_note(session, note)

    assert service.find_note(session, note.id) is None


def change(session: Session, note: Note) -> None:
    service.change_note(session, note, "buy oat milk")


@pytest.mark.parametrize("write", [change, service.remove_note])
def test_a_write_to_a_stale_note_is_refused(
    session: Session, note: Note, write: Callable[[Session, Note], None]
) -> None:
    """Changing or removing a note that has changed since it was read raises StaleDataError."""
    statement = update(Note).values(text="buy bread", version=Note.version + 1)
    session.execute(statement, execution_options={"synchronize_session": False})

    with pytest.raises(StaleDataError):
        write(session, note)


WRITES: list[Callable[[Session, Note], object]] = [
    lambda session, note: service.add_note(session, "buy bread"),
    lambda session, note: service.change_note(session, note, "buy bread"),
    lambda session, note: service.remove_note(session, note),
]


@pytest.mark.parametrize("write", WRITES, ids=["add", "change", "remove"])
def test_a_write_is_sent_and_left_to_the_caller_to_commit(
    session: Session, note: Note, write: Callable[[Session, Note], object]
) -> None:
    """A write is sent to the database, but the caller commits it."""
    commits: list[Session] = []
    event.listen(session, "before_commit", commits.append)

    write(session, note)

    assert texts(session) != ["buy milk"]
    assert commits == []
    session.rollback()
    assert texts(session) == ["buy milk"]


def test_every_function_is_given_its_session() -> None:
    """Every function of the service takes a session as its first parameter."""
    functions = dict(inspect.getmembers(service, inspect.isfunction))
    own = [function for function in functions.values() if function.__module__ == service.__name__]

    assert own
    assert all(next(iter(inspect.signature(function).parameters)) == "session" for function in own)
