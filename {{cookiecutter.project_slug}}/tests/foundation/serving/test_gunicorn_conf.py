"""The settings of gunicorn.conf.py; proofs/ proves them on running servers."""

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

from {{cookiecutter.package_name}}.foundation.configuration import GRACE, ServiceSettings
from {{cookiecutter.package_name}}.foundation.serving import project as served
from {{cookiecutter.package_name}}.foundation.serving.gunicorn import cpus

from ..databases import PROJECT
from ..fixtures import SECRET
from ..servers import GUNICORN, Project, serving

ENVIRONMENT = {"DATABASE_URL": "sqlite:///app.db", "SECRET_KEY": SECRET}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the file defines."""

    class Settings(ServiceSettings):
        """Settings that no other test has read."""

    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(served, "settings_class", lambda: Settings)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(PROJECT / "gunicorn.conf.py"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project with the sample service."""
    return Project(tmp_path / "project")


def test_every_name_is_a_setting_of_gunicorn(names: dict[str, Any]) -> None:
    """Every name defined in the file is a gunicorn setting."""
    # gunicorn silently ignores misspelt settings.
    known = {setting.name for setting in KNOWN_SETTINGS}
    imported = {"Path", "annotations"}
    ours = {
        name
        for name, value in names.items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name not in imported
    }

    assert ours <= known


def test_no_import_has_the_name_of_a_setting(names: dict[str, Any]) -> None:
    """No imported module has the name of a gunicorn setting."""
    known = {setting.name for setting in KNOWN_SETTINGS}

    assert not {name for name, value in names.items() if isinstance(value, types.ModuleType)} & known


def test_gunicorn_accepts_the_file(project: Project) -> None:
    """gunicorn accepts the file without a warning."""
    done = run(project, [str(Path(sys.executable).with_name("gunicorn")), "--check-config"])

    assert (done.returncode, done.stderr) == (0, "")


def test_a_service_leaves_nothing_in_the_home_of_its_user(project: Project, tmp_path: Path) -> None:
    """A running service creates nothing in its user's home folder."""
    home = tmp_path / "home"
    home.mkdir()

    with serving(project, GUNICORN[0], ENVIRONMENT | {"HOME": str(home)}):
        assert [*home.iterdir()] == []


def test_a_stop_fits_into_the_deadline_of_supervisors(names: dict[str, Any]) -> None:
    """The grace period is shorter than a supervisor's deadline, and keep-alive longer than a minute."""
    # Kubernetes and systemd grant 30 seconds and more.
    assert names["graceful_timeout"] == GRACE < 30
    assert names["keepalive"] > 60


@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi"])
def test_gevent_patches_before_the_driver_chooses_how_it_waits(project: Project, worker: str) -> None:
    """gevent patches `select` before the database driver is imported and chooses how it waits."""
    # psycopg checks at import whether `select` is patched, and preload imports it in the master.
    code = "import runpy; runpy.run_path('gunicorn.conf.py'); print(is_patched('select'))"

    done = run(
        project,
        [sys.executable, "-c", f"from gevent.monkey import is_module_patched as is_patched; {code}"],
        WEB_WORKER_CLASS=worker,
    )

    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    ("quotas", "count"),
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
    quotas: dict[str, str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of processors respects the quota of every enclosing cgroup."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)
    for folder, quota in quotas.items():
        (tmp_path / folder).mkdir(exist_ok=True, parents=True)
        (tmp_path / folder / "cpu.max").write_text(quota)
    process = tmp_path / "process"
    process.write_text("1:name=systemd:/x\n0::/" + max(quotas, default="", key=len))

    assert cpus(process, tmp_path) == count


def run(project: Project, command: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder with only the settings it needs."""
    environment = {"PATH": os.environ["PATH"]} | ENVIRONMENT | settings
    return subprocess.run(
        command, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=60
    )
