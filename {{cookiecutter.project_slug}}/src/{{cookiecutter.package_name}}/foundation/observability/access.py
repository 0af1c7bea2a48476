"""Access log lines: one preformatted write, or a record of the logger `access`."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted

from .logs import CONTROL, LONGEST_LINE, bound, fitted, members, pairs, request_id, utc, write

LOGGER = logging.getLogger("access")
_BEGIN, _END = '{"time": "', "}\n"


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and its response, for logs and metrics; the duration is in seconds."""

    method: str
    path: str
    remote: str
    agent: str
    started: float
    status: str = "500"
    route: str = ""
    seconds: float = 0.0

    @property
    def shown_path(self) -> str:
        """Return the decoded path: WSGI passes its bytes as Latin-1."""
        return self.path if self.path.isascii() else self.path.encode("latin-1").decode("utf-8", "replace")


def write_json(exchange: Exchange) -> None:
    """Return the line as JSON. It is preformatted, because `logging` would cost as much as a view."""
    path, method = quoted(exchange.shown_path), quoted(exchange.method)
    more = members(fields) if (fields := bound.get()) else ""
    line = (
        f'{_BEGIN}{utc(time.time())}", "level": "info", "logger": "access"'
        f', "message": {method[:-1]} {path[1:-1]} {exchange.status}", "request_id": "{request_id.get()}"'
        f', "method": {method}, "path": {path}, "route": {quoted(exchange.route)}'
        f', "status": {exchange.status}, "duration_ms": {exchange.seconds * 1000:.1f}'
        f', "remote": {quoted(exchange.remote)}, "user_agent": {quoted(exchange.agent)}{more}{_END}'
    )
    write(line if len(line) <= LONGEST_LINE else fitted(line) + "\n")


def write_text(exchange: Exchange) -> None:
    """Return the line as text."""
    line = (
        f"{time.strftime('%H:%M:%S')} {exchange.method} {exchange.shown_path} {exchange.status}"
        f" {exchange.seconds * 1000:.1f} ms {request_id.get()}{pairs(bound.get())}"
    )
    write(line.translate(CONTROL) + "\n")


def log_record(exchange: Exchange) -> None:
    """Pass a record only to the handlers that the owner has added to the logger `access`."""
    about = {
        **bound.get(),
        "request_id": request_id.get(),
        "method": exchange.method,
        "path": exchange.shown_path,
        "route": exchange.route,
        "status": int(exchange.status),
        "duration_ms": round(exchange.seconds * 1000, 1),
        "remote": exchange.remote,
        "user_agent": exchange.agent,
    }
    message = f"{exchange.method} {exchange.shown_path} {exchange.status}"
    # The root logger would write a second line per request.
    record = LOGGER.makeRecord("access", logging.INFO, __file__, 0, message, (), None, extra=about)
    for handler in LOGGER.handlers if LOGGER.isEnabledFor(logging.INFO) else ():
        if handler.level <= logging.INFO:
            handler.handle(record)


WRITERS: dict[str, Callable[[Exchange], None]] = {"json": write_json, "text": write_text}
