"""Invalid input is rejected with the same status on every database, and stored on none."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from {{cookiecutter.package_name}}.foundation.database.session import engines_of

from ..databases import Databases
from ..fixtures import make_settings
from ..sample.app import create_app

KEPT = "the only sample"


@pytest.fixture(scope="module")
def services() -> Iterator[dict[int, Flask]]:
    """The services of this module, one on each kind of database."""
    built: dict[int, Flask] = {}
    yield built
    for app in built.values():
        for engine in engines_of(app):
            engine.dispose()


@pytest.fixture
def client(each_databases: Databases, services: dict[int, Flask]) -> FlaskClient:
    """A client of a service with one sample, whose id is 1."""
    if id(each_databases) not in services:
        app = services[id(each_databases)] = create_app(make_settings(each_databases.sampled()))
        app.test_client().post("/samples", json={"text": KEPT})
    return services[id(each_databases)].test_client()


@pytest.fixture(autouse=True)
def nothing_is_stored(client: FlaskClient) -> Iterator[None]:
    """Check after each test that the one sample is still the only one, and unchanged."""
    yield
    answer = client.get("/samples").get_json()
    assert [(sample["id"], sample["text"], sample["version"]) for sample in answer["items"]] == [(1, KEPT, 1)]


def assert_refused(response: TestResponse, status: int) -> None:
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    assert response.get_json(force=True)["status"] == status


def text(value: str) -> bytes:
    """Return a body whose text is a piece of JSON."""
    return b'{"text": %s}' % value.encode()


def document(**members: object) -> bytes:
    return json.dumps(members).encode()


VALID = document(text="fits")

BODIES: dict[str, tuple[int, bytes]] = {
    # The text is of another type.
    "true": (422, text("true")),
    "false": (422, text("false")),
    "zero": (422, text("0")),
    "negative": (422, text("-1")),
    "float": (422, text("1.5")),
    "null": (422, text("null")),
    "list": (422, text("[]")),
    "list of text": (422, text('["fits"]')),
    "object": (422, text("{}")),
    "object of text": (422, text('{"text": "fits"}')),
    "2^31": (422, text(str(2**31))),
    "2^63": (422, text(str(2**63))),
    "10^400": (422, text("1" + "0" * 400)),
    "1e400": (422, text("1e400")),
    "-1e400": (422, text("-1e400")),
    "NaN": (422, text("NaN")),
    "Infinity": (422, text("Infinity")),
    "-Infinity": (422, text("-Infinity")),
    # The text cannot be stored everywhere, or is too long.
    "empty text": (422, document(text="")),
    "NUL": (422, document(text="\0")),
    "NUL inside": (422, document(text="a\0b")),
    "high surrogate": (400, text(r'"\ud800"')),
    "low surrogate": (400, text(r'"\udfff"')),
    "surrogates swapped": (400, text(r'"\udc00\ud800"')),
    "one character too long": (422, document(text="x" * 10_001)),
    "emoji too long": (422, document(text="\N{MEMO}" * 10_001)),
    "megabyte": (422, document(text="x" * 1_000_000)),
    "more than a megabyte": (413, document(text="x" * 1_100_000)),
    # Other members.
    "no member": (422, b"{}"),
    "misspelt": (422, document(Text="fits")),
    "empty name": (422, document(**{"": "fits"})),
    "id": (422, document(text="fits", id=7)),
    "version": (422, document(text="fits", version=7)),
    "created_at": (422, document(text="fits", created_at="2024-01-01T00:00:00Z")),
    "unknown": (422, document(text="fits", colour="red")),
    "__class__": (422, document(text="fits", __class__="FoundationSample")),
    "NUL in a name": (422, document(text="fits", **{"\0": 1})),
    "lone surrogate in a name": (400, b'{"text": "fits", "\\ud800": 1}'),
    "long name": (422, document(text="fits", **{"x" * 100_000: 1})),
    "50000 members": (422, document(text="fits", **{f"m{number}": number for number in range(50_000)})),
    "duplicate, the last one wrong": (422, b'{"text": "fits", "text": 1}'),
    # No object.
    "top-level list": (422, b"[]"),
    "top-level list of samples": (422, b'[{"text": "fits"}]'),
    "top-level text": (422, b'"fits"'),
    "top-level number": (422, b"1"),
    "top-level null": (422, b"null"),
    "top-level true": (422, b"true"),
    # No JSON.
    "no body": (400, b""),
    "blank": (400, b" \n"),
    "cut short": (400, VALID[:-1]),
    "cut inside of the text": (400, VALID[:-4]),
    "more behind it": (400, VALID + b"x"),
    "two documents": (400, VALID * 2),
    "single quotes": (400, b"{'text': 'fits'}"),
    "comma too many": (400, b'{"text": "fits",}'),
    "comment": (400, b'{"text": "fits"} // comment'),
    "bare word": (400, text("fits")),
    "leading zero": (400, text("01")),
    "hexadecimal": (400, text("0x10")),
    "control character": (400, b'{"text": "a\nb"}'),
    "raw NUL": (400, b'{"text": "a\0b"}'),
    "unknown escape": (400, text(r'"\x41"')),
    "short escape": (400, text(r'"\u12"')),
    "invalid UTF-8": (400, b'{"text": "\xff"}'),
    "overlong UTF-8": (400, b'{"text": "\xc0\x80"}'),
    "surrogate in UTF-8": (400, b'{"text": "\xed\xa0\x80"}'),
    "cut UTF-8": (400, b'{"text": "\xf0\x9f\x93"}'),
    "Latin-1": (400, '{"text": "é"}'.encode("latin-1")),
    "UTF-16": (400, '{"text": "fits"}'.encode("utf-16")),
    "UTF-16 without a mark": (400, '{"text": "fits"}'.encode("utf-16-le")),
    "UTF-32": (400, '{"text": "fits"}'.encode("utf-32")),
    "byte order mark": (400, b"\xef\xbb\xbf" + VALID),
    "1000 lists deep": (400, b"[" * 1000 + b"]" * 1000),
    "100000 lists deep": (400, b"[" * 100_000 + b"]" * 100_000),
    "100000 objects deep": (400, b'{"text":' * 100_000 + b"1" + b"}" * 100_000),
    "100000 lists open": (400, text("[" * 100_000)),
    "a number of 500000 digits": (400, text("9" * 500_000)),
    "form": (400, b"text=fits"),
    "XML": (400, b"<text>fits</text>"),
    "pickle": (400, b"\x80\x04N."),
}


@pytest.mark.parametrize(("status", "body"), BODIES.values(), ids=BODIES)
def test_a_body_that_does_not_fit_is_refused(client: FlaskClient, status: int, body: bytes) -> None:
    """A body that is not a valid sample is rejected by a creation and by a change, with the same status."""
    assert_refused(client.post("/samples", data=body, content_type="application/json"), status)
    assert_refused(
        client.patch("/samples/1", data=body, content_type="application/json", headers={"If-Match": "*"}),
        status,
    )


CONTENT_TYPES = [
    None,
    "",
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/jsonp",
    "json",
    "*/*",
    "application/json+xml",
]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_a_body_of_another_type_is_refused(client: FlaskClient, content_type: str | None) -> None:
    """A body of another content type than JSON is rejected with 415."""
    assert_refused(client.post("/samples", data=VALID, content_type=content_type), 415)


IDS = [
    "0",
    "-1",
    "00",
    "01",
    "2",
    "+1",
    "1.0",
    "1e0",
    "0x1",
    "true",
    "null",
    str(2**31),
    str(2**63 - 1),
    str(2**63),
    str(2**64 + 1),
    "1" + "0" * 400,
    "\u0661",
    "\uff11",
    "\u00b9",
    "%00",
    "1%00",
    "%001",
    "1%20",
    "1%0a",
    "%FF",
    "%ED%A0%80",
    "..",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "1/",
    "1/1",
    "1;1",
    "1'--",
    "1 OR 1=1",
    "{1}",
    "*",
]


@pytest.mark.parametrize("sample_id", IDS)
def test_an_id_that_no_sample_has_is_not_found(client: FlaskClient, sample_id: str) -> None:
    """A path whose id no sample has, or could have, returns 404 for every method."""
    path = f"/samples/{sample_id}"

    assert_refused(client.get(path), 404)
    assert_refused(client.patch(path, json={"text": "fits"}, headers={"If-Match": "*"}), 404)
    assert_refused(client.delete(path), 404)


QUERIES = {
    "limit of none": "limit=0",
    "negative limit": "limit=-1",
    "limit too big": "limit=101",
    "limit of 2^31": f"limit={2**31}",
    "limit of 2^63": f"limit={2**63}",
    "limit of 10^400": "limit=1" + "0" * 400,
    "limit of 5000 digits": "limit=" + "9" * 5000,
    "limit of half": "limit=1.5",
    "limit of NaN": "limit=NaN",
    "limit of Infinity": "limit=Infinity",
    "limit in words": "limit=ten",
    "empty limit": "limit=",
    "limit of NUL": "limit=%00",
    "limit of invalid UTF-8": "limit=%FF",
    "limit of true": "limit=true",
    "limit twice": "limit=1&limit=1",
    "limit as a list": "limit[]=1",
    "unknown parameter": "colour=red",
    "misspelt parameter": "Limit=1",
    "empty parameter": "=1",
    "NUL parameter": "%00=1",
    "offset": "offset=1",
    "empty cursor": "cursor=",
    "garbage": "cursor=!!!",
    "cursor of zero": "cursor=0",
    "cursor of a leading zero": "cursor=01",
    "negative cursor": "cursor=-1",
    "cursor of a sign": "cursor=%2B1",
    "cursor of a fraction": "cursor=1.0",
    "cursor of 2^63": f"cursor={2**63}",
    "cursor of 10^400": "cursor=1" + "0" * 400,
    "cursor of NUL": "cursor=%00",
    "cursor and NUL": "cursor=1%00",
    "cursor and a blank": "cursor=%201",
    "cursor and a line": "cursor=1%0A",
    "cursor of other digits": "cursor=%D9%A1",
    "cursor of JSON": "cursor=%7B%22id%22%3A%201%7D",
    "cursor in other letters": "cursor=%C3%A9",
    "cursor of invalid UTF-8": "cursor=%FF%FE",
    "cursor of SQL": "cursor=1%20OR%201%3D1",
    "long cursor": "cursor=" + "1" * 4000,
    "cursor twice": "cursor=1&cursor=1",
    "cursor as a list": "cursor[]=1",
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_that_does_not_fit_is_refused(client: FlaskClient, query: str) -> None:
    """A query with an invalid, unknown or repeated parameter is rejected with 422."""
    assert_refused(client.get(f"/samples?{query}"), 422)


MATCHES = {
    "none": (428, None),
    "empty": (428, ""),
    "comma": (428, ","),
    "another version": (412, '"2"'),
    "weak": (412, 'W/"1"'),
    "weak star": (412, 'W/"*"'),
    "quoted star": (412, '"*"'),
    "empty tag": (412, '""'),
    "zero before": (412, '"01"'),
    "blank": (412, '" 1"'),
    "other digits": (412, '"\u00b9"'),
    "10^400": (412, '"1' + "0" * 400 + '"'),
    "many": (412, ", ".join(f'"{number}"' for number in range(2, 1000))),
}


@pytest.mark.parametrize(("status", "match"), MATCHES.values(), ids=MATCHES)
def test_a_change_that_names_another_version_is_refused(
    client: FlaskClient, status: int, match: str | None
) -> None:
    """A change is rejected with 428 without a version, and with 412 if it names another version."""
    headers = {} if match is None else {"If-Match": match}

    assert_refused(client.patch("/samples/1", json={"text": "fits"}, headers=headers), status)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/samples/1"),
        ("POST", "/samples/1"),
        ("PUT", "/samples"),
        ("PATCH", "/samples"),
        ("DELETE", "/samples"),
        ("TRACE", "/samples"),
        ("BREW", "/samples"),
        ("POST", "/livez"),
    ],
)
def test_a_method_that_is_not_allowed_is_refused(client: FlaskClient, method: str, path: str) -> None:
    """A method that is not allowed is rejected with 405, even with X-HTTP-Method-Override."""
    headers = {"X-HTTP-Method-Override": "POST", "If-Match": "*"}

    assert_refused(client.open(path, method=method, json={"text": "fits"}, headers=headers), 405)
