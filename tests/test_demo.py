"""`bin/demo`, the first command of the README."""

from __future__ import annotations

import re
import shlex
import signal
import socket
from pathlib import Path

import pytest

from .conftest import copy_of_template, run
from .serving import Serving, ask, serving

MINUTES = 10  # for two environments to be made
# Settings of something else, which a shell may hold: the demonstration is not to use them.
FOREIGN = {
    "DATABASE_URL": "postgresql://somebody@127.0.0.1:9/else",
    "APP_ENV": "production",
    "SERVER": "uwsgi",
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template that nothing was run in."""
    return copy_of_template(tmp_path_factory.mktemp("clone"))


def printed_requests(server: Serving) -> list[list[str]]:
    """Return the arguments of each curl that was printed."""
    lines = re.findall(r"^  curl (.*)", server.log.read_text(), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def send(url: str, *options: str) -> tuple[int, object]:
    """Do what curl does with these arguments."""
    given = dict(zip(options[::2], options[1::2], strict=True))
    headers = dict([given["-H"].split(": ")]) if "-H" in given else {}
    return ask(url, given.get("-d"), headers)


def test_the_demo_answers_what_it_prints_and_ctrl_c_ends_it(clone: Path, tmp_path: Path) -> None:
    with serving("bin/demo", cwd=clone, log=tmp_path / "log", env=FOREIGN) as server:
        server.wait_until_it_answers(60 * MINUTES)
        assert server.url in server.log.read_text()

        create, collect, read = (send(*arguments) for arguments in printed_requests(server))
        # A terminal sends it to everybody in the group.
        status = server.end(signal.SIGINT, everybody=True)

        assert status == 0, server.log.read_text()
        assert not server.is_anybody_left()
    assert create[0] == 201
    assert collect[0] == read[0] == 200
    assert create[1] == read[1]
    assert "Traceback" not in server.log.read_text()


def test_the_second_time_only_the_project_is_new(clone: Path, tmp_path: Path) -> None:
    kept = clone / ".demo" / "notes-service" / ".venv" / "kept"
    kept.touch()
    changed = clone / ".demo" / "notes-service" / "README.md"
    changed.write_text("changed")

    with serving("bin/demo", cwd=clone, log=tmp_path / "log") as server:
        server.wait_until_it_answers(60 * MINUTES)
        assert kept.exists()
        assert changed.read_text() != "changed"
        assert (clone / ".demo" / "before" / "README.md").read_text() == "changed"
        assert "making" not in server.log.read_text()

        # SIGTERM to the one process that was started is enough.
        status = server.end(signal.SIGTERM)

        assert status == 0, server.log.read_text()
        assert not server.is_anybody_left()


def test_a_port_that_is_taken_is_one_line(clone: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("bin/demo", cwd=clone, status=1, timeout=60 * MINUTES, env={"WEB_BIND": bind})

    assert re.fullmatch(rf"demo: {bind} cannot be served on: .*\n", done.stderr)
