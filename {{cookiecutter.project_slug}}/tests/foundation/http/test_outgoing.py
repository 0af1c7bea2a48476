"""Requests to other services have a deadline, and are retried only if that is safe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from flask import Flask

from {{cookiecutter.package_name}}.foundation.http import errors
from {{cookiecutter.package_name}}.foundation.http.outgoing import NoAnswer, client
from {{cookiecutter.package_name}}.foundation.observability.logs import request_id

from ..processes import free_port

Reply = Callable[[BaseHTTPRequestHandler], None]
Make = Callable[..., httpx.Client]
LONG = 60.0  # seconds, which no test waits


class Service:
    """Another service: a real HTTP server on this machine, with a given reply for each request."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.seen: list[Message] = []  # the headers of each request
        self.ended = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                service.seen.append(self.headers)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.replies.pop(0)(self)

            do_GET = do_POST = answer  # noqa: N815  # The names are those of the library.

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def end(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def make() -> Iterator[Make]:
    """Create clients, which are closed at the end."""
    with ExitStack() as made:
        yield lambda url, **options: made.enter_context(client(url, **options))


@pytest.fixture
def service() -> Iterator[Service]:
    """Another service, which stops with the test."""
    service = Service()
    yield service
    service.end()


def reply(status: int, **headers: str) -> Reply:
    """Return a reply with a status and headers."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return send


def close(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def test_a_service_that_does_not_answer_is_a_504(make: Make, service: Service) -> None:
    """The request fails at the deadline, and no thread waits longer."""

    def wait(handler: BaseHTTPRequestHandler) -> None:
        service.ended.wait()

    service.replies = [wait, wait]

    with pytest.raises(NoAnswer) as failed:
        make(service.url, seconds=0.5).get("/")

    assert failed.value.code == 504


def test_a_body_that_never_ends_is_a_504(make: Make, service: Service) -> None:
    """The deadline limits the whole body, even if each piece comes in time."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        reply(200, Content_Length="1000000")(handler)
        try:
            while not service.ended.wait(0.05):
                handler.wfile.write(b".")
        except OSError:
            pass  # The client has left.

    service.replies = [drip]

    with pytest.raises(NoAnswer) as failed:
        make(service.url, seconds=0.5).get("/")

    assert failed.value.code == 504


def test_a_service_that_cannot_be_reached_is_a_502(make: Make) -> None:
    """Without a connection a request of any method fails with 502."""
    unreachable = make(f"http://127.0.0.1:{free_port()}", seconds=LONG)

    for method in ("GET", "POST"):
        with pytest.raises(NoAnswer) as failed:
            unreachable.request(method, "/")
        assert failed.value.code == 502


BROKEN = {
    "no answer": close,
    "502": reply(502),
    "503": reply(503),
    "504": reply(504),
    "Retry-After": reply(503, Retry_After="0"),
}


@pytest.mark.parametrize("first", BROKEN.values(), ids=BROKEN)
def test_a_read_is_sent_again(make: Make, service: Service, first: Reply) -> None:
    """A GET is retried once after a broken connection or a retryable response."""
    service.replies = [first, reply(200)]

    assert make(service.url, seconds=LONG).get("/").status_code == 200
    assert len(service.seen) == 2


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_an_answer_that_repeating_would_not_change_is_returned(
    make: Make, service: Service, status: int
) -> None:
    """Other answers are returned immediately."""
    service.replies = [reply(status)]

    assert make(service.url, seconds=LONG).get("/").status_code == status


def test_a_write_is_sent_once(make: Make, service: Service) -> None:
    """A POST that may have arrived is not retried: it could be stored twice."""
    service.replies = [reply(503), close]
    writing = make(service.url, seconds=LONG)

    assert writing.post("/", json={}).status_code == 503
    with pytest.raises(NoAnswer) as failed:
        writing.post("/", json={})

    assert failed.value.code == 502
    assert len(service.seen) == 2


def test_attempts_are_bounded(make: Make, service: Service) -> None:
    """After the last attempt its response is returned."""
    service.replies = [reply(503)] * 3

    assert make(service.url, seconds=LONG, attempts=3).get("/").status_code == 503
    assert len(service.seen) == 3


def test_no_attempt_waits_beyond_the_deadline(make: Make, service: Service) -> None:
    """A Retry-After beyond the deadline is not waited for."""
    service.replies = [reply(503, Retry_After="3600")]

    assert make(service.url, seconds=LONG).get("/").status_code == 503


def test_the_id_of_the_request_is_handed_on(make: Make, service: Service) -> None:
    """The other service's log can be joined with this one's."""
    service.replies = [reply(200), reply(200)]
    calling = make(service.url, seconds=LONG)
    token = request_id.set("f00d")
    try:
        calling.get("/")
    finally:
        request_id.reset(token)
    calling.get("/")

    assert [headers["X-Request-ID"] for headers in service.seen] == ["f00d", None]


def test_a_view_that_gets_no_answer_sends_a_problem(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The client of this service gets a problem that names no other service; the log names it."""
    app = Flask("calling")
    errors.init_app(app)
    unreachable = make(f"http://127.0.0.1:{free_port()}", seconds=LONG)
    app.add_url_rule("/", view_func=lambda: unreachable.get("/").text)

    response = app.test_client().get("/")

    assert response.status_code == 502
    assert response.content_type == "application/problem+json"
    assert "127.0.0.1" not in response.text
    assert "GET 127.0.0.1: ConnectError" in caplog.text


def test_options_are_those_of_the_library(make: Make, service: Service) -> None:
    """Options such as headers are passed to httpx."""
    service.replies = [reply(200)]
    make(service.url, seconds=LONG, headers={"Authorization": "Bearer x"}).get("/")

    assert service.seen[0]["Authorization"] == "Bearer x"
