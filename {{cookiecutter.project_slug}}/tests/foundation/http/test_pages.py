"""Pages contain each row once, in order, and accept only cursors of the service."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{cookiecutter.package_name}}.foundation.database import KeysetPosition, KeysetSlice
from {{cookiecutter.package_name}}.foundation.http import BIGGEST_ID, PageQuery

from ..sample.samples import SamplePage


def create(client: FlaskClient, text: str = "kept") -> str:
    """Create a sample and return its path."""
    return client.post("/samples", json={"text": text}).headers["Location"]


def encoded(text: str) -> str:
    """Return a cursor with a text."""
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize("limit", [1, 3, 10, 12, 13, 100])
def test_pages_show_every_row_once_despite_changes(client: FlaskClient, limit: int) -> None:
    """Pages show every row exactly once while others are added and removed."""
    paths = [create(client, f"old {number}") for number in range(12)]
    seen: list[str] = []

    url: str | None = f"/samples?limit={limit}"
    while url:
        page: Any = client.get(url).json
        assert 1 <= len(page["items"]) <= limit
        seen += [sample["text"] for sample in page["items"]]
        create(client, "new")
        client.delete(paths[-1])  # It is on the first page, which has been read.
        url = page["next"]

    assert seen == [f"old {number}" for number in reversed(range(12))]


@pytest.mark.parametrize("limit", [1, 3, 4, 12])
def test_pages_lead_back_to_the_first(client: FlaskClient, limit: int) -> None:
    """The previous links of the last page lead back through the same pages to the first, which has none."""
    for number in range(12):
        create(client, str(number))
    forwards: list[Any] = [client.get(f"/samples?limit={limit}").json]
    while url := forwards[-1]["next"]:
        forwards.append(client.get(url).json)

    backwards = [forwards[-1]]
    while url := backwards[-1]["previous"]:
        backwards.append(client.get(url).json)

    assert [page["items"] for page in backwards] == [page["items"] for page in reversed(forwards)]
    assert (forwards[0]["previous"], backwards[-1]["next"]) == (None, forwards[0]["next"])


@pytest.mark.parametrize(
    ("count", "limit", "more"),
    [(0, None, False), (2, 2, False), (3, 2, True), (50, None, False), (51, None, True)],
)
def test_a_page_names_the_next_one_only_where_there_is_one(
    client: FlaskClient, count: int, limit: int | None, more: bool
) -> None:
    """A page names the next page only if there is one."""
    for _ in range(count):
        create(client)

    page: Any = client.get("/samples", query_string={} if limit is None else {"limit": limit}).json

    assert len(page["items"]) == min(count, limit or 50)
    assert (page["next"] is not None) is more


class TextQuery(PageQuery):
    """A page of the samples with a text."""

    text: str = ""


def test_the_pages_beside_keep_the_other_parameters(app: Flask) -> None:
    """The paths of other pages keep the parameters that the feature adds."""
    found: KeysetSlice[Any] = KeysetSlice(
        [], KeysetPosition(b"[1]", "after"), KeysetPosition(b"[2]", "before")
    )

    with app.test_request_context("/samples"):
        page = SamplePage.of(found, TextQuery(text="a&b", limit=1))

    assert page.next == "/samples?limit=1&text=a%26b&cursor=YVsxXQ%3D%3D"
    assert page.previous == "/samples?limit=1&text=a%26b&cursor=YlsyXQ%3D%3D"


# No base64, no side, no JSON, other values than one id, and values that a database cannot compare.
CURSORS = [
    "",
    "1",
    "MQ",
    "MQ==MQ==",
    "é",
    "====",
    "//4AanVuaw==",
    "YQ==\n",
    "YQ==",
    *map(encoded, ["c[1]", "[1]"]),
]
CURSORS += [
    encoded(f"a{text}") for text in ("[]", "[1,2]", "1", "{}", "null", "[null]", '["x"]', "[1.5]", "[")
]
CURSORS += [encoded(f"a{text}") for text in ('["\\u0000"]', f"[{2**63}]", "[1e400]", "[" * 400)]


@pytest.mark.parametrize("cursor", CURSORS)
def test_an_invalid_cursor_is_refused(client: FlaskClient, cursor: str) -> None:
    """An invalid cursor is rejected with 422 and the parameter's name."""
    response = client.get("/samples", query_string={"cursor": cursor})

    assert response.status_code == 422
    assert [error["pointer"] for error in response.get_json(force=True)["errors"]] == ["#/cursor"]


@pytest.mark.parametrize(("side", "texts"), [("a", ["kept"]), ("b", [])])
def test_the_largest_id_is_a_cursor(client: FlaskClient, side: str, texts: list[str]) -> None:
    """The cursor of the largest id has every row after it, and none before it."""
    create(client)

    page: Any = client.get("/samples", query_string={"cursor": encoded(f"{side}[{BIGGEST_ID}]")}).json

    assert [sample["text"] for sample in page["items"]] == texts
