"""What notes promise to a client."""

from __future__ import annotations

from flask.testing import FlaskClient


def test_a_new_note_can_be_read_at_its_location(client: FlaskClient) -> None:
    created = client.post("/notes", json={"text": "buy milk"})

    assert created.status_code == 201
    read = client.get(created.headers["Location"])
    assert read.json == created.json
    assert read.headers["ETag"] == created.headers["ETag"]
