"""What uwsgi.ini promises before any server starts; tests/servers/ starts it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import SECRET
from .databases import PROJECT
from .servers.harness import UWSGI, Project, Server, free_port

LINES = (PROJECT / "uwsgi.ini").read_text().splitlines()
OPTIONS = dict(re.split(r"\s*=\s*", line, maxsplit=1) for line in LINES if re.match(r"[a-z]", line))


@pytest.mark.parametrize(
    ("option", "harm"),
    [
        ("die-on-term", "drops the requests in flight"),
        ("py-call-osafterfork", "ends every worker on Python 3.13"),
        ("reload-on-exception", "ends the other threads' requests, and leaves their locks held"),
        ("thunder-lock", "keeps the threads of an idle worker from ending when it is replaced"),
        ("http11-socket", "ignores Connection: close"),
        ("post-buffering", "puts a body into a file, however long it is, before the service can refuse it"),
    ],
)
def test_no_option_is_used_that_does_harm(option: str, harm: str) -> None:
    assert option not in OPTIONS, harm


def test_a_stop_fits_into_the_deadline_of_supervisors() -> None:
    assert int(OPTIONS["worker-reload-mercy"]) < 30


def test_a_misspelt_option_keeps_the_server_from_starting(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.append("uwsgi.ini", "harakir = 60\n")

    server = Server(project, UWSGI, {"DATABASE_URL": "sqlite:///notes.db", "SECRET_KEY": SECRET})

    try:
        assert server.wait() == 1
        assert "unknown config directive: harakir" in server.log
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ({}, "lets clients reach uWSGI, which takes malformed requests"),
        ({"WEB_PROTOCOL": "uwsgi"}, "lets others than this machine speak the uwsgi protocol"),
    ],
    ids=["http", "uwsgi"],
)
def test_clients_cannot_reach_it_without_a_proxy(
    protocol: dict[str, str], reason: str, tmp_path: Path
) -> None:
    settings = {
        "DATABASE_URL": "sqlite:///notes.db",
        "SECRET_KEY": SECRET,
        "WEB_BIND": f"0.0.0.0:{free_port()}",
    }

    server = Server(Project(tmp_path / "project"), UWSGI, settings | protocol)

    try:
        assert server.wait() == 78
        assert server.log.count("configuration error: ") == 1
        assert reason in server.log
    finally:
        server.kill()
