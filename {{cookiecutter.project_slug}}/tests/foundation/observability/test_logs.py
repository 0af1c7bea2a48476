"""Fields of a log line, from the call and bound by the request, with any kind of value."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.observability import bind
from {{cookiecutter.package_name}}.foundation.observability.logs import formatter

from ..databases import Databases
from ..fixtures import make_settings
from ..sample.app import create_app

log = logging.getLogger("an.owner")


class Raising:
    """An object that cannot be converted to text."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


def endless(depth: int) -> list[Any]:
    """Return a list nested to this depth."""
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


def circle() -> dict[str, Any]:
    """Return a dictionary that contains itself."""
    found: dict[str, Any] = {}
    found["self"] = found
    return found


VALUES: dict[str, tuple[object, object]] = {
    "number": (7, 7),
    "nothing": (None, None),
    "JSON": (["a", {"b": 1.5}], ["a", {"b": 1.5}]),
    "datetime": (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02 03:04:05+00:00"),
    "UUID": (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "Decimal": (Decimal("1.10"), "1.10"),
    "NaN": (float("nan"), "nan"),
    "infinity": ([float("inf")], "[inf]"),
    "keys": ({(1, 2): 3}, "{(1, 2): 3}"),
    "circle": (circle(), "{'self': {...}}"),
    "depth": (endless(100_000), "<list>"),
    "no text": (Raising(), "<Raising>"),
    "digits": (10**5000, "<int>"),
    "another line": ('"}\n{"level": "error', '"}\n{"level": "error'),
    "surrogate": ("\ud800", "\ud800"),
}
each_value = pytest.mark.parametrize(("value", "logged"), VALUES.values(), ids=VALUES)


def line(style: str, **extra: Any) -> str:
    """Return the line of a record with these fields."""
    record = log.makeRecord("an.owner", logging.INFO, "file", 1, "a message", (), None, extra=extra)
    return formatter(style).format(record)


@pytest.fixture
def app(own_databases: Databases) -> Iterator[Flask]:
    """A service with a view that binds fields."""
    app = create_app(make_settings(own_databases.sampled(), app_env="production", log_level="info"))

    @app.get("/bound")
    def bound() -> str:
        bind(user_id=7, status="paid", name="Ann", time=Raising())
        bind(user_id=8)
        return "bound"

    yield app
    for engine in engines_of(app):
        engine.dispose()


@each_value
def test_an_extra_field_is_in_the_line(value: object, logged: object) -> None:
    """A field passed as `extra` is in the JSON line, as text if JSON lacks its type."""
    found = json.loads(line("json", order_id=value, after=1))

    assert (found["order_id"], found["after"]) == (logged, 1)


@each_value
def test_an_extra_field_leaves_a_text_line_one_line(value: object, logged: object) -> None:
    """A field of a text line follows the message as name=value, and cannot break the line."""
    text = line("text", order_id=value, after="\x85\x1b\u2028")

    assert "an.owner: a message order_id=" in text
    assert text.endswith(' after="\\x85\\u001b\\u2028"')
    assert len(text.splitlines()) == 1


def test_a_field_cannot_replace_a_member_of_the_line() -> None:
    """A field whose name is already used in the line is written under another name."""
    own = dict.fromkeys(("time", "level", "logger", "request_id", "exception"), "forged")

    found = json.loads(line("json", **own))

    assert (found["level"], found["logger"], found["message"]) == ("info", "an.owner", "a message")
    assert [found[f"extra_{name}"] for name in own] == ["forged"] * 5
    assert "exception" not in found


def test_a_bound_field_is_in_each_later_line() -> None:
    """A bound field is in each later line of its context, and a field of a call overrides it."""

    def within() -> list[dict[str, Any]]:
        bind(user_id=7, order_id=1)
        return [json.loads(line("json")), json.loads(line("json", order_id=2))]

    first, second = copy_context().run(within)

    assert (first["user_id"], first["order_id"]) == (7, 1)
    assert (second["user_id"], second["order_id"]) == (7, 2)
    assert "user_id" not in json.loads(line("json"))


def test_the_access_line_has_the_bound_fields(app: Flask, capfd: pytest.CaptureFixture[str]) -> None:
    """The access line includes the bound fields, and the next request has none of them."""
    client = app.test_client()

    client.get("/bound", buffered=True)
    client.get("/samples", buffered=True)

    bound, other = map(json.loads, capfd.readouterr().err.splitlines())
    assert (bound["status"], bound["user_id"]) == (200, 8)
    assert (bound["extra_status"], bound["extra_name"], bound["extra_time"]) == ("paid", "Ann", "<Raising>")
    assert other.keys() == bound.keys() - {"user_id", "extra_status", "extra_name", "extra_time"}


def test_the_access_record_has_the_bound_fields(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """The record for a handler of the logger `access` includes them, and its JSON has each member once."""
    caplog.set_level(logging.INFO, "access")
    access = logging.getLogger("access")
    caplog.handler.setFormatter(formatter("json"))
    access.addHandler(caplog.handler)
    try:
        FlaskClient(app).get("/bound", buffered=True)
    finally:
        access.removeHandler(caplog.handler)

    found = json.loads(caplog.text)
    assert (found["status"], found["user_id"], found["extra_name"]) == (200, 8, "Ann")
    assert "extra_request_id" not in found


def test_the_access_line_for_people_has_the_bound_fields(
    own_databases: Databases, capfd: pytest.CaptureFixture[str]
) -> None:
    """The access line in text format ends with the bound fields, with surrogates escaped."""
    app = create_app(make_settings(own_databases.sampled(), log_level="info", log_format="text"))

    @app.get("/bound")
    def bound() -> str:
        bind(user_id="\ud800\n")
        return "bound"

    app.test_client().get("/bound", buffered=True)

    assert capfd.readouterr().err.endswith(' user_id="\\ud800\\n"\n')
    for engine in engines_of(app):
        engine.dispose()


def fails(depth: int) -> None:
    """Raise from a deep stack."""
    if depth:
        fails(depth - 1)
    raise ValueError("the innermost " + "m" * 300)


LONG: dict[str, tuple[str, dict[str, Any]]] = {
    "message": ("x" * 100_000, {}),
    "escapes": ('\N{ROCKET}\n"' * 30_000, {}),
    "fields": ("short", {"order": "y" * 5000, "list": list(range(5000))}),
    "many fields": ("short", {f"field_{number}": "z" * 40 for number in range(500)}),
    "several": ("\x01" * 9000, {"path": "\x01" * 9000, "user_agent": "\xff" * 9000}),
    "nearly": ("n" * 4000, {"order_id": 7}),
}


@pytest.mark.parametrize("name", LONG)
def test_no_line_is_longer_than_a_pipe_takes(name: str) -> None:
    """A JSON line has at most 4,096 bytes, including its line break, and is marked if truncated."""
    message, extra = LONG[name]
    record = log.makeRecord("owner", logging.INFO, __file__, 1, message, (), None, extra=extra)

    line = formatter("json").format(record)

    assert len(line.encode()) < 4096
    found = json.loads(line)
    assert found["truncated"] is True
    assert found["message"].startswith(message[:5])
    assert found.keys() >= {"time", "level", "path", "user_agent"} or name != "several"
    assert found["logger"] == "owner"


@pytest.mark.parametrize("length", range(4000, 4100, 9))
def test_only_what_is_too_long_is_cut(length: int) -> None:
    """A line within the limit is unchanged."""
    record = log.makeRecord("owner", logging.INFO, __file__, 1, "x" * (length - 91), (), None)

    found = json.loads(formatter("json").format(record))

    assert ("truncated" in found) is (len(found["message"]) < length - 91)


def test_a_traceback_loses_its_middle() -> None:
    """A long traceback keeps its beginning, its innermost frame and the exception."""
    try:
        fails(400)
    except ValueError:
        record = log.makeRecord("owner", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    long = logging.Formatter().formatException(record.exc_info)  # type: ignore[arg-type]

    line = formatter("json").format(record)

    assert len(line) < 4096 < len(long) + 4096
    exception = json.loads(line)["exception"]
    assert exception.startswith("Traceback (most recent call last):")
    assert exception.endswith("ValueError: the innermost " + "m" * 300)


def test_the_exception_of_a_long_message_is_named() -> None:
    """An exception with a message longer than a line keeps its frame, type and beginning."""
    try:
        raise LookupError("first" + "k" * 50_000)
    except LookupError:
        record = log.makeRecord("owner", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())

    exception = json.loads(formatter("json").format(record))["exception"]

    assert "test_logs.py" in exception
    assert "LookupError: firstkkk" in exception


def test_text_for_people_is_not_cut() -> None:
    """A line in text format is not truncated."""
    record = log.makeRecord("owner", logging.INFO, __file__, 1, "x" * 10_000, (), None)

    assert "x" * 10_000 in formatter("text").format(record)
