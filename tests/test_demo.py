"""`bin/demo`, the first command of the README."""

from __future__ import annotations

import re
import shlex
import signal
import socket
from pathlib import Path

import pytest

from .conftest import copy_of_template
from .processes import Answer, WebServer, run, serve

MINUTES = 10  # for two environments to be made
# Settings of another program, which a shell may have: the demo must ignore them.
FOREIGN = {
    "DATABASE_URL": "postgresql://somebody@127.0.0.1:9/else",
    "APP_ENV": "production",
    "SERVER": "uwsgi",
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template in which no command has been run."""
    return copy_of_template(tmp_path_factory.mktemp("clone"))


def printed_requests(server: WebServer) -> list[list[str]]:
    """Return the arguments of each curl that was printed."""
    lines = re.findall(r"^  curl (.*)", server.log, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def send(server: WebServer, url: str, *options: str) -> Answer:
    """Send the request that curl would send with these arguments."""
    assert url.startswith(f"http://127.0.0.1:{server.port}/")
    path = "/" + url.split("/", maxsplit=3)[3]
    given = dict(zip(options[::2], options[1::2], strict=True))
    headers = dict([given["-H"].split(": ")]) if "-H" in given else {}
    return server.send("POST" if "-d" in given else "GET", path, given.get("-d"), headers)


def test_the_demo_answers_what_it_prints_and_ctrl_c_ends_it(clone: Path, tmp_path: Path) -> None:
    """The demo answers the requests that it prints, and on Ctrl-C exits with 0 and leaves no process."""
    with serve("bin/demo", cwd=clone, log=tmp_path / "log", env=FOREIGN) as server:
        server.wait_until_ready(60 * MINUTES)
        assert f"http://127.0.0.1:{server.port}" in server.log

        create, collect, read = (send(server, *arguments) for arguments in printed_requests(server))
        # A terminal sends it to every process of the group.
        server.signal_all(signal.SIGINT)

        assert server.wait() == 0, server.log
        assert not server.is_running()
    assert create.status == 201
    assert collect.status == read.status == 200
    assert create.json == read.json
    assert "Traceback" not in server.log
    assert re.findall(r"^demo: (\d of \d), ", server.log, re.MULTILINE) == ["1 of 3", "2 of 3", "3 of 3"]


def test_the_second_time_only_the_project_is_new(clone: Path, tmp_path: Path) -> None:
    """A second demo generates the project again, keeps its environment and backs up the old project."""
    kept = clone / ".demo" / "notes-service" / ".venv" / "kept"
    kept.touch()
    changed = clone / ".demo" / "notes-service" / "README.md"
    changed.write_text("changed")

    with serve("bin/demo", cwd=clone, log=tmp_path / "log") as server:
        server.wait_until_ready(60 * MINUTES)
        assert kept.exists()
        assert changed.read_text() != "changed"
        assert (clone / ".demo" / "before" / "README.md").read_text() == "changed"
        assert "making" not in server.log

        # SIGTERM to the one process that was started is enough.
        server.signal(signal.SIGTERM)

        assert server.wait() == 0, server.log
        assert not server.is_running()


def test_the_demo_installs_no_tools_and_they_are_added(clone: Path) -> None:
    """The demo installs only what it needs; a later `make test` adds the tools in place."""
    project = clone / ".demo" / "notes-service"
    assert [(each / ".venv" / "bin" / "pytest").exists() for each in (clone, project)] == [False, False]

    done = run("make", "install", cwd=project, timeout=60 * MINUTES)

    assert done.stderr.startswith("install: bringing .venv up to date\n")
    assert (project / ".venv" / "kept").exists()
    run(".venv/bin/pytest", "--version", cwd=project)


def test_a_port_that_is_taken_is_one_line(clone: Path) -> None:
    """If the port is in use, the demo exits with one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("bin/demo", cwd=clone, status=1, timeout=60 * MINUTES, env={"WEB_BIND": bind})

    progress, line = done.stderr.splitlines()
    assert progress == "demo: 1 of 3, installing cookiecutter"
    assert line.startswith(f"demo: {bind} cannot be served on: ")
