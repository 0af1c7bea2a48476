"""A service that cannot start exits once, with an exit code that names the cause.

By default a server restarts its workers endlessly, prints a traceback for each, or exits with a code that
makes a supervisor retry.
"""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from ..databases import PROJECT
from ..fixtures import SECRET
from ..processes import run
from ..servers import FLASK, GUNICORN, KINDS, PACKAGE, PYWSGI, UWSGI, WITH_WORKERS, Kind, Project
from .conftest import Start

EX_CONFIG = 78

# An invalid value of each setting that gunicorn or uwsgi.ini reads itself.
WRONG = {
    "FORWARDED_ALLOW_IPS": "localhost",
    "METRICS_BIND": "nonsense",
    "WEB_CONCURRENCY": "auto",
    "WEB_PROTOCOL": "ftp",
    "WEB_THREADS": "+4",
}

# Each way to serve, with one worker and with four; gunicorn also without preload.
STARTS = [
    pytest.param(
        kind, {"WEB_CONCURRENCY": workers} | preload, id="-".join([str(kind), workers, *preload.values()])
    )
    for kind in KINDS
    for workers in (("1",) if kind in {PYWSGI, FLASK} else ("1", "4"))
    for preload in ([{"WEB_PRELOAD": "true"}, {"WEB_PRELOAD": "false"}] if kind in GUNICORN else [{}])
]


@pytest.mark.parametrize(("kind", "settings"), STARTS)
def test_bad_settings_end_the_server_once_with_78_and_lines(
    kind: Kind, settings: dict[str, str], launch: Start
) -> None:
    """With invalid settings the server exits once, with code 78 and one line for each."""
    server = launch(kind, DATABASE_URL="nonsense", **settings)

    assert server.wait() == EX_CONFIG, server.log
    problems = [line for line in server.log.splitlines() if line.startswith("configuration error: ")]
    assert [problem.split()[2] for problem in problems] == ["DATABASE_URL", "SECRET_KEY"]
    assert "Traceback" not in server.log
    assert not server.is_listening()
    if kind is not UWSGI:  # uWSGI logs its own lines before it starts.
        assert server.log.splitlines() == problems


@pytest.mark.parametrize(("kind", "settings"), STARTS)
def test_a_bug_at_import_ends_the_server_once_with_its_traceback(
    kind: Kind, settings: dict[str, str], launch: Start, project: Project, tmp_path: Path
) -> None:
    """After a bug at import the server exits once, with code 1 and one traceback."""
    project.append(f"{PACKAGE}/app.py", "\nraise RuntimeError(3 * 7)\n")

    server = launch(kind, DATABASE_URL=f"sqlite:///{tmp_path}/samples.db", SECRET_KEY=SECRET, **settings)

    assert server.wait() == 1, server.log
    assert server.log.count("Traceback") == server.log.count("RuntimeError: 21") == 1
    assert not server.is_listening()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_exit_of_the_application_is_the_exit_of_the_server(
    kind: Kind, launch: Start, project: Project, tmp_path: Path
) -> None:
    """The exit code of the application at import is the exit code of the server."""
    # By default gunicorn and uWSGI do not exit with a worker's code: they restart it endlessly.
    project.append(f"{PACKAGE}/app.py", "\nraise SystemExit(21)\n")
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/samples.db",
        "SECRET_KEY": SECRET,
        "WEB_PRELOAD": "false",
    }

    server = launch(kind, **settings)

    assert server.wait() == 21, server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_an_empty_setting_is_the_default_of_a_bare_server(kind: Kind, start: Start) -> None:
    """Without `make serve`, a server treats an empty variable that it reads itself as missing."""
    # gunicorn would exit with a traceback; uWSGI would bind the port but have no workers.
    start(kind, **dict.fromkeys((*WRONG, "LISTEN_FDS", "LISTEN_PID"), ""))


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_wrong_setting_ends_a_bare_server_with_78(kind: Kind, launch: Start) -> None:
    """Without `make serve`, a server exits with 78 and one line per invalid variable that it reads."""
    server = launch(kind, DATABASE_URL="sqlite:///app.db", SECRET_KEY=SECRET, **WRONG)

    assert server.wait() == EX_CONFIG, server.log
    problems = re.findall(r"^configuration error: (\w+)", server.log, re.MULTILINE)
    assert sorted(problems) == sorted(WRONG)
    assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_descriptor_that_is_not_open_ends_the_server_with_78(kind: Kind, launch: Start) -> None:
    """With WEB_BIND=fd://number and no listening socket, the server exits with 78 and one line."""
    settings = {"DATABASE_URL": "sqlite:///app.db", "SECRET_KEY": SECRET}

    server = launch(replace(kind, settings={**kind.settings, "WEB_BIND": "fd://19"}), **settings)

    assert server.wait() == EX_CONFIG, server.log
    assert server.log.count("WEB_BIND=fd://19 is no listening socket") == 1
    assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_address_in_use_ends_the_server_with_1_and_one_line(kind: Kind, launch: Start) -> None:
    """If an address cannot be bound, the server exits with 1 and one line with the reason."""
    settings = {"DATABASE_URL": "sqlite:///app.db", "SECRET_KEY": SECRET}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = launch(kind, WEB_BIND=f"127.0.0.1:{taken.getsockname()[1]}", **settings)

        assert server.wait() == 1, server.log
    assert server.log.count("Address already in use") == 1
    assert "Traceback" not in server.log


@pytest.mark.parametrize("name", sorted({kind.name.partition("-")[0] for kind in KINDS}))
def test_make_serve_keeps_the_status(name: str) -> None:
    """The command behind `make serve` exits with 78 and one line per invalid setting."""
    # An empty variable counts as missing, and .env does not fill it. gunicorn itself would fail on the other.
    settings = {"SERVER": name, "SECRET_KEY": "", "WEB_CONCURRENCY": "many"}

    done = run("bin/serve", cwd=PROJECT, env=settings, status=EX_CONFIG)

    assert [line.split()[2] for line in done.stderr.splitlines()] == ["SECRET_KEY", "WEB_CONCURRENCY"]


def test_make_serve_refuses_a_server_it_does_not_know() -> None:
    """The command behind `make serve` rejects an unknown server with exit code 64."""
    done = run("bin/serve", cwd=PROJECT, env={"SERVER": "apache"}, status=64)

    assert "SERVER=apache is unknown" in done.stderr
