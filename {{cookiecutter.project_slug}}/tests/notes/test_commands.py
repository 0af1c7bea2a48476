"""Commands for notes."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.notes import service


def test_seed_adds_notes(app: Flask, session: Session) -> None:
    """The command adds and commits the requested number of notes."""
    result = app.test_cli_runner().invoke(args=["seed", "2"])

    assert (result.exit_code, result.output) == (0, "2 notes added\n")
    notes = service.newest_notes(session, limit=10)
    assert [note.text for note in notes.rows] == ["Note 2", "Note 1"]


@pytest.mark.parametrize("count", ["0", "few", ""])
def test_a_wrong_count_adds_nothing(app: Flask, session: Session, count: str) -> None:
    """A count that is not positive is a usage error, and adds nothing."""
    result = app.test_cli_runner().invoke(args=["seed", count])

    assert result.exit_code == 2
    assert "Invalid value for 'COUNT'" in result.output
    assert service.newest_notes(session, limit=10).rows == []
