"""How a test gets a generated project, and how it runs a program."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import typing as t
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter

if t.TYPE_CHECKING:
    from .image import Built, Image

ROOT = Path(__file__).resolve().parents[1]
RAW = ROOT / "{{cookiecutter.project_slug}}"
Answers = dict[str, str | bool]
COMBINATIONS: list[Answers] = [
    {"database": database, "server": server}
    for database in ("postgresql", "sqlite")
    for server in ("both", "gunicorn", "uwsgi")
]
DEFAULT = COMBINATIONS[0]
# How it is deployed and watched changes no line of Python, and is combined with the others only where
# it matters.
DEPLOYMENTS: dict[str, Answers] = {
    "as asked by default": {},
    "with nothing": {"container": False, "ci": "none"},
    "with Kubernetes alone": {"container": False, "kubernetes": True, "ci": "none"},
    "with systemd alone": {"container": False, "systemd": True, "ci": "none"},
    "with traces alone": {"container": False, "tracing": True, "ci": "none"},
    "with reports alone": {"container": False, "error_reporting": True, "ci": "none"},
    "with everything": {
        "container": True,
        "kubernetes": True,
        "systemd": True,
        "tracing": True,
        "error_reporting": True,
        "ci": "gitlab",
    },
}
EVERYTHING = DEPLOYMENTS["with everything"]

# They run inside a generated project, on the harness of its own proofs.
collect_ignore = ["controls"]

SECRET = "a key for tests that is long enough"  # noqa: S105

Bake = Callable[..., Path]


def name_of(answers: Mapping[str, str | bool]) -> str:
    """Name a set of answers in a test's id."""
    return "-".join(map(str, answers.values()))


def generate(folder: Path, answers: Mapping[str, str | bool] | None = None, *, hooks: bool = True) -> Path:
    """Generate a project below a folder; nothing of the user's own is read or written."""
    project = cookiecutter(
        str(ROOT),
        no_input=True,
        default_config={"replay_dir": str(folder / "replay")},
        output_dir=str(folder / "out"),
        accept_hooks=hooks,
        extra_context=dict(answers or {}),
    )
    return Path(project)


@pytest.fixture(scope="session")
def bake(tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """Return the project of some answers, generated once; a test may read it, but not change it."""

    @functools.cache
    def baked(*, hooks: bool = True, **answers: str | bool) -> Path:
        return generate(tmp_path_factory.mktemp("bake"), answers, hooks=hooks)

    return baked


@pytest.fixture(scope="session")
def image(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the image of a project that keeps its data in SQLite, once for each server."""
    from .image import build

    @functools.cache
    def image(server: str) -> Image:
        project = bake(database="sqlite", server=server)
        return build(project / "Dockerfile", tmp_path_factory.mktemp("image"))

    return image


@pytest.fixture(scope="session")
def workshop() -> Iterator[Callable[[], Path]]:
    """Make folders for projects whose tests are run.

    A PostgreSQL that root starts runs as another user, who must be able to reach the project's
    environment; each pytest that starts takes that away from everything below pytest's own folder.
    """
    root = Path(tempfile.mkdtemp(prefix="workshop"))
    root.chmod(0o755)
    numbers = itertools.count()

    def make() -> Path:
        folder = root / str(next(numbers))
        folder.mkdir()
        return folder

    yield make
    shutil.rmtree(root)


def run(
    *command: str | Path,
    cwd: Path,
    timeout: float = 60,
    status: int | None = 0,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in an environment without settings; check its status, None is any but 0."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=clean_environment() | dict(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    good = process.returncode == status if status is not None else process.returncode != 0
    assert good, f"{command} ended with {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def clean_environment() -> dict[str, str]:
    """Return the environment without what would change a project's tests, or this very run."""
    ours = ("APP_ENV", "DATABASE_URL", "SECRET_KEY", "LOG_LEVEL", "FORWARDED_ALLOW_IPS", "UNCOMMITTED_WORK")
    tools = ("VIRTUAL_ENV", "FORBID_SKIPS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "SERVER")
    prefixes = ("WEB_", "TEST_", "PYTEST_", "PYTHON", "GUNICORN_", "UWSGI_", "GIT_", "COOKIECUTTER_")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ours + tools and not name.startswith(prefixes)
    }


def path_without(tmp_path: Path, *names: str) -> str:
    """Return a PATH on which everything is found as before, except some programs."""
    folders = []
    for number, folder in enumerate(map(Path, os.environ["PATH"].split(os.pathsep))):
        if any((folder / name).exists() for name in names):
            copy = tmp_path / f"path{number}"
            copy.mkdir()
            for program in folder.iterdir():
                if program.name not in names:
                    (copy / program.name).symlink_to(program)
            folder = copy
        folders.append(str(folder))
    return os.pathsep.join(folders)


def copy_of_template(folder: Path) -> Path:
    """Copy what belongs to the template, for a test that changes it."""
    made_here = shutil.ignore_patterns(".git", ".venv", ".demo", "__pycache__", "*_cache")
    return Path(shutil.copytree(ROOT, folder / "template", ignore=made_here))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be lacking (CI), a skipped test is a failed one."""
    report = yield
    if report.skipped and os.environ.get("FORBID_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"FORBID_SKIPS is set, and this was skipped: {report.longrepr}"
    return report
