"""Complete bodies, and isolated requests."""

from __future__ import annotations

import contextvars
import gc
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask, g, has_app_context, request, stream_with_context
from sqlalchemy import QueuePool, text
from werkzeug.test import EnvironBuilder, run_wsgi_app

from {{cookiecutter.package_name}}.foundation.database import db
from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.edge.context import OwnContext, break_off

from ..databases import Databases
from ..fixtures import make_settings
from ..sample.app import create_app


@pytest.fixture(scope="module")
def app(own_databases: Databases) -> Iterator[Flask]:
    """The service, with a view that stores bodies and one that streams."""
    app = create_app(make_settings(own_databases.sampled()))
    app.extensions["bodies"] = []

    @app.post("/bodies")
    def keep() -> str:
        app.extensions["bodies"].append(request.get_data())
        return "kept"

    @app.post("/refused")
    def refuse() -> tuple[str, int]:
        return "not today", 401

    @app.post("/echo")
    def echo() -> Any:
        return stream_with_context(iter(lambda: request.stream.read(1000), b""))

    @app.get("/stream")
    def stream() -> Any:
        def parts() -> Iterator[str]:
            for number in range(3):
                yield str(db.session.scalar(text("SELECT 7"))) + str(number)

        return stream_with_context(parts())

    @app.get("/left")
    def left() -> dict[str, bool]:
        return {"g": "left" in g, "session": "left" in db.session().info}

    yield app
    for engine in engines_of(app):
        engine.dispose()


@pytest.fixture
def bodies(app: Flask) -> list[bytes]:
    """The bodies stored by the view."""
    kept: list[bytes] = app.extensions["bodies"]
    kept.clear()
    return kept


def sized(length: int, *, terminated: bool = True) -> dict[str, object]:
    """Return a server's environ entries for a body with a Content-Length."""
    return {"CONTENT_LENGTH": str(length), "wsgi.input_terminated": terminated}


def post(app: Flask, stream: object, environ: dict[str, object], path: str = "/bodies") -> str:
    """Call the application as a server does, and return the status."""
    builder = EnvironBuilder(path, method="POST", content_type="application/octet-stream")
    answer, status, _ = run_wsgi_app(app, builder.get_environ() | {"wsgi.input": stream} | environ)
    answer.close()  # type: ignore[attr-defined]
    return status


@pytest.mark.parametrize("sent", [b"", b"a", b"amount=1000", b"x" * 399])
@pytest.mark.parametrize("terminated", [True, False])
def test_a_body_cut_short_is_refused(app: Flask, bodies: list[bytes], sent: bytes, terminated: bool) -> None:
    """A truncated body is rejected with 400 and does not reach the view."""
    status = post(app, io.BytesIO(sent), sized(400, terminated=terminated))

    assert status.startswith("400 ")
    assert bodies == []


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("size", [0, 1, 400, 200_000])
def test_a_whole_body_arrives(app: Flask, bodies: list[bytes], size: int, terminated: bool) -> None:
    """A complete body reaches the view unchanged."""
    body = b"x" * size

    status = post(app, io.BytesIO(body), sized(size, terminated=terminated))

    assert status == "200 OK"
    assert bodies == [body]


def test_bytes_after_a_body_are_not_read(app: Flask, bodies: list[bytes]) -> None:
    """Bytes after the end of a body are not read."""
    stream = io.BytesIO(b"bodyGET / HTTP/1.1")

    assert post(app, stream, sized(4)) == "200 OK"
    assert bodies == [b"body"]
    assert stream.read() == b"GET / HTTP/1.1"


class Chunks:
    """A chunked body as decoded by a server: parts, possibly followed by an error."""

    def __init__(self, *parts: bytes, error: Exception | None = None) -> None:
        self.parts = list(parts)
        self.error = error

    def read(self, size: int = -1) -> bytes:
        if self.parts:
            part = self.parts.pop(0)
            if 0 <= size < len(part):
                self.parts.insert(0, part[size:])
                return part[:size]
            return part
        if self.error:
            raise self.error
        return b""


CHUNKED: dict[str, object] = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}


@pytest.mark.parametrize("parts", [(), (b"one",), (b"one", b"two" * 50_000, b"three")])
def test_a_chunked_body_arrives_whole(app: Flask, bodies: list[bytes], parts: tuple[bytes, ...]) -> None:
    """A chunked body reaches the view complete."""
    assert post(app, Chunks(*parts), CHUNKED) == "200 OK"
    assert bodies == [b"".join(parts)]


@pytest.mark.parametrize("error", [ConnectionResetError(), OSError("no more data"), ValueError("bad size")])
@pytest.mark.parametrize("parts", [(), (b"one", b"two")])
def test_a_chunked_body_that_breaks_off_is_refused(
    app: Flask, bodies: list[bytes], parts: tuple[bytes, ...], error: Exception
) -> None:
    """A truncated chunked body is rejected with 400 and does not reach the view."""
    assert post(app, Chunks(*parts, error=error), CHUNKED).startswith("400 ")
    assert bodies == []


def test_a_chunked_body_of_more_than_a_megabyte_is_refused(app: Flask, bodies: list[bytes]) -> None:
    """A chunked body of more than a megabyte is rejected with 413, and one of a megabyte is accepted."""
    megabyte = [b"x" * 1024] * 1024

    assert post(app, Chunks(*megabyte, b"x"), CHUNKED).startswith("413 ")
    assert bodies == []
    assert post(app, Chunks(*megabyte), CHUNKED) == "200 OK"


def test_an_unread_body_is_drained_before_the_connection_closes(app: Flask) -> None:
    """A body that the view does not read is drained before the connection is closed."""
    stream = io.BytesIO(b"x" * 200_000)

    assert post(app, stream, sized(200_000), "/refused").startswith("401 ")
    assert stream.read() == b""


def test_an_unread_chunked_body_is_drained_too(app: Flask) -> None:
    """A chunked body that the view does not read is drained, too."""
    chunks = Chunks(*[b"x" * 1000] * 2000)

    assert post(app, chunks, CHUNKED, "/refused").startswith("401 ")
    assert chunks.parts == []


def test_a_body_far_too_long_is_refused_unread(app: Flask) -> None:
    """A far too long body is rejected with 413 without being read."""
    length = 100 * 1024 * 1024
    stream = io.BytesIO(b"x" * 1000)

    assert post(app, stream, sized(length)).startswith("413 ")
    assert stream.tell() == 0


def test_an_unread_truncated_body_changes_no_response(app: Flask) -> None:
    """A truncated body that the view does not read does not change the response."""
    assert post(app, io.BytesIO(b"x"), sized(400), "/refused").startswith("401 ")
    assert post(app, Chunks(error=OSError()), CHUNKED, "/refused").startswith("401 ")


def test_a_view_may_read_the_body_while_its_answer_is_sent(app: Flask) -> None:
    """A view may read the body while its response is sent."""
    assert app.test_client().post("/echo", data=b"x" * 10_000).data == b"x" * 10_000


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="not set")


def call(wsgi_app: Callable[..., Iterable[bytes]], path: str = "/") -> Iterable[bytes]:
    """Call an application without reading its response."""
    return wsgi_app(EnvironBuilder(path).get_environ(), lambda status, headers, exc_info=None: None)


def test_a_variable_set_by_a_request_is_not_seen_outside_of_it() -> None:
    """A context variable set by a request is not visible outside of it."""

    def set_it(environ: object, start_response: object) -> Iterator[bytes]:
        seen = variable.get()
        variable.set("set by the view")
        yield seen.encode()
        yield variable.get().encode()

    app = OwnContext(set_it)

    assert [list(call(app)) for _ in range(2)] == [[b"not set", b"set by the view"]] * 2
    assert variable.get() == "not set"


def test_a_variable_that_a_server_set_is_not_seen_by_a_request() -> None:
    """A context variable set by the server is not visible to requests."""
    token = variable.set("set by the server")
    app = OwnContext(lambda environ, start_response: [variable.get().encode()])

    assert list(call(app)) == [b"not set"]
    variable.reset(token)


def test_an_outer_context_is_not_seen_by_the_request(app: Flask) -> None:
    """An application context pushed around a call is not visible to the request."""
    with app.app_context():
        g.left = db.session().info["left"] = True

        assert app.test_client().get("/left").json == {"g": False, "session": False}


def in_use(app: Flask) -> int:
    (engine,) = engines_of(app)
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedout()


def test_a_stream_that_is_read_and_closed_leaves_nothing(app: Flask) -> None:
    """A stream that is read to its end and closed leaves no context and no connection."""
    assert app.test_client().get("/stream").text == "707172"

    assert not has_app_context()
    assert in_use(app) == 0


def test_a_stream_is_read_in_the_context_of_its_request(app: Flask) -> None:
    """A stream is read in the context of its request, which the caller does not see."""
    body = call(app, "/stream")
    parts = iter(body)

    assert next(parts) == b"70"
    assert not has_app_context()
    assert next(parts) == b"71"

    body.close()  # type: ignore[attr-defined]
    assert in_use(app) == 0


def test_a_stream_that_is_never_closed_leaves_nothing(app: Flask) -> None:
    """An unclosed stream leaves no context, session or connection after it is garbage-collected."""
    body = call(app, "/stream")
    assert next(iter(body)) == b"70"
    assert in_use(app) == 1

    del body
    gc.collect()

    assert not has_app_context()
    assert in_use(app) == 0
    assert not db.session.registry.registry


class Body:
    """A response that records each close and its context."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"one"])

    def close(self) -> None:
        self.closed.append(variable.get())


@pytest.fixture
def body() -> Body:
    return Body()


def answer_with(body: Body) -> OwnContext:
    def answer(environ: object, start_response: object) -> Body:
        variable.set("of the request")
        return body

    return OwnContext(answer)


def test_a_response_is_closed_once_in_the_context_of_its_request(body: Body) -> None:
    """A response is closed exactly once, in the context of its request."""
    response = call(answer_with(body))
    assert list(response) == [b"one"]

    response.close()  # type: ignore[attr-defined]
    response.close()  # type: ignore[attr-defined]
    del response
    gc.collect()

    assert body.closed == ["of the request"]


def test_an_unclosed_response_is_closed_when_it_is_collected(body: Body) -> None:
    """A response that the server never closes is closed when it is garbage-collected."""
    response = call(answer_with(body))

    del response
    gc.collect()

    assert body.closed == ["of the request"]


def test_a_closed_response_has_no_more_parts(body: Body) -> None:
    """A closed response yields no more parts."""
    response = call(answer_with(body))

    response.close()  # type: ignore[attr-defined]

    assert list(response) == []


def test_an_error_while_streaming_reaches_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error while streaming reaches the server, and the log names its request."""

    def fail(environ: object, start_response: object) -> Iterator[bytes]:
        yield b"one"
        raise LookupError

    response = iter(call(OwnContext(fail), "/long"))

    assert next(response) == b"one"
    with pytest.raises(LookupError):
        next(response)
    assert "GET /long is broken off: LookupError()" in caplog.text


def test_an_error_after_the_last_part_reaches_the_server() -> None:
    """An error found after the last part reaches the server."""

    def finish(environ: object, start_response: object) -> Iterator[bytes]:
        yield b"one"
        break_off(LookupError())

    app = OwnContext(finish)

    for _ in range(2):
        response = iter(call(app))
        assert next(response) == b"one"
        with pytest.raises(LookupError):
            next(response)
