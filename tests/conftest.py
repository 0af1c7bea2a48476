"""Fixtures for generated projects."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import sys
import tempfile
import typing as t
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter

from .processes import pytest_runtest_makereport as pytest_runtest_makereport
from .processes import run

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
# Answers about deployment and telemetry change no Python, and are combined with the others only where it
# matters.
DEPLOYMENTS: dict[str, Answers] = {
    "as asked by default": {},
    "with nothing": {"container": False, "notebooks": False, "ci": "none"},
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

# They run inside a generated project, on the servers of its proofs.
collect_ignore = ["controls"]

SECRET = "a key for tests that is long enough"  # noqa: S105

Bake = Callable[..., Path]
Workshop = Callable[[], Path]

# A limit for programs that hang; no test on a slow machine reaches it.
BOUND = 3600.0  # seconds
# Most of these tests wait, for databases and processes.
WITHOUT_PROOFS = (".venv/bin/pytest", "-n", "2", "--dist", "loadscope", "--ignore=tests/foundation/proofs")
SKIPPING_IS_FAILING = {"FORBID_SKIPS": "1"}


def name_of(answers: Mapping[str, str | bool]) -> str:
    """Name a set of answers in a test's id."""
    return "-".join(map(str, answers.values()))


def generate(folder: Path, answers: Mapping[str, str | bool] | None = None, *, hooks: bool = True) -> Path:
    """Generate a project below a folder, without reading or writing files of the user."""
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
def bake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bake]:
    """Return the project of some answers, generated once; a test may read it, but not change it.

    The last test fails if one of them left a file in a project, such as `__pycache__`.
    """
    made: dict[Path, set[Path]] = {}

    @functools.cache
    def baked(*, hooks: bool = True, **answers: str | bool) -> Path:
        project = generate(tmp_path_factory.mktemp("bake"), answers, hooks=hooks)
        made[project] = set(project.rglob("*"))
        return project

    yield baked
    assert not [path for project, paths in made.items() for path in set(project.rglob("*")) ^ paths]


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
    """Create folders for projects whose tests are run.

    A PostgreSQL that root starts runs as another user, who must be able to reach the project's
    environment. pytest prevents that for everything below its own folder.
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


@pytest.fixture(scope="session")
def default(workshop: Workshop) -> Path:
    """The default project, installed without uv."""
    folder = workshop()
    project = generate(folder)
    run("make", "install", cwd=project, timeout=BOUND, env={"PATH": path_without(folder, "uv", "uvx")})
    return project


@pytest.fixture
def project(default: Path, workshop: Workshop) -> Path:
    """A fresh default project, with the environment of another one."""
    project = generate(workshop())
    (project / ".venv").symlink_to(default / ".venv")
    return project


def install(project: Path) -> None:
    """Make the environment of a project with the template's own uv, which takes seconds."""
    tools = project.parent / "tools"
    if not tools.exists():
        tools.mkdir()
        (tools / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    run("make", "install", cwd=project, timeout=BOUND, env={"PATH": path})


def check_without_proofs(project: Path, *options: str) -> None:
    """Run the steps of `make check`, without the start, stop and reload of each server.

    The options are pytest's.
    """
    install(project)
    env = {"PYTHONPATH": "src", **SKIPPING_IS_FAILING}
    for command in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        program, *arguments = command.split()
        run(f".venv/bin/{program}", *arguments, cwd=project, timeout=BOUND, env=env)
    run(*WITHOUT_PROOFS, *options, cwd=project, timeout=BOUND, env=env)


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
    made_here = shutil.ignore_patterns(".git", ".venv*", ".demo", "__pycache__", "*_cache")
    return Path(shutil.copytree(ROOT, folder / "template", ignore=made_here))
