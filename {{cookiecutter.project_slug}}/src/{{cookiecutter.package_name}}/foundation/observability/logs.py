"""Logs of the application and the server: one JSON object per line, or text for people.

Lines are ASCII with JSON escapes, so client input cannot break a line or forge another.

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

# A field with one of these names becomes `extra_NAME`: it must not replace a member of a line, or an
# attribute of a record, for which `logging` raises a KeyError.
MEMBERS = {"time", "level", "logger", "message", "request_id", "exception"}
ACCESS_MEMBERS = {"method", "path", "route", "status", "duration_ms", "remote", "user_agent"}
ATTRIBUTES = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

# Several processes write to one pipe, which writes up to this many bytes atomically; longer lines would
# interleave.
LONGEST_LINE = 4096
SHORTEST_VALUE = 20  # characters; a value that would be cut below this is dropped
KEPT = {"time", "level", "logger", "request_id", "truncated"}

# Characters that would break a line or control the terminal.
CONTROL = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


def bind(**fields: Any) -> None:
    """Add fields to every later log line of this request, its access line included: `bind(user_id=7)`."""
    taken = MEMBERS | ACCESS_MEMBERS | ATTRIBUTES
    bound.set({**bound.get(), **_renamed(fields, taken)})


def _renamed(fields: Mapping[str, Any], taken: set[str]) -> dict[str, Any]:
    return {f"extra_{name}" if name in taken else str(name): value for name, value in fields.items()}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the bound fields and the call's `extra` fields."""
    extra = {name: value for name, value in vars(record).items() if name not in ATTRIBUTES}
    if extra.get("request_id") == request_id.get():  # The record of an access line.
        extra.pop("request_id", None)
    return {**bound.get(), **_renamed(extra, MEMBERS)}


def members(fields: Mapping[str, Any]) -> str:
    """Return fields as additional members of a JSON object, each preceded by a comma."""
    return "".join(f", {json.dumps(name)}: {_encoded(value)}" for name, value in fields.items())


def pairs(fields: Mapping[str, Any]) -> str:
    """Return fields as `name=value`, each preceded by a space."""
    return "".join(f" {name}={_encoded(value, ensure_ascii=False)}" for name, value in fields.items())


def _encoded(value: object, **options: bool) -> str:
    """Return a value as JSON, or else its text as a JSON string. Never raises."""
    with suppress(Exception):
        return json.dumps(value, default=str, allow_nan=False, **options)  # type: ignore[arg-type]
    with suppress(Exception):
        return json.dumps(repr(value), **options)  # type: ignore[arg-type]
    return f'"<{type(value).__name__}>"'


class JSONFormatter(logging.Formatter):
    """Format a record as one JSON object."""

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
    """Return a JSON line. If it is too long, its longest values are truncated, and a member reports that."""
    if len(line) < LONGEST_LINE:  # The line is ASCII, and a line break follows.
        return line
    values = json.loads(line) | {"truncated": True}
    while (excess := len(json.dumps(values)) + 1 - LONGEST_LINE) > 0:
        encoded = {name: len(json.dumps(value)) for name, value in values.items() if name not in KEPT}
        name = max(encoded, key=encoded.__getitem__)
        text = values[name] if isinstance(values[name], str) else json.dumps(values[name])
        # A character may take twelve bytes. Keep at least half, so that other long values are truncated too.
        kept = max(len(text) * (encoded[name] - excess - 80) // encoded[name], len(text) // 2)
        if kept < SHORTEST_VALUE:
            del values[name]
        else:
            values[name] = _cut_traceback(text, kept) if name == "exception" else f"{text[:kept]}…"
    return json.dumps(values)


def _cut_traceback(text: str, length: int) -> str:
    """Cut the middle of a traceback; keep its innermost frame and the exception."""
    innermost = text[max(text.rfind('\n  File "'), 0) :]
    if len(innermost) >= length:
        return f"{innermost[:length]}…"
    begin = (length - len(innermost)) // 3
    return f"{text[:begin]}\n  […]\n{text[begin - length :]}"


class TextFormatter(logging.Formatter):
    """Format a record as text, and leave tracebacks unchanged."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # The name is Python's.
        return (super().formatMessage(record) + pairs(_fields(record))).translate(CONTROL)


def formatter(style: str) -> logging.Formatter:
    """Return the formatter for the style `json` or `text`."""
    return JSONFormatter() if style == "json" else TextFormatter()


def configure(level: str, style: str) -> None:
    """Write all log records of this process to stderr in one style."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(style))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("alembic.runtime.plugins").setLevel("WARNING")  # Logs seven INFO lines at startup.


def utc(seconds: float) -> str:
    """Format a Unix timestamp as RFC 3339, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# `sys.stderr` copies a line between buffers, at three times the cost. In a process started without it,
# descriptor 2 may be any other file, so nothing may be written there.
STDERR = 2 if sys.stderr else -1


def write(line: str) -> None:
    """Write a line to stderr in one piece; a failed write fails no request."""
    try:  # noqa: SIM105  # Each request comes here, and `suppress` costs more than the rest.
        os.write(STDERR, line.encode(errors="backslashreplace"))
    except OSError:
        pass
