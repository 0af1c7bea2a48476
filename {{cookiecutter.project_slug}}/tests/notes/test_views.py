"""What notes promise to a client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event
from werkzeug.test import TestResponse

from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.db import engines_of

from ..conftest import make_settings
from ..databases import Databases


def create(client: FlaskClient, text: str = "buy milk") -> str:
    """Create a note and return its path."""
    return client.post("/notes", json={"text": text}).headers["Location"]


def change(client: FlaskClient, path: str, match: str, text: str = "buy oat milk") -> TestResponse:
    return client.patch(path, json={"text": text}, headers={"If-Match": match})


def test_a_new_note_can_be_read_at_its_location(client: FlaskClient) -> None:
    created = client.post("/notes", json={"text": "buy milk"})

    assert created.status_code == 201
    read = client.get(created.headers["Location"])
    assert read.json == created.json
    assert read.headers["ETag"] == created.headers["ETag"]


def test_every_answer_has_the_headers_that_are_documented(client: FlaskClient) -> None:
    paths: Any = client.get("/openapi.json").get_json()["paths"]
    created = client.post("/notes", json={"text": "buy milk"})
    path = created.headers["Location"]
    answers = {
        ("/notes", "get"): client.get("/notes"),
        ("/notes", "post"): created,
        ("/notes/{note_id}", "get"): client.get(path),
        ("/notes/{note_id}", "patch"): change(client, path, '"1"'),
        ("/notes/{note_id}", "delete"): client.delete(path),
    }

    for (place, method), answer in answers.items():
        (success,) = [
            response for status, response in paths[place][method]["responses"].items() if status != "default"
        ]
        assert set(success.get("headers", {})) == {"ETag", "Location"} & set(answer.headers.keys())


def test_whether_a_version_has_to_be_sent_is_documented(client: FlaskClient) -> None:
    path: Any = client.get("/openapi.json").get_json()["paths"]["/notes/{note_id}"]

    needed = {
        (method, parameter["required"])
        for method, operation in path.items()
        for parameter in operation["parameters"]
        if (parameter["in"], parameter["name"]) == ("header", "If-Match")
    }

    assert needed == {("patch", True), ("delete", False)}


def test_a_note_has_an_id_its_text_a_time_in_utc_and_a_version(client: FlaskClient) -> None:
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
    note: Any = client.get(create(client, text)).json

    assert note["text"] == text


def test_a_note_that_is_not_there_is_a_404(client: FlaskClient) -> None:
    path = create(client)
    client.delete(path)

    answers = [client.get(path), change(client, path, "*"), client.delete(path)]

    assert [answer.status_code for answer in answers] == [404] * 3
    assert all(answer.get_json(force=True)["detail"] == "There is no such note." for answer in answers)


@pytest.mark.parametrize("match", ['"1"', '"7", "1"', 'W/"1"', "*"])
def test_a_note_that_the_client_has_already_is_not_sent_again(client: FlaskClient, match: str) -> None:
    response = client.get(create(client), headers={"If-None-Match": match})

    assert (response.status_code, response.data) == (304, b"")
    assert response.headers["ETag"] == '"1"'


def test_a_note_that_has_changed_is_sent_again(client: FlaskClient) -> None:
    path = create(client)
    change(client, path, '"1"')

    response = client.get(path, headers={"If-None-Match": '"1"'})

    assert response.status_code == 200
    assert response.headers["ETag"] == '"2"'


@pytest.mark.parametrize("match", ['"1"', '"7", "1"', "*"])
def test_a_change_needs_the_version_that_was_read(client: FlaskClient, match: str) -> None:
    path = create(client)

    changed = change(client, path, match)

    assert changed.status_code == 200
    assert changed.headers["ETag"] == '"2"'
    read = client.get(path)
    assert read.json == changed.json
    assert read.json is not None
    assert (read.json["text"], read.json["version"]) == ("buy oat milk", 2)


@pytest.mark.parametrize(("match", "status"), [(None, 428), ('"2"', 412), ('W/"1"', 412), ('"*"', 412)])
def test_a_change_without_it_is_refused(client: FlaskClient, match: str | None, status: int) -> None:
    path = create(client)
    headers = {} if match is None else {"If-Match": match}

    refused = client.patch(path, json={"text": "buy oat milk"}, headers=headers)

    assert refused.status_code == status
    assert client.get(path).headers["ETag"] == '"1"'


def test_a_change_to_the_same_text_is_none(client: FlaskClient) -> None:
    unchanged = change(client, create(client, "same"), '"1"', "same")

    assert (unchanged.status_code, unchanged.headers["ETag"]) == (200, '"1"')


@pytest.mark.parametrize("match", [None, '"1"', "*"])
def test_a_note_can_be_removed(client: FlaskClient, match: str | None) -> None:
    path = create(client)
    headers = {} if match is None else {"If-Match": match}

    removed = client.delete(path, headers=headers)

    assert (removed.status_code, removed.data) == (204, b"")
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("match", ['"2"', 'W/"1"'])
def test_a_note_of_another_version_is_not_removed(client: FlaskClient, match: str) -> None:
    path = create(client)

    assert client.delete(path, headers={"If-Match": match}).status_code == 412
    assert client.get(path).status_code == 200


@pytest.fixture
def concurrent_app(each_databases: Databases) -> Iterator[Flask]:
    """The service with a connection for each request, and requests that wait for each other.

    On PostgreSQL both have read before one of them writes; SQLite lets only one of them begin.
    """
    app = create_app(make_settings(each_databases.migrated()))
    (engine,) = engines_of(app)
    both_have_read = threading.Barrier(2, timeout=30)

    def wait(connection: object, cursor: object, statement: str, *others: object) -> None:
        if statement.startswith(("UPDATE notes", "DELETE FROM notes")):
            both_have_read.wait()

    if engine.dialect.name != "sqlite":
        event.listen(engine, "before_cursor_execute", wait)
    yield app
    engine.dispose()


def at_once(app: Flask, *requests: tuple[str, str, str | None]) -> list[int]:
    """Send requests from threads of their own, and return their statuses in order of size."""

    def send(request: tuple[str, str, str | None]) -> int:
        method, path, text = request
        body = None if text is None else {"text": text}
        return app.test_client().open(path, method=method, json=body, headers={"If-Match": '"1"'}).status_code

    with ThreadPoolExecutor(len(requests)) as threads:
        return sorted(threads.map(send, requests))


def test_of_two_changes_at_once_one_is_refused(concurrent_app: Flask) -> None:
    client = concurrent_app.test_client()
    path = create(client)

    assert at_once(concurrent_app, ("PATCH", path, "one"), ("PATCH", path, "two")) == [200, 412]

    note: Any = client.get(path).json
    assert note["version"] == 2
    assert note["text"] in {"one", "two"}


def test_of_a_change_and_a_removal_at_once_one_is_refused(concurrent_app: Flask) -> None:
    client = concurrent_app.test_client()
    path = create(client)

    first, second = at_once(concurrent_app, ("PATCH", path, "one"), ("DELETE", path, None))

    # Whoever comes second finds another version, or on SQLite no note any more.
    assert (first, second) in {(200, 412), (204, 412), (204, 404)}


def test_an_empty_page_is_a_page(client: FlaskClient) -> None:
    assert client.get("/notes").json == {"items": [], "next": None}


def test_the_newest_notes_come_first(client: FlaskClient) -> None:
    paths = [create(client, str(number)) for number in range(3)]

    page: Any = client.get("/notes").json

    assert [note["text"] for note in page["items"]] == ["2", "1", "0"]
    assert page["items"][0] == client.get(paths[2]).json
    assert page["next"] is None


@pytest.mark.parametrize("limit", [1, 3, 10, 12, 13, 100])
def test_pages_show_every_note_once_while_others_are_added_and_removed(
    client: FlaskClient, limit: int
) -> None:
    paths = [create(client, f"old {number}") for number in range(12)]
    seen: list[str] = []

    url: str | None = f"/notes?limit={limit}"
    while url:
        page: Any = client.get(url).json
        assert 1 <= len(page["items"]) <= limit
        seen += [note["text"] for note in page["items"]]
        create(client, "new")
        client.delete(paths[-1])  # It is on the first page, which has been read.
        url = page["next"]

    assert seen == [f"old {number}" for number in reversed(range(12))]


@pytest.mark.parametrize(
    ("count", "limit", "more"), [(2, 2, False), (3, 2, True), (50, None, False), (51, None, True)]
)
def test_a_page_names_the_next_one_only_where_there_is_one(
    client: FlaskClient, count: int, limit: int | None, more: bool
) -> None:
    for _ in range(count):
        create(client)

    page: Any = client.get("/notes", query_string={} if limit is None else {"limit": limit}).json

    assert len(page["items"]) == min(count, limit or 50)
    assert (page["next"] is not None) is more


@pytest.mark.parametrize("limit", [0, 101, -1])
def test_the_size_of_a_page_is_bounded(client: FlaskClient, limit: int) -> None:
    assert client.get(f"/notes?limit={limit}").status_code == 422


@pytest.mark.parametrize("cursor", ["", "garbage", "LTE=", "OTIyMzM3MjAzNjg1NDc3NTgwOA=="])
def test_a_cursor_that_is_none_is_refused(client: FlaskClient, cursor: str) -> None:
    assert client.get("/notes", query_string={"cursor": cursor}).status_code == 422
