"""Logs, one JSON object for each line, or text for people; the application's and the server's alike.

A line is written in ASCII with JSON's escapes: nothing that a client sends can end it or begin another.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
import typing as t
from contextvars import ContextVar
from json.encoder import encode_basestring_ascii as quoted

request_id: ContextVar[str] = ContextVar("request_id", default="")

# What would end a line, or speak to the terminal that shows it.
_CONTROL = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


class JSONFormatter(logging.Formatter):
    """Make one JSON object of a record."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if known := request_id.get():
            line["request_id"] = known
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """Make a line for people, and leave tracebacks as they are."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # The name is Python's.
        return super().formatMessage(record).translate(_CONTROL)


def formatter(style: str) -> logging.Formatter:
    """Return the formatter of a style, `json` or `text`."""
    return JSONFormatter() if style == "json" else TextFormatter()


def configure(level: str, style: str) -> None:
    """Let everything that is logged in this process come out on stderr in one style."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(style))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("alembic.runtime.plugins").setLevel("WARNING")  # It greets with seven lines.


def of_pywsgi() -> t.Any:
    """Return what pywsgi tells of clients that send no HTTP: theirs is the error, so it is a warning."""
    from gevent.pywsgi import LoggingLogAdapter

    return LoggingLogAdapter(logging.getLogger("pywsgi"), logging.WARNING)


def utc(seconds: float) -> str:
    """Return a moment since the epoch as RFC 3339 writes it, with milliseconds."""
    global _last_second
    second, text = _last_second
    if not 0 <= seconds - second < 1:
        second = int(seconds)
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _last_second = second, text
    return text + _MILLISECONDS[int((seconds - second) * 1000)]


# The last second, and how it is written: most lines are of the same one.
_last_second = 0, "1970-01-01T00:00:00"
_MILLISECONDS = [f".{number:03d}Z" for number in range(1000)]

# Clients call themselves by long names, and by the same ones in line after line.
_LONGEST_AGENT = 256  # characters that are remembered
_quoted_agent = functools.lru_cache(256)(quoted)

# `sys.stderr` hands a line on from buffer to buffer, at three times the cost. Where the process was started
# without it, the number is free for any other file: no line may go there.
STDERR = 2 if sys.stderr else -1

_BEGIN, _END = '{"time": "', "}\n"


def json_access(
    method: str, path: str, route: str, status: str, seconds: float, remote: str, agent: str
) -> None:
    """Write the line of a request. It is put together by hand: `logging` would cost as much as a view."""
    shown = quoted(path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace"))
    word = quoted(method)
    client = _quoted_agent(agent) if len(agent) <= _LONGEST_AGENT else quoted(agent)
    write(
        f'{_BEGIN}{utc(time.time())}", "level": "info", "logger": "access"'
        f', "message": {word[:-1]} {shown[1:-1]} {status}", "request_id": "{request_id.get()}"'
        f', "method": {word}, "path": {shown}, "route": {quoted(route)}, "status": {status}'
        f', "duration_ms": {seconds * 1000:.1f}, "remote": {quoted(remote)}, "user_agent": {client}{_END}'
    )


def text_access(
    method: str, path: str, route: str, status: str, seconds: float, remote: str, agent: str
) -> None:
    """Write the line of a request for people."""
    shown = path.encode("latin-1").decode("utf-8", "replace")
    line = f"{time.strftime('%H:%M:%S')} {method} {shown} {status} {seconds * 1000:.1f} ms {request_id.get()}"
    write(line.translate(_CONTROL) + "\n")


def write(line: str) -> None:
    """Write a line to stderr at once; a log that cannot be written fails no request."""
    try:  # noqa: SIM105  # Each request comes here, and `suppress` costs more than the rest.
        os.write(STDERR, line.encode())
    except OSError:
        pass


AccessLine = t.Callable[[str, str, str, str, float, str, str], None]
