"""The command that deletes idempotency keys keeps those that clients may still repeat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.foundation.database import commands
from {{cookiecutter.package_name}}.foundation.database.models import IdempotencyKey


def add_keys(session: Session, *ages: int) -> None:
    """Store keys whose names are their ages in hours."""
    for age in ages:
        made = datetime.now(UTC) - timedelta(hours=age, minutes=1)
        key = IdempotencyKey(scope="", key=str(age), fingerprint="", status=201, headers=[], body=b"")
        key.created_at = made
        session.add(key)
    session.commit()


def left(session: Session) -> list[str]:
    """Return the keys that are stored."""
    return sorted(session.scalars(select(IdempotencyKey.key)))


@pytest.mark.parametrize(("arguments", "kept"), [([], ["0", "23"]), (["--hours", "1"], ["0"])])
def test_old_keys_are_deleted_in_batches(
    app: Flask, session: Session, monkeypatch: pytest.MonkeyPatch, arguments: list[str], kept: list[str]
) -> None:
    """All keys older than a day, or than `--hours`, are deleted, and younger ones are kept."""
    monkeypatch.setattr(commands, "BATCH", 2)
    add_keys(session, 0, 23, 24, 25, 48, 49, 1000)

    with app.app_context():
        done = CliRunner().invoke(commands.delete_idempotency_keys, arguments)

    assert (done.exit_code, done.output) == (0, f"{7 - len(kept)} keys deleted\n")
    assert left(session) == kept


def test_a_batch_is_bounded(session: Session) -> None:
    """One transaction deletes no more keys than its limit."""
    add_keys(session, 25, 26, 27)

    assert commands.delete_keys(session, datetime.now(UTC), 2) == 2
    assert len(left(session)) == 1


def test_a_request_after_the_deletion_runs_again(
    app: Flask, client: FlaskClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request with a deleted key runs again."""
    headers = {"Idempotency-Key": "k"}
    first = client.post("/samples", json={"text": "pen"}, headers=headers)
    assert client.post("/samples", json={"text": "pen"}, headers=headers).data == first.data

    assert commands.delete_keys(session, datetime.now(UTC), 10) == 1
    session.commit()

    assert client.post("/samples", json={"text": "pen"}, headers=headers).data != first.data
