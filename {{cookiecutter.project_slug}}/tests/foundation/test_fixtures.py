"""The public fixtures."""

from __future__ import annotations

from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from .sample import samples


def test_statements_has_those_of_requests(
    client: FlaskClient, session: Session, statements: list[str]
) -> None:
    """The list has each statement of a request and a session in order, without SAVEPOINTs."""
    samples.add_sample(session, "first")
    session.commit()

    assert client.get("/samples").status_code == 200

    assert [statement.partition(" ")[0] for statement in statements] == ["INSERT", "SELECT"]


def test_statements_can_be_cleared(client: FlaskClient, session: Session, statements: list[str]) -> None:
    """After `clear()` the list contains only later statements."""
    samples.add_sample(session, "first")
    session.commit()
    statements.clear()

    client.get("/samples")

    assert len(statements) == 1
