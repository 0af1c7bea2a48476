"""A service that cannot start ends once, with a status that says why.

Without care a server starts its workers again for ever, prints a traceback for each of them, or
ends with a status that tells a supervisor to try again.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ..conftest import SECRET
from ..databases import PROJECT
from .conftest import Start
from .harness import FLASK, GUNICORN, KINDS, PACKAGE, PYWSGI, UWSGI, Kind, Project

EX_CONFIG = 78

# Each way to serve with one worker and with four, gunicorn also without preload.
STARTS = [
    pytest.param(
        kind, {"WEB_CONCURRENCY": workers} | preload, id="-".join([str(kind), workers, *preload.values()])
    )
    for kind in KINDS
    for workers in (("1",) if kind in {PYWSGI, FLASK} else ("1", "4"))
    for preload in ([{"WEB_PRELOAD": "true"}, {"WEB_PRELOAD": "false"}] if kind in GUNICORN else [{}])
]


@pytest.mark.parametrize(("kind", "settings"), STARTS)
def test_bad_settings_end_the_server_once_with_78_and_a_line_each(
    kind: Kind, settings: dict[str, str], launch: Start
) -> None:
    server = launch(kind, DATABASE_URL="nonsense", **settings)

    assert server.wait() == EX_CONFIG, server.log
    problems = [line for line in server.log.splitlines() if line.startswith("configuration error: ")]
    assert [problem.split()[2] for problem in problems] == ["DATABASE_URL", "SECRET_KEY"]
    assert "Traceback" not in server.log
    assert not server.is_listening()
    if kind is not UWSGI:  # uWSGI speaks of itself before it starts.
        assert server.log.splitlines() == problems


@pytest.mark.parametrize(("kind", "settings"), STARTS)
def test_a_bug_at_import_ends_the_server_once_with_its_traceback(
    kind: Kind, settings: dict[str, str], launch: Start, project: Project, tmp_path: Path
) -> None:
    project.append(f"{PACKAGE}/app.py", "\nraise RuntimeError(3 * 7)\n")

    server = launch(kind, DATABASE_URL=f"sqlite:///{tmp_path}/notes.db", SECRET_KEY=SECRET, **settings)

    assert server.wait() == 1, server.log
    assert server.log.count("Traceback") == server.log.count("RuntimeError: 21") == 1
    assert not server.is_listening()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_exit_of_the_application_is_the_exit_of_the_server(
    kind: Kind, launch: Start, project: Project, tmp_path: Path
) -> None:
    # What a worker ends with is no reason for gunicorn or uWSGI to end: they start it again for ever.
    project.append(f"{PACKAGE}/app.py", "\nraise SystemExit(21)\n")
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/notes.db",
        "SECRET_KEY": SECRET,
        "WEB_PRELOAD": "false",
    }

    server = launch(kind, **settings)

    assert server.wait() == 21, server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize("name", sorted({kind.name.partition("-")[0] for kind in KINDS}))
def test_make_serve_keeps_the_status(name: str) -> None:
    # An empty variable is no setting, and .env does not fill it. gunicorn itself would fall over the other.
    environment = os.environ | {"SERVER": name, "SECRET_KEY": "", "WEB_CONCURRENCY": "many"}

    done = subprocess.run(
        ["bin/serve"], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == EX_CONFIG, done.stderr
    assert [line.split()[2] for line in done.stderr.splitlines()] == ["SECRET_KEY", "WEB_CONCURRENCY"]


def test_make_serve_refuses_a_server_it_does_not_know() -> None:
    environment = os.environ | {"SERVER": "apache"}

    done = subprocess.run(
        ["bin/serve"], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 64
    assert "SERVER=apache is unknown" in done.stderr
