"""Each request has an id, a line in the log, and an answer with every security header."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{cookiecutter.package_name}} import logs
from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.db import engines_of
from {{cookiecutter.package_name}}.edge import SECURITY_HEADERS

from .conftest import make_settings
from .databases import Databases

HOSTILE = [
    "a\r\nb: c",
    "\x1b[31mred",
    "\u2028{",
    '"',
    "\\",
    '"}\n{"level": "error',
    "\x00",
    "\x85",
    "ünï",
]


@pytest.fixture(scope="module")
def app(own_databases: Databases) -> Iterator[Flask]:
    """The service as it runs in production."""
    app = create_app(make_settings(own_databases.migrated(), app_env="production", log_level="info"))

    @app.get("/own-policy")
    def own_policy() -> tuple[str, dict[str, str]]:
        return "a page", {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "max-age=60"}

    @app.get("/hosts")
    def hosts() -> str:
        return "known"

    yield app
    for engine in engines_of(app):
        engine.dispose()


@pytest.fixture
def known_by_name(own_databases: Databases) -> Iterator[FlaskClient]:
    """A client of a service that knows how it is called."""
    app = create_app(make_settings(own_databases.migrated(), trusted_hosts="example.com,.example.org"))
    yield app.test_client()
    for engine in engines_of(app):
        engine.dispose()


class Client(FlaskClient):
    """A client that reads its answers to their end, as real ones do: then the line is written."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        return super().open(*args, buffered=True, **kwargs)


@pytest.fixture
def client(app: Flask) -> Client:
    return Client(app)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return what was logged; every line must be one object."""
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_every_answer_carries_the_security_headers(client: Client) -> None:
    for path in ("/notes", "/nowhere", "/livez", "/docs"):
        headers = client.get(path).headers
        for name in SECURITY_HEADERS:
            assert len(headers.getlist(name)) == 1, (path, name)
        assert "Strict-Transport-Security" not in headers, "HTTPS is not known to work"


def test_https_is_asked_for_where_it_is_used(client: Client) -> None:
    answer = client.get("/notes", environ_overrides={"wsgi.url_scheme": "https"})

    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


def test_a_view_may_say_something_else_once(client: Client) -> None:
    headers = client.get("/own-policy").headers

    assert headers.getlist("Content-Security-Policy") == ["default-src 'self'"]
    assert headers.getlist("Cache-Control") == ["max-age=60"]


def test_an_answer_is_kept_only_where_it_has_a_version(client: Client) -> None:
    note = client.post("/notes", json={"text": "kept"})

    assert client.get("/notes").headers["Cache-Control"] == "no-store"
    assert client.get(note.headers["Location"]).headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", ""])
def test_a_proxy_gives_the_request_its_id(
    client: Client, peer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = client.get(
        "/nowhere", headers={"X-Request-ID": "from-the.proxy:1"}, environ_base={"REMOTE_ADDR": peer}
    )

    assert answer.headers["X-Request-ID"] == "from-the.proxy:1"
    assert answer.json is not None
    assert answer.json["request_id"] == "from-the.proxy:1"
    assert [line["request_id"] for line in lines(capfd)] == ["from-the.proxy:1"]


@pytest.mark.parametrize("given", ["", "x" * 65, "two words", "a\tb", '"', "\u00e9"])
def test_an_id_that_is_no_id_is_replaced(client: Client, given: str) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": given})

    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


def test_a_stranger_cannot_choose_the_id(client: Client) -> None:
    answer = client.get(
        "/livez", headers={"X-Request-ID": "chosen"}, environ_base={"REMOTE_ADDR": "203.0.113.9"}
    )

    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize("text", HOSTILE)
def test_no_client_can_write_a_line_of_its_own(
    client: Client, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    client.get("/" + quote(text), environ_base={"HTTP_USER_AGENT": text})

    (line,) = lines(capfd)
    assert line["path"] == "/" + text
    assert line["status"] == 404


def test_a_query_is_not_logged(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    client.get("/notes?token=hush&limit=1")

    assert "hush" not in capfd.readouterr().err


def test_probes_are_logged_only_when_they_fail(
    client: Client, app: Flask, capfd: pytest.CaptureFixture[str]
) -> None:
    client.get("/livez")
    client.get("/readyz")
    client.post("/livez")

    assert [line["status"] for line in lines(capfd)] == [405]


def test_a_log_that_cannot_be_written_fails_no_request(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(logs, "STDERR", writer)

    assert client.get("/notes").status_code == 200
    os.close(writer)


def test_no_line_goes_into_the_file_that_has_the_number_of_a_closed_stderr(tmp_path: Path) -> None:
    code = "import sys; from {{cookiecutter.package_name}} import logs;"
    code += " file = open(sys.argv[1], 'w'); assert file.fileno() == 2; logs.write('a line')"
    own = tmp_path / "own"
    closed = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", code, str(own)]

    subprocess.run(closed, check=True)

    assert own.read_text() == ""


def test_only_trusted_hosts_are_answered(known_by_name: FlaskClient) -> None:
    statuses = {
        host: known_by_name.get("/notes", headers={"Host": host}).status_code
        for host in ("example.com", "example.com:8000", "a.example.org", "evil.com", "example.com.evil.com")
    }

    assert list(statuses.values()) == [200, 200, 200, 400, 400]


def test_a_probe_asks_by_address(known_by_name: FlaskClient) -> None:
    answers = [known_by_name.get(path, headers={"Host": "10.1.2.3:8000"}) for path in ("/livez", "/readyz")]

    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize(
    ("forwarded", "remote"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("192.0.2.7, 203.0.113.5", "203.0.113.5"),
        ("192.0.2.7,203.0.113.5 , 127.0.0.1,::1", "203.0.113.5"),
        ("2001:db8::7", "2001:db8::7"),
        ("127.0.0.1", "127.0.0.1"),
        ("192.0.2.7, unknown, 127.0.0.1", "127.0.0.1"),
        ("192.0.2.7, unknown", "::1"),
        ("192.0.2.7:4711", "::1"),
        ("", "::1"),
        (",", "::1"),
        ('"}\n', "::1"),
    ],
)
def test_the_client_is_the_last_one_that_is_no_proxy(
    client: Client, forwarded: str, remote: str, capfd: pytest.CaptureFixture[str]
) -> None:
    client.get("/nowhere", environ_base={"REMOTE_ADDR": "::1", "HTTP_X_FORWARDED_FOR": forwarded})

    assert [line["remote"] for line in lines(capfd)] == [remote]


def test_a_proxy_on_a_unix_socket_names_the_client(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    told = {"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": "203.0.113.5"}

    client.get("/nowhere", environ_base=told)

    assert [line["remote"] for line in lines(capfd)] == ["203.0.113.5"]


@pytest.mark.parametrize("scheme", ["https", "http", "gopher", "https,http", ""])
def test_a_proxy_says_whether_the_client_came_by_https(client: Client, scheme: str) -> None:
    answer = client.get("/livez", environ_base={"HTTP_X_FORWARDED_PROTO": scheme})

    assert ("Strict-Transport-Security" in answer.headers) is (scheme == "https")
