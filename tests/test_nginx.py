"""nginx in front of the real server, as the files of deploy/ put them together.

The units are followed as by systemd: it opens the socket, and starts their program with their settings.
"""

from __future__ import annotations

import json
import re
import select
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from .conftest import SECRET, Bake
from .image import Built
from .processes import Program, WebServer, clean_environment, free_port, run

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

ECHO = """
import os, flask
@app.route("/echo", methods=["GET", "POST"])
@app.route("/smuggled")
def echo():
    with open("seen", "a") as seen:
        seen.write(flask.request.path + "\\n")
    asked = flask.request
    seen = dict(asked.headers), asked.scheme, asked.remote_addr, len(asked.get_data())
    return dict(zip(("headers", "scheme", "client", "length"), seen))
"""
SYSTEMD = """
import os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[1])
door.listen(2048)
os.dup2(door.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
NGINX = """
daemon off;
pid nginx.pid;
error_log stderr;
worker_processes 1;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; uwsgi_temp_path uwsgi;
    fastcgi_temp_path fastcgi; scgi_temp_path scgi;
    include {site};
}}
"""


@dataclass(frozen=True)
class Edge:
    """nginx in front of a service, and the requests that have reached the service."""

    front: WebServer
    folder: Path

    @contextmanager
    def connection(self, start: bytes = b"") -> Iterator[socket.socket]:
        """Open a connection, and send the first bytes on it."""
        with self.front.connection() as connection:
            connection.sendall(start)
            yield connection

    def seen(self) -> list[str]:
        """Return the paths that were requested from the service since the last call."""
        file = self.folder / "seen"
        paths = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        return paths


@pytest.fixture(scope="module", params=["gunicorn", "uwsgi"])
def edge(
    request: pytest.FixtureRequest, bake: Bake, image: Built, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    """nginx in front of gunicorn, and of uWSGI."""
    server: str = request.param
    project = bake(database="sqlite", server=server, systemd=True)
    made, folder = image(server), tmp_path_factory.mktemp("edge")
    app = Path(shutil.copytree(made.root / "app", folder / "app", ignore=shutil.ignore_patterns(".venv")))
    with (app / "src/notes_service/wsgi.py").open("a") as wsgi:
        wsgi.write(ECHO)
    unit = (project / "deploy/systemd/notes-service.service").read_text()
    settings = dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE))
    settings |= {"DATABASE_URL": f"sqlite:///{folder}/notes.db", "SECRET_KEY": SECRET, "WEB_CONCURRENCY": "2"}
    program, *arguments = re.findall(r"^ExecStart=/opt/notes-service/(.*)$", unit, re.MULTILINE)[0].split()
    run(made.root / "app/.venv/bin/alembic", "upgrade", "head", cwd=app, env=settings)
    door, port = folder / "door", free_port()
    site = (project / f"deploy/nginx/{server}.conf").read_text()
    # Slow clients must not be dropped before others are answered, however busy this machine is.
    assert site.count("_timeout 15s;") == 2
    for old, new in {
        "/run/notes-service.sock": str(door),
        "listen 80;": f"listen 127.0.0.1:{port};",
        "_timeout 15s;": "_timeout 300s;",
        "server_tokens off;": "server_tokens off; add_header X-Edge-ID $request_id;",
    }.items():
        assert old in site
        site = site.replace(old, new)
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(NGINX.format(site=folder / "site.conf"))
    nginx = ("nginx", "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf", "-g", "user root;")
    run(*nginx, "-t", cwd=folder)
    started = (sys.executable, "-c", SYSTEMD, door, made.root / "app" / program, *arguments)
    with (
        Program(*started, cwd=app, log=folder / "service.log", environment=clean_environment() | settings),
        WebServer(
            *nginx, cwd=folder, log=folder / "nginx.log", environment=clean_environment(), port=port
        ) as front,
    ):
        front.wait_until_ready(60)
        yield Edge(front, app)
        front.signal(signal.SIGQUIT)
        assert front.wait() == 0


def test_the_service_gets_the_true_client_host_and_scheme(edge: Edge) -> None:
    """The service gets the true client, host and scheme and a new request id, despite forged headers."""
    forged = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Request-ID": "forged"}

    answer = edge.front.send("GET", "/echo", headers={"Host": "example.org", **forged})

    headers = {name.title(): value for name, value in answer.json["headers"].items()}
    assert answer.status == 200
    assert headers["Host"] == headers["X-Forwarded-Host"] == "example.org"
    assert headers["X-Forwarded-For"] == "127.0.0.1"
    assert headers["X-Forwarded-Proto"] == answer.json["scheme"] == "http"
    assert re.fullmatch("[0-9a-f]{32}", headers["X-Request-Id"])


def test_nginx_and_the_service_have_the_same_request_id(edge: Edge) -> None:
    """nginx and the service have the same id for a request, wherever it comes from."""
    # A client whose address is no proxy's.
    with closing(
        HTTPConnection("127.0.0.1", edge.front.port, timeout=30, source_address=("127.0.0.2", 0))
    ) as connection:
        connection.request("GET", "/echo", headers={"X-Request-ID": "forged"})
        answer = connection.getresponse()
        seen = json.loads(answer.read())["headers"]

    assert answer.headers["X-Request-ID"] == answer.headers["X-Edge-ID"]
    assert seen["X-Request-Id"] == answer.headers["X-Edge-ID"]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_arrives_up_to_the_limit_and_is_refused_above(chunked: bool, edge: Edge) -> None:
    """A body arrives complete up to the limit, and is rejected with 413 above."""
    for size, expected in ((1024 * 1024, 200), (1024 * 1024 + 1, 413)):
        body = b"x" * size
        answer = edge.front.send("POST", "/echo", iter([body]) if chunked else body)
        assert answer.status == expected
        assert expected == 413 or answer.json["length"] == size


def test_a_note_can_be_created_and_listed(edge: Edge) -> None:
    """A note can be created with a chunked body, and notes can be listed."""
    body = iter([b'{"text": ', b'"milk"}'])

    answer = edge.front.send("POST", "/notes", body, {"Content-Type": "application/json"})

    assert (answer.status, answer.json["text"]) == (201, "milk")
    assert edge.front.get("/notes").status == 200


def test_long_headers_arrive(edge: Edge) -> None:
    """Long headers arrive up to the limit, and are rejected with 400 above."""
    cookies = {f"X-Long-{number}": "x" * 7000 for number in range(4)}

    assert edge.front.send("GET", "/echo", headers=cookies).status == 200
    assert edge.front.send("GET", "/echo", headers={"X-Long": "x" * 8200}).status == 400


HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
INSIDE = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKS = b"0\r\n\r\n" + INSIDE
LENGTH = b"Content-Length: %d\r\n" % len(CHUNKS)
# Requests that two parsers could read in two ways: the body for one of them is a request for the other.
MALFORMED = {
    "length and chunks": HEAD + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + CHUNKS,
    "two lengths": HEAD + b"Content-Length: 0\r\n" + LENGTH + b"\r\n" + CHUNKS,
    "a list of lengths": HEAD + b"Content-Length: 0, %d\r\n\r\n" % len(CHUNKS) + CHUNKS,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n" + INSIDE,
    "a length with a sign": HEAD + b"Content-Length: +%d\r\n\r\n" % len(CHUNKS) + CHUNKS,
    "a length in base 16": HEAD + b"Content-Length: 0x0\r\n\r\n" + INSIDE,
    "a huge length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + INSIDE,
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "two codings": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    "a folded line": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS,
    "a line without a colon": HEAD + b"Transfer-Encoding\r\n" + LENGTH + b"\r\n" + CHUNKS,
    "a NUL in a value": HEAD + b"X-A: a\0b\r\n" + LENGTH + b"\r\n" + CHUNKS,
    "a NUL in a name": HEAD + b"X\0A: b\r\n" + LENGTH + b"\r\n" + CHUNKS,
    "a negative chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + CHUNKS,
    "a chunk that is no number": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + CHUNKS,
    "a huge chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + CHUNKS,
    "no name of a host": b"GET /echo HTTP/1.1\r\n\r\n",
    "two names of a host": b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no version": b"GET /echo HTTP/x.1\r\nHost: a\r\n\r\n",
    "version 3": b"GET /echo HTTP/3.0\r\nHost: a\r\n\r\n",
    "a control character in the path": b"GET /ec\x01ho HTTP/1.1\r\nHost: a\r\n\r\n",
    "no path": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
}


def everything(client: socket.socket) -> bytes:
    """Return all bytes until the other side closes the connection."""
    return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_never_reaches_the_service(request_: bytes, edge: Edge) -> None:
    """A malformed request is rejected and never reaches the service."""
    edge.seen()
    with edge.connection(request_) as client:
        answer = everything(client)

    assert re.match(rb"HTTP/1.1 (400|413|501|505) ", answer), answer
    assert edge.seen() == []


def test_two_requests_are_two_and_lines_may_end_without_a_return(edge: Edge) -> None:
    """Two requests on one connection are two, even if their lines end without a carriage return."""
    edge.seen()
    ask = b"GET /echo HTTP/1.1\nHost: localhost\n"
    with edge.connection(ask + b"\n" + ask + b"Connection: close\n\n") as client:
        answer = everything(client)

    assert answer.count(b"HTTP/1.1 200") == 2
    assert edge.seen() == ["/echo", "/echo"]


SLOW = {
    "idle": b"",
    "half a header": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nX-A: ",
    "half a body": HEAD + b"Content-Length: 1000\r\n\r\nhalf",
}


@pytest.mark.parametrize("start", SLOW.values(), ids=SLOW.keys())
def test_slow_clients_stop_no_other(start: bytes, edge: Edge) -> None:
    """Slow clients block no other client, and none of them is dropped."""
    with ExitStack() as slow:
        held = [slow.enter_context(edge.connection(start)) for _ in range(200)]
        for _ in range(50):
            assert edge.front.get("/echo").status == 200
        # No client was answered because another one was dropped.
        assert select.select(held, [], [], 0) == ([], [], [])
