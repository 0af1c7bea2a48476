"""The server of `make dev`: reloads, error pages and rejected settings."""

from __future__ import annotations

import http.client
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ..fixtures import SECRET
from ..processes import free_port, run
from ..servers import MODULE, PACKAGE, PATIENCE, Kind, Project, Server, wait_until

RELOADER = ("python", "-m", f"{MODULE}.foundation.serving.reloader")
APP = f"{PACKAGE}/app.py"
FEATURE = '''"""A new feature."""

from flask import Blueprint

bp = Blueprint("orders", __name__)


@bp.get("/orders")
def orders() -> str:
    """Return no orders."""
    return "no orders"
'''

Dev = Callable[..., Server]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project with views that raise."""
    project = Project(tmp_path / "project")
    project.provoke("raising_views")
    return project


@pytest.fixture
def dev(project: Project, database_url: str) -> Iterator[Dev]:
    """Start the server like `make dev`, with the settings of .env and the environment."""
    started: list[Server] = []
    (project.folder / ".env").write_text(
        f"APP_ENV=development\nDATABASE_URL={database_url}\nSECRET_KEY='{SECRET}'\n"
    )

    def start(*arguments: str, **settings: str) -> Server:
        kind = Kind("dev", (*RELOADER, *arguments), {}, "werkzeug")
        started.append(Server(project, kind, settings))
        started[-1].wait_until_ready()
        return started[-1]

    yield start
    for server in started:
        server.kill()


def answer(server: Server, path: str, status: int) -> str:
    """Return the body of a path once it returns this status; a reload aborts other responses."""

    def body() -> bytes | None:
        with suppress(OSError, http.client.HTTPException):
            found = server.get(path)
            return found.body if found.status == status else None
        return None

    found: bytes = wait_until(body, f"{path} answers {status}")
    return found.decode()


def test_a_new_feature_is_served_without_a_restart(dev: Dev, project: Project) -> None:
    """A feature is served once its files exist, even if app.py listed it before."""
    server = dev()
    assert server.get("/orders").status == 404

    project.replace(APP, "from . import samples\n", "from . import orders, samples\n")
    project.replace(APP, "features=[samples.bp]", "features=[samples.bp, orders.bp]")
    assert "cannot import name 'orders'" in answer(server, "/orders", 500)
    feature = project.folder / PACKAGE / "orders"
    feature.mkdir()
    (feature / "__init__.py").write_text(FEATURE)

    assert answer(server, "/orders", 200) == "no orders"


def test_the_server_survives_a_syntax_error(dev: Dev, project: Project) -> None:
    """A syntax error is shown in the terminal and the browser, and the corrected code is served."""
    server = dev()

    project.append(APP, "\n)\n")
    page = answer(server, "/livez", 500)
    project.replace(APP, "\n)\n", "\n")
    answer(server, "/livez", 200)

    assert "SyntaxError: unmatched ')'" in page
    assert server.log.count("SyntaxError: unmatched ')'") == 1
    assert server.process.poll() is None


def test_a_change_of_the_settings_file_is_read(dev: Dev, project: Project) -> None:
    """A change of .env is read, and an invalid one stops the service until it is corrected."""
    server = dev()
    project.replace(".env", "APP_ENV=development", "APP_ENV=developing")
    server.wait_for_log("configuration error: APP_ENV should be")
    project.replace(".env", "APP_ENV=developing", "APP_ENV=development\nTRUSTED_HOSTS=example.com")

    answer(server, "/samples", 400)


def test_the_debugger_shows_an_exception(dev: Dev) -> None:
    """An exception appears in the debugger and once in the log, and a request is one plain line."""
    server = dev()

    page = server.get("/raise")
    server.get("/samples")
    wait_until(lambda: "GET /samples" in server.log, "the log has the last request")

    assert page.status == 500
    assert b"EVALEX = true" in page.body
    assert b"a bug in a view" in page.body
    assert server.log.count("RuntimeError: a bug in a view") == 1
    for line in ("GET /raise 500", "GET /samples 200"):
        assert len(re.findall(rf"^\d\d:\d\d:\d\d {line} [\d.]+ ms", server.log, re.MULTILINE)) == 1
        assert server.log.count(line.rpartition(" ")[0]) == 1
    assert "\x1b" not in server.log
    assert "\\x1b" not in server.log


def test_statements_are_logged_on_demand(dev: Dev) -> None:
    """With --sql each statement is one line with its parameters, and none without."""
    quiet, server = dev(), dev("--sql", LOG_LEVEL="warning")
    for each in (quiet, server):
        assert each.post("/samples", {"text": "buy milk " * 100}).status == 201

    server.wait_for_log("INSERT")
    (line,) = [line for line in server.log.splitlines() if "INSERT" in line]
    assert re.search(r"INFO sql: INSERT INTO foundation_samples \(text, .*'buy milk .*\.\.\.", line)
    assert len(line) < 700
    assert "INSERT" not in quiet.log


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"APP_ENV": "production"}, r"APP_ENV is production, and `make dev` would expose the debugger: .*"),
        ({"WEB_BIND": "0.0.0.0:1"}, r"WEB_BIND is 0\.0\.0\.0:1, .*"),
        ({"WEB_BIND": ":1"}, r"WEB_BIND is :1, .*"),
        ({"WEB_BIND": "unix:/tmp/socket"}, r"WEB_BIND=unix:/tmp/socket is no host:port, .*"),
        ({"SECRET_KEY": "short"}, r"SECRET_KEY is shorter than .*"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_an_unsafe_setting_ends_it(
    project: Project, database_url: str, settings: dict[str, str], message: str
) -> None:
    """With production settings or a public address it exits with one line and 78."""
    required = {"DATABASE_URL": database_url, "SECRET_KEY": "y5Fh2Kq8Zt1Lw9Xc4Vb7Nm3Qs6Rd0Gj-Pu_EaTo"}
    safe = {"APP_ENV": "development", "WEB_BIND": f"127.0.0.1:{free_port()}", "PYTHONPATH": "src"}
    python = str(project.folder / ".venv" / "bin" / "python")

    env = required | safe | settings
    done = run(python, *RELOADER[1:], cwd=project.folder, status=78, timeout=PATIENCE, env=env)

    *progress, line = done.stderr.splitlines()
    assert re.fullmatch(f"configuration error: {message}", line)
    assert len(progress) <= 1


def test_production_never_gets_the_debugger(dev: Dev, project: Project) -> None:
    """A running server whose .env switches to production serves nothing until that is undone."""
    server = dev()
    project.replace(".env", "APP_ENV=development", "APP_ENV=production")
    server.wait_for_log("APP_ENV is production")
    server.wait_for_log("the service ended with 78")

    assert server.processes() == [server.process.pid]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
def test_it_ends_with_all_its_processes(dev: Dev, number: signal.Signals) -> None:
    """On Ctrl-C and SIGTERM it exits with 0, without a traceback or a remaining process."""
    server = dev()
    (server.signal_all if number is signal.SIGINT else server.signal)(number)

    assert server.wait() == (-number if number is signal.SIGKILL else 0)
    wait_until(lambda: not server.is_running(), "no process is left")
    assert "Traceback" not in server.log


def test_a_taken_port_is_one_line(project: Project) -> None:
    """If the port is in use, it exits with one line."""
    python = str(project.folder / ".venv" / "bin" / "python")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        environment = {"WEB_BIND": bind, "PYTHONPATH": "src"}
        done = run(python, *RELOADER[1:], cwd=project.folder, status=1, env=environment)

    assert done.stderr == f"cannot listen at {bind}: Address already in use\n"
