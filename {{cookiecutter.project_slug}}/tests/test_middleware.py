"""Bodies that are whole, and requests that share nothing."""

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

from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.db import db, engines_of
from {{cookiecutter.package_name}}.middleware import OwnContext, break_off

from .conftest import make_settings
from .databases import Databases


@pytest.fixture(scope="module")
def app(own_databases: Databases) -> Iterator[Flask]:
    """The service, with a view that keeps bodies and one that streams."""
    app = create_app(make_settings(own_databases.migrated()))
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
    """What the view has kept."""
    kept: list[bytes] = app.extensions["bodies"]
    kept.clear()
    return kept


def sized(length: int, *, terminated: bool = True) -> dict[str, object]:
    """Return what a server says of a body whose length the client has announced."""
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
    status = post(app, io.BytesIO(sent), sized(400, terminated=terminated))

    assert status.startswith("400 ")
    assert bodies == []


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("size", [0, 1, 400, 200_000])
def test_a_whole_body_arrives(app: Flask, bodies: list[bytes], size: int, terminated: bool) -> None:
    body = b"x" * size

    status = post(app, io.BytesIO(body), sized(size, terminated=terminated))

    assert status == "200 OK"
    assert bodies == [body]


def test_what_follows_a_body_is_not_read(app: Flask, bodies: list[bytes]) -> None:
    stream = io.BytesIO(b"bodyGET / HTTP/1.1")

    assert post(app, stream, sized(4)) == "200 OK"
    assert bodies == [b"body"]
    assert stream.read() == b"GET / HTTP/1.1"


class Chunks:
    """A chunked body as a server decodes it: parts, and then perhaps an error instead of the end."""

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
    assert post(app, Chunks(*parts), CHUNKED) == "200 OK"
    assert bodies == [b"".join(parts)]


@pytest.mark.parametrize("error", [ConnectionResetError(), OSError("no more data"), ValueError("bad size")])
@pytest.mark.parametrize("parts", [(), (b"one", b"two")])
def test_a_chunked_body_that_breaks_off_is_refused(
    app: Flask, bodies: list[bytes], parts: tuple[bytes, ...], error: Exception
) -> None:
    assert post(app, Chunks(*parts, error=error), CHUNKED).startswith("400 ")
    assert bodies == []


def test_a_chunked_body_of_more_than_a_megabyte_is_refused(app: Flask, bodies: list[bytes]) -> None:
    megabyte = [b"x" * 1024] * 1024

    assert post(app, Chunks(*megabyte, b"x"), CHUNKED).startswith("413 ")
    assert bodies == []
    assert post(app, Chunks(*megabyte), CHUNKED) == "200 OK"


def test_a_body_that_nobody_wanted_is_read_before_the_connection_is_closed(app: Flask) -> None:
    stream = io.BytesIO(b"x" * 200_000)

    assert post(app, stream, sized(200_000), "/refused").startswith("401 ")
    assert stream.read() == b""


def test_a_chunked_body_that_nobody_wanted_is_read_too(app: Flask) -> None:
    chunks = Chunks(*[b"x" * 1000] * 2000)

    assert post(app, chunks, CHUNKED, "/refused").startswith("401 ")
    assert chunks.parts == []


def test_a_body_that_is_far_too_long_is_not_read_for_a_refusal(app: Flask) -> None:
    length = 100 * 1024 * 1024
    stream = io.BytesIO(b"x" * 1000)

    assert post(app, stream, sized(length)).startswith("413 ")
    assert stream.tell() == 0


def test_a_body_cut_short_that_nobody_wanted_changes_no_answer(app: Flask) -> None:
    assert post(app, io.BytesIO(b"x"), sized(400), "/refused").startswith("401 ")
    assert post(app, Chunks(error=OSError()), CHUNKED, "/refused").startswith("401 ")


def test_a_view_may_read_the_body_while_its_answer_is_sent(app: Flask) -> None:
    assert app.test_client().post("/echo", data=b"x" * 10_000).data == b"x" * 10_000


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="not set")


def call(wsgi_app: Callable[..., Iterable[bytes]], path: str = "/") -> Iterable[bytes]:
    """Call an application and do not read what it answers."""
    return wsgi_app(EnvironBuilder(path).get_environ(), lambda status, headers, exc_info=None: None)


def test_a_variable_that_a_request_sets_is_not_seen_outside_of_it() -> None:
    def set_it(environ: object, start_response: object) -> Iterator[bytes]:
        seen = variable.get()
        variable.set("set by the view")
        yield seen.encode()
        yield variable.get().encode()

    app = OwnContext(set_it)

    assert [list(call(app)) for _ in range(2)] == [[b"not set", b"set by the view"]] * 2
    assert variable.get() == "not set"


def test_a_variable_that_a_server_set_is_not_seen_by_a_request() -> None:
    token = variable.set("set by the server")
    app = OwnContext(lambda environ, start_response: [variable.get().encode()])

    assert list(call(app)) == [b"not set"]
    variable.reset(token)


def test_a_context_pushed_around_a_call_is_not_seen_by_the_request(app: Flask) -> None:
    with app.app_context():
        g.left = db.session().info["left"] = True

        assert app.test_client().get("/left").json == {"g": False, "session": False}


def in_use(app: Flask) -> int:
    (engine,) = engines_of(app)
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedout()


def test_a_stream_that_is_read_to_its_end_and_closed_leaves_nothing(app: Flask) -> None:
    assert app.test_client().get("/stream").text == "707172"

    assert not has_app_context()
    assert in_use(app) == 0


def test_a_stream_is_read_in_the_context_of_its_request(app: Flask) -> None:
    body = call(app, "/stream")
    parts = iter(body)

    assert next(parts) == b"70"
    assert not has_app_context()
    assert next(parts) == b"71"

    body.close()  # type: ignore[attr-defined]
    assert in_use(app) == 0


def test_a_stream_that_is_never_closed_leaves_no_context_and_no_connection(app: Flask) -> None:
    body = call(app, "/stream")
    assert next(iter(body)) == b"70"
    assert in_use(app) == 1

    del body
    gc.collect()

    assert not has_app_context()
    assert in_use(app) == 0
    assert not db.session.registry.registry


class Body:
    """A response that counts how often it is closed, and in which context."""

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
    response = call(answer_with(body))
    assert list(response) == [b"one"]

    response.close()  # type: ignore[attr-defined]
    response.close()  # type: ignore[attr-defined]
    del response
    gc.collect()

    assert body.closed == ["of the request"]


def test_a_response_that_nobody_closes_is_closed_when_it_is_forgotten(body: Body) -> None:
    response = call(answer_with(body))

    del response
    gc.collect()

    assert body.closed == ["of the request"]


def test_a_closed_response_has_no_more_parts(body: Body) -> None:
    response = call(answer_with(body))

    response.close()  # type: ignore[attr-defined]

    assert list(response) == []


def test_an_error_while_streaming_reaches_the_server_and_names_its_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(environ: object, start_response: object) -> Iterator[bytes]:
        yield b"one"
        raise LookupError

    response = iter(call(OwnContext(fail), "/long"))

    assert next(response) == b"one"
    with pytest.raises(LookupError):
        next(response)
    assert "GET /long is broken off: LookupError()" in caplog.text


def test_an_error_found_behind_the_last_part_reaches_the_server() -> None:
    def finish(environ: object, start_response: object) -> Iterator[bytes]:
        yield b"one"
        break_off(LookupError())

    app = OwnContext(finish)

    for _ in range(2):
        response = iter(call(app))
        assert next(response) == b"one"
        with pytest.raises(LookupError):
            next(response)
