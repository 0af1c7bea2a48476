"""Each request has an id, a log line, and a response with every security header."""

from __future__ import annotations

import json
import logging
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

from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.edge.headers import SECURITY_HEADERS
from {{cookiecutter.package_name}}.foundation.observability import logs

from ..databases import PROJECT, Databases
from ..fixtures import make_settings
from ..sample.app import create_app

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
    """The service in production."""
    app = create_app(make_settings(own_databases.sampled(), app_env="production", log_level="info"))

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
    """A client of a service with trusted hosts."""
    app = create_app(make_settings(own_databases.sampled(), trusted_hosts="example.com,.example.org"))
    yield app.test_client()
    for engine in engines_of(app):
        engine.dispose()


class Client(FlaskClient):
    """A client that reads responses to their end, like real ones, so that the line is written."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        return super().open(*args, buffered=True, **kwargs)


@pytest.fixture
def client(app: Flask) -> Client:
    return Client(app)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return the logged lines, each of which must be one JSON object."""
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_every_answer_carries_the_security_headers(client: Client) -> None:
    """Every response has each security header once, and over HTTP no Strict-Transport-Security."""
    for path in ("/samples", "/nowhere", "/livez", "/docs"):
        headers = client.get(path).headers
        for name in SECURITY_HEADERS:
            assert len(headers.getlist(name)) == 1, (path, name)
        assert "Strict-Transport-Security" not in headers, "HTTPS is not known to work"


def test_strict_transport_security_is_sent_over_https(client: Client) -> None:
    """A response over HTTPS has a Strict-Transport-Security header."""
    answer = client.get("/samples", environ_overrides={"wsgi.url_scheme": "https"})

    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


def test_a_view_may_replace_a_security_header(client: Client) -> None:
    """A view may replace a security header, which is still sent once."""
    headers = client.get("/own-policy").headers

    assert headers.getlist("Content-Security-Policy") == ["default-src 'self'"]
    assert headers.getlist("Cache-Control") == ["max-age=60"]


def test_a_response_may_be_cached_only_with_an_etag(client: Client) -> None:
    """A response may be cached only if it has an ETag, and only privately with revalidation."""
    note = client.post("/samples", json={"text": "kept"})

    assert client.get("/samples").headers["Cache-Control"] == "no-store"
    assert client.get(note.headers["Location"]).headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", ""])
def test_a_proxy_gives_the_request_its_id(
    client: Client, peer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A trusted proxy's request id is used in the response, in the problem and in the log."""
    answer = client.get(
        "/nowhere", headers={"X-Request-ID": "from-the.proxy:1"}, environ_base={"REMOTE_ADDR": peer}
    )

    assert answer.headers["X-Request-ID"] == "from-the.proxy:1"
    assert answer.json is not None
    assert answer.json["request_id"] == "from-the.proxy:1"
    assert [line["request_id"] for line in lines(capfd)] == ["from-the.proxy:1"]


@pytest.mark.parametrize("given", ["", "x" * 65, "two words", "a\tb", '"', "\u00e9"])
def test_an_invalid_request_id_is_replaced(client: Client, given: str) -> None:
    """An invalid request id is replaced."""
    answer = client.get("/livez", headers={"X-Request-ID": given})

    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


def test_an_untrusted_peer_cannot_choose_the_request_id(client: Client) -> None:
    """The request id of a peer that is not a trusted proxy is replaced."""
    answer = client.get(
        "/livez", headers={"X-Request-ID": "chosen"}, environ_base={"REMOTE_ADDR": "203.0.113.9"}
    )

    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize("text", HOSTILE)
def test_no_client_can_forge_a_line_of_the_log(
    client: Client, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """No client can write its own line into the log."""
    client.get("/" + quote(text), environ_base={"HTTP_USER_AGENT": text})

    (line,) = lines(capfd)
    assert line["path"] == "/" + text
    assert line["status"] == 404


def test_a_query_is_not_logged(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    """A query string is not logged."""
    client.get("/samples?token=hush&limit=1")

    assert "hush" not in capfd.readouterr().err


class Kept(logging.Handler):
    """A handler that keeps its records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def of_access(caplog: pytest.LogCaptureFixture) -> Iterator[Kept]:
    """A handler that the owner has added to the logger `access`."""
    caplog.set_level(logging.INFO)
    logging.getLogger("access").addHandler(kept := Kept())
    yield kept
    logging.getLogger("access").removeHandler(kept)


@pytest.fixture
def of_root() -> Iterator[Kept]:
    """A handler of the root logger, like the one that writes to stderr."""
    logging.getLogger().addHandler(kept := Kept())
    yield kept
    logging.getLogger().removeHandler(kept)


def test_a_request_is_a_record_where_access_has_a_handler(
    client: Client, of_access: Kept, of_root: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    """A handler of the logger `access` gets each request as a record, and no line is written."""
    answer = client.post(
        "/samples?token=hush",
        data="x",
        headers={"User-Agent": "a client"},
        environ_base={"REMOTE_ADDR": "::1"},
    )
    client.get("/livez")

    (record,) = of_access.records
    assert record.getMessage() == "POST /samples 415"
    assert record.levelname == "INFO"
    assert record.request_id == answer.headers["X-Request-ID"]
    assert (record.method, record.path, record.route, record.status) == ("POST", "/samples", "/samples", 415)
    assert (record.remote, record.user_agent) == ("::1", "a client")
    assert 0 < record.duration_ms < 60_000
    assert [record for record in of_root.records if record.name == "access"] == []
    assert capfd.readouterr().err == ""


def test_without_a_handler_a_request_is_a_line_and_no_record(
    client: Client, of_root: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a handler of the logger `access` a request is one line on stderr and no record."""
    client.get("/samples")

    assert [line["message"] for line in lines(capfd)] == ["GET /samples 200"]
    assert of_root.records == []


@pytest.mark.parametrize("text", HOSTILE)
def test_a_record_holds_the_path_that_the_client_sent(client: Client, of_access: Kept, text: str) -> None:
    """A record has the decoded path and the user agent; its handler escapes them."""
    client.get("/" + quote(text), environ_base={"HTTP_USER_AGENT": text})

    (record,) = of_access.records
    assert (record.path, record.user_agent) == ("/" + text, text)


def test_probes_are_logged_only_when_they_fail(
    client: Client, app: Flask, capfd: pytest.CaptureFixture[str]
) -> None:
    """Probes are logged only when they fail."""
    client.get("/livez")
    client.get("/readyz")
    client.post("/livez")

    assert [line["status"] for line in lines(capfd)] == [405]


def test_a_log_that_cannot_be_written_fails_no_request(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that cannot be written fails no request."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(logs, "STDERR", writer)

    assert client.get("/samples").status_code == 200
    os.close(writer)


def test_no_line_goes_into_a_file_with_the_number_of_stderr(tmp_path: Path) -> None:
    """If stderr is closed, no line is written to a file that reuses its descriptor."""
    code = "import sys; from {{cookiecutter.package_name}}.foundation.observability import logs;"
    code += " file = open(sys.argv[1], 'w'); assert file.fileno() == 2; logs.write('a line')"
    own = tmp_path / "own"
    closed = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", code, str(own)]

    subprocess.run(closed, check=True, env=os.environ | {"PYTHONPATH": str(PROJECT / "src")})

    assert own.read_text() == ""


def test_only_trusted_hosts_are_answered(known_by_name: FlaskClient) -> None:
    """Requests for untrusted hosts are rejected with 400."""
    statuses = {
        host: known_by_name.get("/samples", headers={"Host": host}).status_code
        for host in ("example.com", "EXAMPLE.com:8000", "a.example.org", "evil.com", "example.com.evil.com")
    }

    assert list(statuses.values()) == [200, 200, 200, 400, 400]


def test_a_probe_may_use_an_address(known_by_name: FlaskClient) -> None:
    """A probe may use an IP address outside the trusted hosts."""
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
        ("192.0.2.7:4711", "192.0.2.7"),
        ("", "::1"),
        (",", "::1"),
        ('"}\n', "::1"),
    ],
)
def test_the_client_is_the_last_one_that_is_no_proxy(
    client: Client, forwarded: str, remote: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The logged client is the last valid address in X-Forwarded-For that is not a trusted proxy."""
    client.get("/nowhere", environ_base={"REMOTE_ADDR": "::1", "HTTP_X_FORWARDED_FOR": forwarded})

    assert [line["remote"] for line in lines(capfd)] == [remote]


def test_a_proxy_on_a_unix_socket_names_the_client(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    """A proxy on a Unix socket is trusted to name the client."""
    forwarded = {"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": "203.0.113.5"}

    client.get("/nowhere", environ_base=forwarded)

    assert [line["remote"] for line in lines(capfd)] == ["203.0.113.5"]


@pytest.mark.parametrize("scheme", ["https", "http", "gopher", "https,http", ""])
def test_a_proxy_names_the_scheme_of_the_client(client: Client, scheme: str) -> None:
    """A trusted proxy names the client's scheme, and any value but `https` counts as HTTP."""
    answer = client.get("/livez", environ_base={"HTTP_X_FORWARDED_PROTO": scheme})

    assert ("Strict-Transport-Security" in answer.headers) is (scheme == "https")


@pytest.fixture
def below_prefix(own_databases: Databases) -> Iterator[FlaskClient]:
    """A client of a service with URL_PREFIX."""
    app = create_app(make_settings(own_databases.sampled(), url_prefix="/api/v1"))
    yield app.test_client()
    for engine in engines_of(app):
        engine.dispose()


@pytest.mark.parametrize("path", ["/api/v1/samples", "/samples"])
def test_links_have_the_prefix(below_prefix: FlaskClient, path: str) -> None:
    """With URL_PREFIX every link has the prefix, whether or not the proxy strips it from the path."""
    created = [below_prefix.post(path, json={"text": "kept"}) for _ in range(2)][-1]
    page: Any = below_prefix.get(f"{path}?limit=1").json

    assert created.status_code == 201
    assert created.headers["Location"].startswith("/api/v1/samples/")
    assert page["next"].startswith("/api/v1/samples?limit=1&cursor=")
    assert below_prefix.get(page["next"]).status_code == 200
    assert below_prefix.get(created.headers["Location"]).status_code == 200


@pytest.mark.parametrize(
    ("path", "location"), [("/", "/api/v1/docs"), ("/api/v1", "/api/v1/docs"), ("/api/v1/", "/api/v1/docs")]
)
def test_the_root_below_the_prefix_leads_to_the_page(
    below_prefix: FlaskClient, path: str, location: str
) -> None:
    """The root below the prefix redirects to the page below it."""
    assert below_prefix.get(path).headers["Location"] == location


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/api/v1/livez", "/api/v1/readyz"])
def test_probes_answer_with_and_without_the_prefix(below_prefix: FlaskClient, path: str) -> None:
    """A probe works with and without the prefix."""
    assert below_prefix.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/api/v1x/samples", "/api", "/other/samples"])
def test_another_prefix_is_no_path(below_prefix: FlaskClient, path: str) -> None:
    """A path that only starts like the prefix is not found."""
    assert below_prefix.get(path).status_code == 404


@pytest.mark.parametrize(
    ("peer", "prefix", "location"),
    [
        ("127.0.0.1", "/shop", "/shop/samples/"),
        ("127.0.0.1", "/shop/", "/shop/samples/"),
        ("192.0.2.1", "/shop", "/samples/"),
        ("127.0.0.1", "//evil.example", "/samples/"),
        ("127.0.0.1", "/a, /b", "/samples/"),
        ("127.0.0.1", '/"><script>', "/samples/"),
        ("127.0.0.1", "", "/samples/"),
    ],
)
def test_the_prefix_of_a_trusted_proxy_is_applied(app: Flask, peer: str, prefix: str, location: str) -> None:
    """A trusted proxy's X-Forwarded-Prefix is the prefix of every link; any other value is ignored."""
    headers = {"X-Forwarded-Prefix": prefix}

    response = app.test_client().post(
        "/samples", json={"text": "x"}, headers=headers, environ_overrides={"REMOTE_ADDR": peer}
    )

    assert response.headers["Location"].rstrip("0123456789") == location
