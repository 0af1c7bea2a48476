"""What gunicorn.conf.py promises before any server starts; tests/servers/ starts it."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import KNOWN_SETTINGS

from .conftest import SECRET
from .databases import PROJECT
from .servers.harness import GUNICORN, Project, serving

CONFIG = PROJECT / "gunicorn.conf.py"
ENVIRONMENT = {"DATABASE_URL": "sqlite:///notes.db", "SECRET_KEY": SECRET}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the file defines."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(CONFIG))


def test_every_name_is_a_setting_of_gunicorn(names: dict[str, Any]) -> None:
    # gunicorn ignores a misspelt one without a word.
    known = {setting.name for setting in KNOWN_SETTINGS}
    imported = {"Any", "Path", "annotations"}
    ours = {
        name
        for name, value in names.items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name not in imported
    }

    assert ours <= known


def test_no_import_hides_behind_the_name_of_a_setting(names: dict[str, Any]) -> None:
    known = {setting.name for setting in KNOWN_SETTINGS}

    assert not {name for name, value in names.items() if isinstance(value, types.ModuleType)} & known


def test_gunicorn_accepts_it() -> None:
    done = run([str(Path(sys.executable).with_name("gunicorn")), "--check-config"])

    assert (done.returncode, done.stderr) == (0, "")


def test_a_service_leaves_nothing_in_the_home_of_its_user(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    home = tmp_path / "home"
    home.mkdir()

    with serving(project, GUNICORN[0], ENVIRONMENT | {"HOME": str(home)}):
        assert [*home.iterdir()] == []


def test_a_stop_fits_into_the_deadline_of_supervisors(names: dict[str, Any]) -> None:
    # Kubernetes and systemd grant 30 seconds and more.
    assert names["graceful_timeout"] < 30
    assert names["keepalive"] > 60


@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi"])
def test_gevent_patches_before_the_driver_chooses_how_it_waits(worker: str) -> None:
    # psycopg looks whether `select` is patched when it is imported, which preload does in the master.
    code = "import runpy; runpy.run_path('gunicorn.conf.py'); print(is_patched('select'))"

    done = run(
        [sys.executable, "-c", f"from gevent.monkey import is_module_patched as is_patched; {code}"],
        WEB_WORKER_CLASS=worker,
    )

    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    ("quotas", "cpus"),
    [
        ({"": "max 100000"}, 64),
        ({"": "200000 100000"}, 2),
        ({"": "150000 100000"}, 2),
        ({"": "10000 100000"}, 1),
        ({"": "800000 100000", "pod": "max 100000", "pod/web": "400000 100000"}, 4),
        ({"": "100000 100000", "pod": "max 100000", "pod/web": "400000 100000"}, 1),
        ({}, 64),
    ],
)
def test_processors_are_counted_within_the_quota_of_every_cgroup(
    quotas: dict[str, str], cpus: int, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)
    for folder, quota in quotas.items():
        (tmp_path / folder).mkdir(exist_ok=True, parents=True)
        (tmp_path / folder / "cpu.max").write_text(quota)
    process = tmp_path / "process"
    process.write_text("1:name=systemd:/x\n0::/" + max(quotas, default="", key=len))

    assert names["_cpus"](process, tmp_path) == cpus


def run(command: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder with only the settings it needs."""
    environment = {"PATH": os.environ["PATH"]} | ENVIRONMENT | settings
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60)
