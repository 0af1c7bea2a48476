"""How the service is built, and that two of anything do not meet."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from flask import Flask, abort, session
from sqlalchemy import QueuePool, inspect, text
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}} import settings
from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.db import db, engines_of, transaction
from {{cookiecutter.package_name}}.settings import ConfigurationError

from .conftest import SECRET, make_settings
from .databases import PROJECT, Databases


@pytest.fixture(scope="module")
def urls(own_databases: Databases) -> list[str]:
    """Two databases that the tests of this module share."""
    return [own_databases.migrated() for _ in range(2)]


@pytest.fixture
def two_apps(urls: list[str]) -> Iterator[tuple[Flask, Flask]]:
    """Two services in one process, each on a database of its own."""
    first, second = (create_app(make_settings(url)) for url in urls)
    yield first, second
    for engine in [*engines_of(first), *engines_of(second)]:
        engine.dispose()


@pytest.fixture
def own_app(two_apps: tuple[Flask, Flask]) -> Flask:
    """A service to which a test may add views."""
    return two_apps[0]


def test_the_factory_opens_no_connection_and_starts_no_thread(urls: list[str]) -> None:
    threads = threading.active_count()

    app = create_app(make_settings(urls[0]))

    pools = [engine.pool for engine in engines_of(app)]
    assert pools
    assert all(isinstance(p, QueuePool) and p.checkedin() + p.checkedout() == 0 for p in pools)
    assert threading.active_count() == threads


def test_the_collector_leaves_alone_what_is_loaded_once_and_goes_on(urls: list[str]) -> None:
    code = "import gc, {{cookiecutter.package_name}}.wsgi;"
    code += " print(gc.isenabled(), gc.get_freeze_count() > len(gc.get_objects()))"
    given = {"DATABASE_URL": urls[0], "SECRET_KEY": SECRET, "PYTHONPATH": str(PROJECT / "src")}

    loaded = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | given, capture_output=True, text=True, check=True
    )

    assert loaded.stdout == "True True\n"


def test_the_factory_reads_the_environment_when_it_is_given_no_settings(
    monkeypatch: pytest.MonkeyPatch, urls: list[str]
) -> None:
    settings.load.cache_clear()
    monkeypatch.setenv("SECRET_KEY", SECRET)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="DATABASE_URL is missing"):
        create_app()

    monkeypatch.setenv("DATABASE_URL", urls[0])
    app = create_app()
    settings.load.cache_clear()

    assert app.config["SQLALCHEMY_DATABASE_URI"] == urls[0]
    assert app.config["SECRET_KEY"] == SECRET


def test_no_cookie_is_read_or_written_and_whoever_tries_is_told_what_to_do(own_app: Flask) -> None:
    @own_app.get("/visits")
    def visits() -> str:
        return str(session.get("visits", 0))

    @own_app.post("/visits")
    def visit() -> str:
        session["visits"] = 1
        return "counted"

    client = own_app.test_client()
    own_app.config["PROPAGATE_EXCEPTIONS"] = True

    answer = client.get("/visits", headers={"Cookie": "session=forged"})

    assert (answer.text, answer.headers.get("Set-Cookie"), answer.headers.get("Vary")) == ("0", None, None)
    with pytest.raises(RuntimeError, match="this service keeps no session cookies"):
        client.post("/visits")


def test_two_services_side_by_side_keep_their_own_data(two_apps: tuple[Flask, Flask]) -> None:
    first, second = two_apps

    with first.app_context(), transaction() as session:
        session.execute(text("CREATE TABLE mine (id INTEGER)"))
        with second.app_context():
            assert db.session() is not session

    with first.app_context():
        assert inspect(db.engine).has_table("mine")
    with second.app_context():
        assert not inspect(db.engine).has_table("mine")


def test_a_request_does_not_see_the_session_of_another_one(own_app: Flask) -> None:
    sessions: list[Session] = []

    @own_app.post("/refused")
    def refused() -> str:
        sessions.append(db.session())
        db.session.execute(text("CREATE TABLE half_done (id INTEGER)"))
        abort(409)

    client = own_app.test_client()

    assert [client.post("/refused").status_code for _ in range(2)] == [409, 409]
    assert sessions[0] is not sessions[1]


def test_no_session_is_left_when_a_request_has_ended(own_app: Flask) -> None:
    assert own_app.test_client().get("/readyz").status_code == 200

    (engine,) = engines_of(own_app)
    assert isinstance(engine.pool, QueuePool)
    assert (engine.pool.checkedout(), engine.pool.checkedin()) == (0, 1)
    assert not db.session.registry.registry


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json", "/docs"])
def test_probes_and_documents_are_served(own_app: Flask, path: str) -> None:
    assert own_app.test_client().get(path).status_code == 200
