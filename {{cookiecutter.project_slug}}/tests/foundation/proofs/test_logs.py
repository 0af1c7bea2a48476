"""Every line of the log is one JSON object, whatever wrote it and whatever a client sends.

A client that can break a line can forge one: neither gunicorn's nor uWSGI's access log format escapes client
input.
"""

from __future__ import annotations

import json
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from ..servers import KINDS, UWSGI, Kind, Project, Server, wait_until
from .conftest import Start

# Malformed requests, which gevent's pywsgi and uWSGI log themselves.
MALFORMED = (b"\x00{\x1b[31m\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n")
FIRST = ("[uWSGI] getting", "[log-encoder]", "running ")  # uWSGI's lines before its encoder is configured.
HOSTILE = b'"\\}{\x1b[31m\xe2\x80\xa8\', "level": "error'


def lines(server: Server) -> list[dict[str, Any]]:
    """Return the lines of the log, each of which must be an object with the same members."""
    found = server.log.splitlines()
    if server.kind is UWSGI:
        found = [line for line in found if not line.startswith(FIRST)]
    assert max(len(line.encode()) for line in found) < 4096  # Longer lines interleave in a pipe.
    parsed = [json.loads(line) for line in found]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in parsed)
    return parsed


def test_the_log_is_json_from_the_first_line_to_the_last(kind: Kind, start: Start, project: Project) -> None:
    """Every log line is JSON, whatever a client sends or a view raises."""
    project.provoke("raising_views")
    server = start(kind)
    with server.connection() as connection:
        connection.sendall(
            b"GET /%s?token=hush HTTP/1.1\r\nHost: localhost\r\nUser-Agent: %s\r\nConnection: close\r\n\r\n"
            # gunicorn refuses an ESC in a header, not in a path.
            % ("".join(f"%{byte:02x}" for byte in HOSTILE + b"\r\n").encode(), HOSTILE.replace(b"\x1b", b""))
        )
        assert b" 404 " in connection.recv(65536)
    for malformed in MALFORMED:
        with server.connection() as connection, suppress(ConnectionError):
            connection.sendall(malformed)
            with suppress(OSError):  # It has closed the connection already.
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert server.send("GET", "/" + "%01" * 2600, headers={"User-Agent": "\xff" * 7900}).status == 404
    failed = server.get("/raise")
    assert failed.status == 500
    known = failed.headers["X-Request-ID"]
    wait_until(lambda: "GET /raise 500" in server.log, "the request has its line")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0

    found = lines(server)

    (hostile,) = [line for line in found if "error" in line.get("path", "")]
    assert hostile["path"] == "/" + (HOSTILE + b"\r\n").decode()
    assert "hush" not in server.log
    assert failed.json["request_id"] == known
    about = [line for line in found if line.get("request_id") == known]
    assert {line["logger"] for line in about} == {"access", "{{cookiecutter.package_name}}"}
    assert any("a bug in a view" in line.get("exception", "") for line in about)


def test_the_log_is_text_in_development(kind: Kind, start: Start, project: Project) -> None:
    """In development the log is text, with a line for each request and the exceptions."""
    project.provoke("raising_views")
    server = start(kind, APP_ENV="development")
    server.get("/samples")
    server.get("/raise")

    for line in (r"\d\d:\d\d:\d\d GET /samples 200 ", "RuntimeError: a bug in a view$"):
        wait_until(lambda: re.search(f"^{line}", server.log, re.MULTILINE), f"the log has {line}")  # noqa: B023


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name != "gunicorn-sync"], ids=str)
def test_no_request_logs_the_fields_of_another_one(kind: Kind, start: Start, project: Project) -> None:
    """Two requests in flight each have only their own bound fields, and the next request has none."""
    project.provoke("bound_fields")
    server = start(kind)
    with ThreadPoolExecutor(2) as pool:
        assert [answer.status for answer in pool.map(server.get, ["/bound/1", "/bound/2"])] == [200, 200]
    server.get("/samples")
    wait_until(lambda: "GET /samples 200" in server.log, "the last request has its line")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0

    found = lines(server)

    bound = {line["user_id"]: line["request_id"] for line in found if "own" in line}
    assert {(line["user_id"], line["own"]) for line in found if "own" in line} == {(1, 1), (2, 2)}
    for user_id, request_id in bound.items():
        own = [line for line in found if line.get("request_id") == request_id]
        assert [line["user_id"] for line in own] == [user_id, user_id], "its own line and its access line"
    assert [line for line in found if line.get("path") == "/samples" and "user_id" in line] == []
