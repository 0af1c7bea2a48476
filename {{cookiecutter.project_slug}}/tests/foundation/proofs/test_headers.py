"""Long and many headers get a response, malformed requests no traceback, and each response has one Date."""

from __future__ import annotations

import socket
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime

import pytest

from ..servers import FLASK, UWSGI, Server


@pytest.mark.parametrize("length", [4096, 8000])
def test_a_cookie_as_long_as_proxies_allow_is_accepted(length: int, server: Server) -> None:
    """A cookie of the maximum length that proxies forward reaches the service."""
    answer = server.send("GET", "/livez", headers={"Cookie": "a=" + "x" * length})

    assert answer.status == 200


def test_a_cookie_that_is_too_long_costs_only_its_own_request(server: Server) -> None:
    """A too long cookie is rejected, and the next request is answered."""
    with suppress(ConnectionError):  # uWSGI closes the connection and logs that.
        assert server.send("GET", "/livez", headers={"Cookie": "a=" + "x" * 200_000}).status in {400, 431}

    assert server.get("/livez").status == 200


@pytest.mark.parametrize("count", [90, 115, 150, 2000])
def test_many_headers_are_accepted_or_refused(count: int, server: Server) -> None:
    """A request with many headers is answered or rejected, without a traceback."""
    headers = {f"X-{number}": "value" for number in range(count)}

    status = server.send("GET", "/livez", headers=headers).status

    # uWSGI accepts what fits into its buffer; the others stop at 100.
    assert status == 200 if count < 100 or server.kind is UWSGI else status in {400, 431}
    assert "Traceback" not in server.log


@pytest.mark.parametrize("line", [b"", b"GET", b"GET /", b" ", b"\0"])
def test_a_request_without_a_request_line_leaves_no_traceback(line: bytes, server: Server) -> None:
    """An incomplete request line is a client error: no traceback, and the next request is answered."""
    for _ in range(3):
        with server.connection() as connection, suppress(ConnectionError):
            connection.sendall(line + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert not connection.recv(12).startswith(b"HTTP/1.1 5"), server.log

    assert server.get("/livez").status == 200
    assert "Traceback" not in server.log


def test_each_answer_has_one_date(server: Server) -> None:
    """Each response has exactly one Date (RFC 9110, 6.6.1), even a conditional one."""
    location = server.post("/samples", {"text": "one"}).headers["Location"]
    for path in (location, "/livez", "/nowhere", "/samples/0", "/openapi.json"):
        answer = server.get(path)
        dates = answer.headers.get_all("Date") or []
        # Werkzeug's development server adds a second one.
        assert len(dates) == 1 or (server.kind is FLASK and answer.headers["ETag"]), (path, dates)
        assert parsedate_to_datetime(dates[0]).tzinfo is UTC
