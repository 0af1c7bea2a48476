"""The application factory, the guards around hooks, and the isolation of services, requests and sessions."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, after_this_request, session, stream_with_context
from sqlalchemy import QueuePool, inspect, text
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.foundation import application, configuration
from {{cookiecutter.package_name}}.foundation.configuration import ConfigurationError
from {{cookiecutter.package_name}}.foundation.database import (
    commit_guard,
    db,
    fork_safety,
    transaction,
)
from {{cookiecutter.package_name}}.foundation.database.session import engines_of

from .databases import Databases
from .fixtures import SECRET, make_settings
from .sample import samples
from .sample.app import create_app
from .servers import MODULE, Project


@pytest.fixture(scope="module")
def urls(own_databases: Databases) -> list[str]:
    """Two databases that the tests of this module share."""
    return [own_databases.sampled() for _ in range(2)]


@pytest.fixture
def two_apps(urls: list[str]) -> Iterator[tuple[Flask, Flask]]:
    """Two services in one process, each on its own database."""
    first, second = (create_app(make_settings(url)) for url in urls)
    yield first, second
    for engine in [*engines_of(first), *engines_of(second)]:
        engine.dispose()


@pytest.fixture
def own_app(two_apps: tuple[Flask, Flask]) -> Flask:
    """A service to which a test may add views."""
    return two_apps[0]


def test_the_factory_opens_no_connection_and_starts_no_thread(urls: list[str]) -> None:
    """The factory opens no connections and starts no threads."""
    threads = threading.active_count()

    app = create_app(make_settings(urls[0]))

    pools = [engine.pool for engine in engines_of(app)]
    assert pools
    assert all(isinstance(p, QueuePool) and p.checkedin() + p.checkedout() == 0 for p in pools)
    assert threading.active_count() == threads


def test_objects_loaded_at_startup_are_frozen(urls: list[str], tmp_path: Path) -> None:
    """Garbage collection skips objects loaded at startup, and stays enabled for others."""
    code = f"import gc, {MODULE}.wsgi; print(gc.isenabled(), gc.get_freeze_count() > len(gc.get_objects()))"
    source = Project(tmp_path / "project").folder / "src"
    given = {"DATABASE_URL": urls[0], "SECRET_KEY": SECRET, "PYTHONPATH": str(source)}

    loaded = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | given, capture_output=True, text=True, check=True
    )

    assert loaded.stdout == "True True\n"


def test_the_factory_without_settings_reads_the_environment(
    monkeypatch: pytest.MonkeyPatch, urls: list[str]
) -> None:
    """Without settings the factory reads the environment."""
    configuration._load.cache_clear()
    monkeypatch.setenv("SECRET_KEY", SECRET)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="DATABASE_URL is missing"):
        create_app()

    monkeypatch.setenv("DATABASE_URL", urls[0])
    app = create_app()
    configuration._load.cache_clear()

    assert app.config["SQLALCHEMY_DATABASE_URI"] == urls[0]
    assert app.config["SECRET_KEY"] == SECRET


FEATURES = {
    "good": "from flask import Blueprint\nbp = Blueprint('good', __name__)\n",
    "empty": "",
    "broken": "import no_such_module\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a package of features, one good, one without a blueprint, one whose import fails."""
    for name, content in FEATURES.items():
        (tmp_path / "featured" / name).mkdir(parents=True)
        (tmp_path / "featured" / name / "views.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    yield "featured"
    for name in [name for name in sys.modules if name.partition(".")[0] == "featured"]:
        del sys.modules[name]


def test_features_are_loaded_by_name(package: str) -> None:
    """A feature is the blueprint `bp` in the module `views` of its folder."""
    assert [bp.name for bp in application.load_features(package, ["good"])] == ["good"]
    assert application.load_features(package, []) == []


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_feature_without_a_blueprint_is_an_error(package: str, name: str) -> None:
    """A name without a folder or without `bp` raises an error that names the module and the list."""
    with pytest.raises(RuntimeError, match=rf"featured\.{name}\.views does not define `bp`: .* FEATURES"):
        application.load_features(package, ["good", name])


def test_the_failing_import_of_a_feature_is_raised(package: str) -> None:
    """An import error inside a feature is raised unchanged."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        application.load_features(package, ["broken"])


def test_session_cookies_are_neither_read_nor_written(own_app: Flask) -> None:
    """No session cookie is read or written, and a write to the session raises an error with the reason."""

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
    """Two services in one process each keep their own sessions and data."""
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
    """A request gets neither the session nor the uncommitted work of an earlier one."""
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
    """After a request its session is gone, and its connection is back in the pool."""
    assert own_app.test_client().get("/readyz").status_code == 200

    (engine,) = engines_of(own_app)
    assert isinstance(engine.pool, QueuePool)
    assert (engine.pool.checkedout(), engine.pool.checkedin()) == (0, 1)
    assert not db.session.registry.registry


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json", "/docs"])
def test_probes_and_documents_are_served(own_app: Flask, path: str) -> None:
    """The factory's application serves the probes, the OpenAPI document and its page."""
    assert own_app.test_client().get(path).status_code == 200


Note = Callable[[str], Callable[..., Any]]


@pytest.fixture
def noted() -> list[str]:
    """The names of guards and hooks, in the order in which they ran."""
    return []


@pytest.fixture
def note(noted: list[str]) -> Note:
    """Create a hook that records its name and returns its argument, such as a response."""

    def note(name: str) -> Callable[..., Any]:
        def hook(*args: Any) -> Any:
            noted.append(name)
            return args[0] if args else None

        return hook

    return note


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch, noted: list[str]) -> None:
    """Record each call of a guard, which still does its work."""

    def watch(module: Any, name: str) -> None:
        guard = getattr(module, name)

        def noting(*args: Any) -> None:
            noted.append(name)
            guard(*args)

        monkeypatch.setattr(module, name, noting)

    watch(fork_safety, "discard_inherited_connections")
    for name in ("roll_back", "fail_request", "check_response", "check_stream"):
        watch(commit_guard, name)
    watch(application, "end_session")


def add_hooks(app: Flask, note: Note) -> None:
    """Register hooks before and after all others, also in the lists that extensions use."""
    for functions, name in (
        (app.before_request_funcs, "before"),
        (app.after_request_funcs, "after"),
        (app.teardown_request_funcs, "teardown_request"),
    ):
        functions.setdefault(None, [])[:0] = [note(name)]
        functions[None].append(note(name))
    app.teardown_appcontext_funcs.insert(0, note("teardown_appcontext"))
    app.teardown_appcontext_funcs.append(note("teardown_appcontext"))
    app.register_error_handler(LookupError, lambda error: note("error_handler")(("no such thing", 404)))

    @app.get("/outcomes/<outcome>")
    def work(outcome: str) -> str:
        after_this_request(note("after"))
        note("view")()
        if outcome == "failure":
            raise LookupError
        return "done"


TEARDOWN = ["teardown_request"] * 2 + ["check_stream", "end_session"]
TEARDOWN += ["teardown_appcontext"] * 2 + ["end_session"]
ORDER = {
    "success": ["view", "after", "after", "after", "check_response", *TEARDOWN],
    "failure": [
        "view",
        *("roll_back", "error_handler"),
        *("fail_request", "roll_back", "after", "after", "after", "check_response"),
        *TEARDOWN,
    ],
}


@pytest.mark.usefixtures("guards")
@pytest.mark.parametrize("outcome", ORDER)
def test_guards_run_around_every_hook(own_app: Flask, outcome: str, note: Note, noted: list[str]) -> None:
    """Guards run before and after all hooks, wherever these are registered in Flask's lists."""
    add_hooks(own_app, note)
    noted.clear()

    own_app.test_client().get(f"/outcomes/{outcome}", buffered=True)

    assert noted == ["discard_inherited_connections", "before", "before", *ORDER[outcome]]


def refuse() -> str:
    samples.add_sample(db.session(), "refused")
    abort(404)


def fail() -> str:
    samples.add_sample(db.session(), "half done")
    raise LookupError


def forget() -> str:
    samples.add_sample(db.session(), "forgotten")
    return "done"


def stream() -> Response:
    def parts() -> Iterator[str]:
        with transaction() as session:
            samples.add_sample(session, "streamed")
        yield "done"

    return Response(stream_with_context(parts()))


# The view, its status, and the contexts that end: a stream has one more, which begins with its first part.
ENDINGS: dict[str, tuple[Callable[[], object], int, int]] = {
    "success": (lambda: samples.list_samples(), 200, 1),
    "refusal": (refuse, 404, 1),
    "bug": (fail, 500, 1),
    "forgotten commit": (forget, 500, 1),
    "stream": (stream, 200, 2),
}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of rollbacks and closes of a session."""
    counts: Counter[str] = Counter()

    def count(name: str) -> None:
        method = getattr(Session, name)

        def counting(session: Session) -> None:
            counts[name] += 1
            method(session)

        monkeypatch.setattr(Session, name, counting)

    count("rollback")
    count("close")
    return counts


@pytest.mark.usefixtures("guards")
@pytest.mark.parametrize(("view", "status", "contexts"), ENDINGS.values(), ids=ENDINGS)
def test_a_request_ends_its_session_at_most_twice(
    own_app: Flask, view: Any, status: int, contexts: int, noted: list[str], counts: Counter[str]
) -> None:
    """A request rolls back at most twice, and each of its contexts closes its session at most twice."""
    own_app.config["PROPAGATE_EXCEPTIONS"] = False
    own_app.add_url_rule("/view", view_func=view)
    noted.clear()

    assert own_app.test_client().get("/view", buffered=True).status_code == status

    assert noted.count("end_session") == 2 * contexts
    assert counts["close"] <= 2
    assert noted.count("roll_back") <= 2
    assert counts["rollback"] <= 2
