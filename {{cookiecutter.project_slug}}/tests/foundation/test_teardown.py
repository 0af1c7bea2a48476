"""Every teardown function runs, even if another fails."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
from flask import Blueprint, Flask, appcontext_tearing_down, g, request_tearing_down
from sqlalchemy import QueuePool, text

from {{cookiecutter.package_name}}.foundation.database import db
from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.teardown import SafeTeardown

from .databases import Databases
from .fixtures import make_settings
from .sample.app import create_app


class Ran:
    """Teardown functions that record their names, in the order in which they run."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.errors: list[BaseException | None] = []

    def __call__(self, name: str, raises: BaseException | None = None) -> Callable[..., None]:
        def teardown(error: BaseException | None) -> None:
            self.names.append(name)
            self.errors.append(error)
            if raises:
                raise raises

        teardown.__qualname__ = name
        return teardown


@pytest.fixture
def ran() -> Ran:
    return Ran()


@pytest.fixture
def own_app() -> Flask:
    """An application for teardown functions only."""
    app = SafeTeardown("app")
    app.testing = True
    app.add_url_rule("/", view_func=lambda: "answered")
    app.add_url_rule("/fails", view_func=fail)
    return app


def fail() -> str:
    raise LookupError("of the view")


@pytest.fixture(scope="module")
def url(own_databases: Databases) -> str:
    """A database that the tests of this module share."""
    return own_databases.sampled()


@pytest.fixture
def service(url: str) -> Iterator[Flask]:
    """The complete service, with a view that uses the session and two failing teardown functions."""
    app = create_app(make_settings(url))
    app.teardown_appcontext(Ran()("first", LookupError("the first one")))
    app.teardown_request(Ran()("second", ValueError("the second one")))

    @app.get("/first-visit")
    def first_visit() -> dict[str, bool]:
        db.session.execute(text("SELECT 1"))
        return {"first": not g.setdefault("visits", [])}

    yield app
    for engine in engines_of(app):
        engine.dispose()


def test_two_failing_teardowns_are_logged_and_cost_no_response(
    service: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """Two failing teardowns are both logged, and the request still succeeds."""
    assert service.test_client().get("/first-visit").status_code == 200

    logged = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in logged] == [
        "the teardown second failed",
        "the teardown first failed",
    ]
    assert "Traceback" in caplog.text
    assert "ValueError: the second one" in caplog.text
    assert "LookupError: the first one" in caplog.text


def test_the_session_ends_after_failing_teardowns(service: Flask) -> None:
    """After failing teardown functions the session is closed and its connection returns to the pool."""
    (engine,) = engines_of(service)

    service.test_client().get("/first-visit")

    assert isinstance(engine.pool, QueuePool)
    assert (engine.pool.checkedout(), engine.pool.checkedin()) == (0, 1)
    assert not db.session.registry.registry


def test_the_request_after_failing_teardowns_has_a_new_context(service: Flask) -> None:
    """The request after failing teardowns has a new context."""
    client = service.test_client()

    assert [client.get("/first-visit").json for _ in range(3)] == [{"first": True}] * 3


def test_teardowns_run_in_reverse_order_despite_failures(own_app: Flask, ran: Ran) -> None:
    """Teardown functions run in reverse order of registration, whichever of them fail."""
    for number in range(4):
        own_app.teardown_request(ran(f"request {number}", LookupError() if number % 2 else None))
        own_app.teardown_appcontext(ran(f"context {number}", None if number % 2 else LookupError()))

    assert own_app.test_client().get("/").text == "answered"
    assert ran.names == [f"{kind} {number}" for kind in ("request", "context") for number in (3, 2, 1, 0)]


def test_teardowns_of_blueprints_run_first_for_their_requests(own_app: Flask, ran: Ran) -> None:
    """Blueprint teardown functions run first, and only for their own requests."""
    outer, inner = Blueprint("outer", __name__), Blueprint("inner", __name__)
    inner.add_url_rule("/inner", view_func=lambda: "answered")
    inner.teardown_request(ran("inner", LookupError()))
    outer.teardown_request(ran("outer", LookupError()))
    outer.register_blueprint(inner)
    own_app.teardown_request(ran("app"))
    own_app.register_blueprint(outer)
    client = own_app.test_client()

    client.get("/inner")
    assert ran.names == ["inner", "outer", "app"]
    client.get("/")
    assert ran.names[3:] == ["app"]


def test_a_teardown_that_an_extension_registers_late_is_safe_too(own_app: Flask, ran: Ran) -> None:
    """A teardown function that an extension registers late may also fail without harm."""
    own_app.teardown_appcontext(ran("early"))
    client = own_app.test_client()
    own_app.teardown_appcontext_funcs.append(ran("late", LookupError()))

    assert client.get("/").text == "answered"
    assert ran.names == ["late", "early"]


def test_coroutines_are_awaited_and_may_fail(
    own_app: Flask, ran: Ran, caplog: pytest.LogCaptureFixture
) -> None:
    """Teardowns that are coroutines are awaited, and their failures are logged."""
    own_app.teardown_appcontext(ran("last"))

    @own_app.teardown_appcontext
    async def clean_up(error: BaseException | None) -> None:
        await asyncio.sleep(0)
        ran("awaited", LookupError("of the coroutine"))(error)

    own_app.test_client().get("/")

    assert ran.names == ["awaited", "last"]
    assert "LookupError: of the coroutine" in caplog.text


def test_a_coroutine_that_cannot_be_awaited_stops_no_other(
    own_app: Flask, ran: Ran, caplog: pytest.LogCaptureFixture
) -> None:
    """A coroutine that cannot be awaited is logged and prevents no other teardown function."""

    def no_event_loop(func: object) -> Any:
        raise RuntimeError("Install Flask with the 'async' extra in order to use async views.")

    async def clean_up(error: BaseException | None) -> None:
        raise AssertionError

    own_app.async_to_sync = no_event_loop  # type: ignore[method-assign]
    own_app.teardown_appcontext(ran("last"))
    own_app.teardown_appcontext(clean_up)

    assert own_app.test_client().get("/").text == "answered"
    assert ran.names == ["last"]
    assert "clean_up failed" in caplog.text


def test_receivers_of_signals_run_although_others_fail(
    own_app: Flask, ran: Ran, caplog: pytest.LogCaptureFixture
) -> None:
    """Signal receivers run although other receivers and teardowns fail, and their failures are logged."""
    received: list[tuple[str, object, object]] = []

    def of_request(sender: Flask, **extra: object) -> None:
        received.append(("request", sender, extra["exc"]))
        raise LookupError("of the receiver")

    def of_context(sender: Flask, **extra: object) -> None:
        received.append(("context", sender, extra["exc"]))
        raise LookupError("of the receiver")

    own_app.teardown_request(ran("request", LookupError()))
    own_app.teardown_appcontext(ran("context", LookupError()))
    with (
        request_tearing_down.connected_to(of_request, own_app),
        appcontext_tearing_down.connected_to(of_context, own_app),
    ):
        assert own_app.test_client().get("/").text == "answered"

    assert received == [("request", own_app, None), ("context", own_app, None)]
    assert ran.names == ["request", "context"]
    assert caplog.text.count("LookupError: of the receiver") == 2


@pytest.mark.parametrize("fatal", [SystemExit, KeyboardInterrupt])
def test_an_exception_that_ends_the_process_is_raised_last(
    own_app: Flask, ran: Ran, fatal: type[BaseException]
) -> None:
    """An exception that ends the process is raised again after all teardown functions have run."""
    own_app.teardown_appcontext(ran("first"))
    own_app.teardown_appcontext(ran("second", LookupError()))
    own_app.teardown_appcontext(ran("third", fatal()))
    own_app.teardown_request(ran("request", fatal()))

    with pytest.raises(fatal):
        own_app.test_client().get("/")

    assert ran.names == ["request", "third", "second", "first"]


def test_a_teardown_is_given_the_error_of_the_view(own_app: Flask, ran: Ran) -> None:
    """A teardown function gets the view's error."""
    own_app.teardown_request(ran("request"))
    own_app.teardown_appcontext(ran("context"))

    with pytest.raises(LookupError, match="of the view") as raised:
        own_app.test_client().get("/fails")

    assert ran.errors == [raised.value, raised.value]


def test_a_teardown_is_never_given_an_old_error_of_the_server(own_app: Flask, ran: Ran) -> None:
    """A teardown function never gets an error that the server is handling."""
    own_app.teardown_request(ran("request"))
    own_app.teardown_appcontext(ran("context"))

    try:
        raise BlockingIOError
    except BlockingIOError:
        own_app.test_client().get("/")
        with own_app.app_context():
            pass
        with own_app.test_request_context():
            own_app.do_teardown_request()
        assert sys.exc_info()[0] is BlockingIOError

    assert ran.errors == [None] * 6


@pytest.mark.parametrize("calling", ["(exc)", "(ctx, exc)", "(exc=exc)", "(ctx, exc=exc)"])
@pytest.mark.parametrize("error", [None, LookupError()], ids=["no error", "error"])
def test_flask_may_pass_the_context_before_the_error(
    own_app: Flask, ran: Ran, calling: str, error: BaseException | None
) -> None:
    """Teardowns get their error even if Flask passes the context before it."""
    own_app.teardown_request(ran("request"))
    own_app.teardown_appcontext(ran("context"))

    with own_app.test_request_context() as context:
        named = {"exc": error} if "exc=" in calling else {}
        passed = ([context] if "ctx" in calling else []) + ([] if named else [error])
        own_app.do_teardown_request(*passed, **named)  # type: ignore[arg-type]
        own_app.do_teardown_appcontext(*passed, **named)  # type: ignore[arg-type]
        names, errors = list(ran.names), list(ran.errors)

    assert names == ["request", "context"]
    assert errors == [error, error]


def test_the_context_of_a_command_ends_as_safely(
    own_app: Flask, ran: Ran, caplog: pytest.LogCaptureFixture
) -> None:
    """A command's context runs every teardown, and a failing one does not change the exit code."""
    own_app.teardown_appcontext(ran("first"))
    own_app.teardown_appcontext(ran("second", LookupError("of the teardown")))
    own_app.cli.command("work")(lambda: click.echo("done"))

    result = own_app.test_cli_runner().invoke(args=["work"])

    assert (result.exit_code, result.output) == (0, "done\n")
    assert ran.names == ["second", "first"]
    assert "LookupError: of the teardown" in caplog.text
