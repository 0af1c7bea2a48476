"""ETags, conditional requests, and concurrent writers, of which one is rejected."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event
from sqlalchemy.orm.exc import StaleDataError

from {{cookiecutter.package_name}}.foundation.database.session import engines_of

from ..databases import Databases
from ..fixtures import make_settings
from ..sample.app import create_app


def create(client: FlaskClient) -> str:
    """Create a sample and return its path."""
    return client.post("/samples", json={"text": "kept"}).headers["Location"]


@pytest.mark.parametrize("match", ['"1"', '"7", "1"', 'W/"1"', "*"])
def test_a_row_that_the_client_has_is_not_sent_again(client: FlaskClient, match: str) -> None:
    """A GET whose If-None-Match has the current version returns 304 without a body."""
    response = client.get(create(client), headers={"If-None-Match": match})

    assert (response.status_code, response.data) == (304, b"")
    assert response.headers["ETag"] == '"1"'


def test_a_row_that_has_changed_is_sent_again(client: FlaskClient) -> None:
    """A GET whose If-None-Match has an older version returns the row and its new ETag."""
    path = create(client)
    client.patch(path, json={"text": "changed"}, headers={"If-Match": '"1"'})

    response = client.get(path, headers={"If-None-Match": '"1"'})

    assert (response.status_code, response.headers["ETag"]) == (200, '"2"')


def test_only_a_get_is_answered_not_modified(client: FlaskClient) -> None:
    """A change whose If-None-Match names the resulting version returns 200."""
    headers = {"If-Match": '"1"', "If-None-Match": '"2"'}

    assert client.patch(create(client), json={"text": "changed"}, headers=headers).status_code == 200


@pytest.mark.parametrize(("match", "status"), [(None, 204), ('"1"', 204), ("*", 204), ('"2"', 412)])
def test_a_removal_may_name_a_version(client: FlaskClient, match: str | None, status: int) -> None:
    """A removal without If-Match succeeds, and one with another version is rejected."""
    path = create(client)

    assert client.delete(path, headers={"If-Match": match} if match else {}).status_code == status
    assert client.get(path).status_code == (404 if status == 204 else 200)


@pytest.mark.parametrize(("headers", "status"), [({}, 409), ({"If-Match": "*"}, 412)])
def test_a_lost_race_is_a_conflict(headers: dict[str, str], status: int, own_app: Flask) -> None:
    """A StaleDataError becomes 412 for a request with If-Match, and 409 for another one."""

    @own_app.post("/race")
    def race() -> str:
        raise StaleDataError("UPDATE statement expected to update 1 row(s); 0 were matched.")

    response = own_app.test_client().post("/race", headers=headers)

    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert response.get_json(force=True)["detail"] == "It has changed since you read it."


@pytest.fixture
def own_app(own_databases: Databases) -> Flask:
    """A service to which the test adds a view."""
    return create_app(make_settings(own_databases.sampled()))


@pytest.fixture
def concurrent_app(each_databases: Databases) -> Iterator[Flask]:
    """The service with a connection for each request, and writes that wait for each other.

    On PostgreSQL both have read before one of them writes; SQLite lets only one of them begin.
    """
    app = create_app(make_settings(each_databases.sampled()))
    (engine,) = engines_of(app)
    both_have_read = threading.Barrier(2, timeout=30)

    def wait(connection: object, cursor: object, statement: str, *others: object) -> None:
        if statement.startswith(("UPDATE foundation_samples", "DELETE FROM foundation_samples")):
            both_have_read.wait()

    if engine.dialect.name != "sqlite":
        event.listen(engine, "before_cursor_execute", wait)
    yield app
    engine.dispose()


def send_together(app: Flask, *requests: tuple[str, str, str | None]) -> list[int]:
    """Send requests concurrently, and return their statuses in ascending order."""

    def send(request: tuple[str, str, str | None]) -> int:
        method, path, text = request
        body = None if text is None else {"text": text}
        return app.test_client().open(path, method=method, json=body, headers={"If-Match": '"1"'}).status_code

    with ThreadPoolExecutor(len(requests)) as threads:
        return sorted(threads.map(send, requests))


def test_of_two_concurrent_changes_one_is_refused(concurrent_app: Flask) -> None:
    """Of two concurrent changes one succeeds, and the other is rejected with 412."""
    client = concurrent_app.test_client()
    path = create(client)

    assert send_together(concurrent_app, ("PATCH", path, "one"), ("PATCH", path, "two")) == [200, 412]

    sample: Any = client.get(path).json
    assert sample["version"] == 2
    assert sample["text"] in {"one", "two"}


def test_of_a_concurrent_change_and_removal_one_is_refused(concurrent_app: Flask) -> None:
    """Of a concurrent change and removal one succeeds, and the other is rejected."""
    client = concurrent_app.test_client()
    path = create(client)

    first, second = send_together(concurrent_app, ("PATCH", path, "one"), ("DELETE", path, None))

    # The second request finds another version, or on SQLite no sample any more.
    assert (first, second) in {(200, 412), (204, 412), (204, 404)}


@pytest.mark.parametrize("match", ['W/"1"', 'W/"7", W/"1"'])
def test_a_weak_etag_is_named(client: FlaskClient, match: str) -> None:
    """A change with an ETag weakened by a proxy gets a 412 that blames the proxy, not another writer."""
    path = create(client)

    response = client.patch(path, json={"text": "changed"}, headers={"If-Match": match})

    assert response.status_code == 412
    assert "a proxy has changed it" in response.get_json(force=True)["detail"]
    assert client.get(path).headers["ETag"] == '"1"'
