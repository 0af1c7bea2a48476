"""A request to a WSGI application in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

ENVIRON = {
    "SCRIPT_NAME": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "HTTP_HOST": "127.0.0.1:8000",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "HTTP_ACCEPT": "*/*",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


def answer(app: Callable[..., Any], method: str, target: str, body: bytes = b"") -> str:
    """Send a request, read the answer to its end, and return its status."""
    path, _, query = target.partition("?")
    request = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
    environ = ENVIRON | request | {"wsgi.input": io.BytesIO(body)}
    if body:
        environ |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
    statuses: list[str] = []
    response = app(environ, lambda status, headers, error=None: statuses.append(status))
    for _ in response:
        pass
    if close := getattr(response, "close", None):
        close()
    return statuses[-1]
