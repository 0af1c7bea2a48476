"""Logs of the application and the server: one JSON object per line, or text for people.

A line is written in ASCII with JSON's escapes: no text of a client can end it or begin another.

State: the request's id and its bound fields, in its context.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")
bound: ContextVar[Mapping[str, Any]] = ContextVar("bound", default=MappingProxyType({}))

# A field with one of these names becomes `extra_NAME`: it must not replace a member of the line, of the
# access line, or an attribute of a record, which `logging` would answer with a KeyError.
MEMBERS = {"time", "level", "logger", "message", "request_id", "exception"}
ACCESS_MEMBERS = {"method", "path", "route", "status", "duration_ms", "remote", "user_agent"}
ATTRIBUTES = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

# Several processes write to one pipe, which takes this many bytes in one piece; longer lines would mix.
LONGEST_LINE = 4096
SHORTEST_VALUE = 20  # characters; a value of which less would be left is left out
KEPT = {"time", "level", "logger", "request_id", "truncated"}

# Characters that would end a line or control the terminal that shows it.
CONTROL = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


def bind(**fields: Any) -> None:
    """Add fields to every later log line of this request, its access line included: `bind(user_id=7)`."""
    taken = MEMBERS | ACCESS_MEMBERS | ATTRIBUTES
    bound.set({**bound.get(), **_renamed(fields, taken)})


def _renamed(fields: Mapping[str, Any], taken: set[str]) -> dict[str, Any]:
    return {f"extra_{name}" if name in taken else str(name): value for name, value in fields.items()}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the bound fields, and those that the call passed as `extra`."""
    extra = {name: value for name, value in vars(record).items() if name not in ATTRIBUTES}
    if extra.get("request_id") == request_id.get():  # The access line's own record.
        extra.pop("request_id", None)
    return {**bound.get(), **_renamed(extra, MEMBERS)}


def members(fields: Mapping[str, Any]) -> str:
    """Return fields as further members of a JSON object, each after a comma."""
    return "".join(f", {json.dumps(name)}: {_encoded(value)}" for name, value in fields.items())


def pairs(fields: Mapping[str, Any]) -> str:
    """Return fields as `name=value` for people, each after a space."""
    return "".join(f" {name}={_encoded(value, ensure_ascii=False)}" for name, value in fields.items())


def _encoded(value: object, **options: bool) -> str:
    """Return a value as JSON, or its text as a string. Never raises."""
    with suppress(Exception):
        return json.dumps(value, default=str, allow_nan=False, **options)  # type: ignore[arg-type]
    with suppress(Exception):
        return json.dumps(repr(value), **options)  # type: ignore[arg-type]
    return f'"<{type(value).__name__}>"'


class JSONFormatter(logging.Formatter):
    """Make one JSON object of a record."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if identity := request_id.get():
            line["request_id"] = identity
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return fitted(json.dumps(line)[:-1] + members(_fields(record)) + "}")


def fitted(line: str) -> str:
    """Return a JSON line, with its longest values cut and a member that says so if it is too long."""
    if len(line) < LONGEST_LINE:  # It is ASCII, and a line break follows.
        return line
    values = json.loads(line) | {"truncated": True}
    while (excess := len(json.dumps(values)) + 1 - LONGEST_LINE) > 0:
        encoded = {name: len(json.dumps(value)) for name, value in values.items() if name not in KEPT}
        name = max(encoded, key=encoded.__getitem__)
        text = values[name] if isinstance(values[name], str) else json.dumps(values[name])
        # A character may take twelve bytes. Half of it stays, so that the next longest is cut as well.
        kept = max(len(text) * (encoded[name] - excess - 80) // encoded[name], len(text) // 2)
        if kept < SHORTEST_VALUE:
            del values[name]
        else:
            values[name] = _cut_traceback(text, kept) if name == "exception" else f"{text[:kept]}…"
    return json.dumps(values)


def _cut_traceback(text: str, length: int) -> str:
    """Cut the middle of a traceback, and keep its innermost frame with the exception."""
    innermost = text[max(text.rfind('\n  File "'), 0) :]
    if len(innermost) >= length:
        return f"{innermost[:length]}…"
    begin = (length - len(innermost)) // 3
    return f"{text[:begin]}\n  […]\n{text[begin - length :]}"


class TextFormatter(logging.Formatter):
    """Make a line for people, and leave tracebacks as they are."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # The name is Python's.
        return (super().formatMessage(record) + pairs(_fields(record))).translate(CONTROL)


def formatter(style: str) -> logging.Formatter:
    """Return the formatter of a style, `json` or `text`."""
    return JSONFormatter() if style == "json" else TextFormatter()


def configure(level: str, style: str) -> None:
    """Send every log record of this process to stderr in one style."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(style))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("alembic.runtime.plugins").setLevel("WARNING")  # It logs seven INFO lines at startup.


def utc(seconds: float) -> str:
    """Return a moment since the epoch as RFC 3339 writes it, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# `sys.stderr` copies a line from buffer to buffer, at three times the cost. In a process that was started
# without it, the number may belong to any other file: no line may go there.
STDERR = 2 if sys.stderr else -1


def write(line: str) -> None:
    """Write a line to stderr at once; a log that cannot be written fails no request."""
    try:  # noqa: SIM105  # Each request comes here, and `suppress` costs more than the rest.
        os.write(STDERR, line.encode(errors="backslashreplace"))
    except OSError:
        pass
