"""Every line of the log is one JSON object, whoever writes it and whatever a client sends.

A line that a client can break is a line that a client can forge: neither gunicorn's format of the access
log nor uWSGI's escapes what comes from outside.
"""

from __future__ import annotations

import json
import re
import signal
import socket
from contextlib import suppress
from typing import Any

from .conftest import Start
from .harness import UWSGI, Kind, Project, Server, wait_until

# What is no request: gevent's pywsgi and uWSGI say so in lines of their own.
MALFORMED = (b"\x00{\x1b[31m\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n")
HOSTILE = b'"\\}{\x1b[31m\xe2\x80\xa8\', "level": "error'


def lines(server: Server) -> list[dict[str, Any]]:
    """Return the lines of the log, each of which must be an object with the same members."""
    found = server.log.splitlines()
    if server.kind is UWSGI:
        found = [line for line in found if not line.startswith(("[uWSGI] getting", "[log-encoder]"))]
    parsed = [json.loads(line) for line in found]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in parsed)
    return parsed


def test_the_log_is_json_from_the_first_line_to_the_last(kind: Kind, start: Start, project: Project) -> None:
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


def test_people_read_text(kind: Kind, start: Start, project: Project) -> None:
    project.provoke("raising_views")
    server = start(kind, APP_ENV="development")
    server.get("/notes")
    server.get("/raise")

    for line in (r"\d\d:\d\d:\d\d GET /notes 200 ", "RuntimeError: a bug in a view$"):
        wait_until(lambda: re.search(f"^{line}", server.log, re.MULTILINE), f"the log has {line}")  # noqa: B023
