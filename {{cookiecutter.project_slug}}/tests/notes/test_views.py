"""The API of notes, as clients see it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse


def create(client: FlaskClient, text: str = "buy milk") -> str:
    """Create a note and return its path."""
    return client.post("/notes", json={"text": text}).headers["Location"]


def change(client: FlaskClient, path: str, match: str, text: str = "buy oat milk") -> TestResponse:
    return client.patch(path, json={"text": text}, headers={"If-Match": match})


def test_a_new_note_can_be_read_at_its_location(client: FlaskClient) -> None:
    """A new note can be read at its Location, with the same body and ETag."""
    created = client.post("/notes", json={"text": "buy milk"})

    assert created.status_code == 201
    read = client.get(created.headers["Location"])
    assert read.json == created.json
    assert read.headers["ETag"] == created.headers["ETag"]


def test_a_repeated_request_stores_one_note(client: FlaskClient) -> None:
    """A request that repeats its Idempotency-Key gets the first response, and stores nothing."""
    keyed = {"Idempotency-Key": "8e03978e"}

    answers = [client.post("/notes", json={"text": "buy milk"}, headers=keyed).data for _ in range(2)]

    page: Any = client.get("/notes").json
    assert answers[0] == answers[1]
    assert len(page["items"]) == 1


def test_a_note_has_an_id_its_text_a_time_in_utc_and_a_version(client: FlaskClient) -> None:
    """A note has an id, its text, a time in UTC and a version."""
    before = datetime.now(UTC) - timedelta(seconds=1)

    note: Any = client.get(create(client)).json

    assert set(note) == {"id", "text", "created_at", "version"}
    assert isinstance(note["id"], int)
    assert note["text"] == "buy milk"
    assert note["version"] == 1
    created_at = datetime.fromisoformat(note["created_at"])
    assert created_at.utcoffset() == timedelta(0)
    assert before <= created_at <= datetime.now(UTC)


@pytest.mark.parametrize(
    "text",
    ["x", " ", "x" * 10_000, "\N{MEMO}" * 10_000, "żółć\r\n\t'\"\\<b>", "\u202e\ufeff\x7f\x01", "%s {0}"],
)
def test_a_text_comes_back_as_it_was_sent(client: FlaskClient, text: str) -> None:
    """A text is returned exactly as it was sent."""
    note: Any = client.get(create(client, text)).json

    assert note["text"] == text


def test_a_missing_note_is_a_404(client: FlaskClient) -> None:
    """Reading, changing or removing a note that does not exist returns 404."""
    path = create(client)
    client.delete(path)

    answers = [client.get(path), change(client, path, "*"), client.delete(path)]

    assert [answer.status_code for answer in answers] == [404] * 3
    assert all(answer.get_json(force=True)["detail"] == "There is no such note." for answer in answers)


@pytest.mark.parametrize("match", ['"1"', '"7", "1"', 'W/"1"', "*"])
def test_a_note_that_the_client_has_already_is_not_sent_again(client: FlaskClient, match: str) -> None:
    """A note that the client already has is confirmed with 304 instead of sent again."""
    response = client.get(create(client), headers={"If-None-Match": match})

    assert (response.status_code, response.data) == (304, b"")
    assert response.headers["ETag"] == '"1"'


def test_a_note_that_has_changed_is_sent_again(client: FlaskClient) -> None:
    """A note that has changed is sent again, with its new ETag."""
    path = create(client)
    change(client, path, '"1"')

    response = client.get(path, headers={"If-None-Match": '"1"'})

    assert response.status_code == 200
    assert response.headers["ETag"] == '"2"'


@pytest.mark.parametrize("match", ['"1"', '"7", "1"', "*"])
def test_a_change_needs_the_version_that_was_read(client: FlaskClient, match: str) -> None:
    """A change with the version that was read succeeds and returns the next version."""
    path = create(client)

    changed = change(client, path, match)

    assert changed.status_code == 200
    assert changed.headers["ETag"] == '"2"'
    read = client.get(path)
    assert read.json == changed.json
    assert read.json is not None
    assert (read.json["text"], read.json["version"]) == ("buy oat milk", 2)


@pytest.mark.parametrize(("match", "status"), [(None, 428), ('"2"', 412), ('W/"1"', 412), ('"*"', 412)])
def test_a_change_without_the_version_is_refused(client: FlaskClient, match: str | None, status: int) -> None:
    """A change without the version that was read is rejected and changes nothing."""
    path = create(client)
    headers = {} if match is None else {"If-Match": match}

    refused = client.patch(path, json={"text": "buy oat milk"}, headers=headers)

    assert refused.status_code == status
    assert client.get(path).headers["ETag"] == '"1"'


def test_a_change_to_the_same_text_keeps_the_version(client: FlaskClient) -> None:
    """A change to the same text succeeds and keeps the version."""
    unchanged = change(client, create(client, "same"), '"1"', "same")

    assert (unchanged.status_code, unchanged.headers["ETag"]) == (200, '"1"')


@pytest.mark.parametrize("match", [None, '"1"', "*"])
def test_a_note_can_be_removed(client: FlaskClient, match: str | None) -> None:
    """A note can be removed, with its version or without."""
    path = create(client)
    headers = {} if match is None else {"If-Match": match}

    removed = client.delete(path, headers=headers)

    assert (removed.status_code, removed.data) == (204, b"")
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("match", ['"2"', 'W/"1"'])
def test_a_note_of_another_version_is_not_removed(client: FlaskClient, match: str) -> None:
    """A removal that names another version is rejected, and the note is kept."""
    path = create(client)

    assert client.delete(path, headers={"If-Match": match}).status_code == 412
    assert client.get(path).status_code == 200


def test_an_empty_page_is_a_page(client: FlaskClient) -> None:
    """Without notes a page is an empty list without links."""
    assert client.get("/notes").json == {"items": [], "next": None, "previous": None}


def test_the_newest_notes_come_first(client: FlaskClient) -> None:
    """A page lists the newest notes first, each identical to the note at its own path."""
    paths = [create(client, str(number)) for number in range(3)]

    page: Any = client.get("/notes").json

    assert [note["text"] for note in page["items"]] == ["2", "1", "0"]
    assert page["items"][0] == client.get(paths[2]).json
    assert page["next"] is None


def test_pages_show_every_note_once(client: FlaskClient) -> None:
    """Pages show every note exactly once."""
    for number in range(5):
        create(client, str(number))
    seen: list[str] = []

    url: str | None = "/notes?limit=2"
    while url:
        page: Any = client.get(url).json
        seen += [note["text"] for note in page["items"]]
        url = page["next"]

    assert seen == ["4", "3", "2", "1", "0"]
