"""Names of tests that fit a terminal, and docstrings that state what each test promises."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import RAW, ROOT

LONGEST = 60
FOLDERS = {"template": ROOT / "tests", "project": RAW / "tests"}


def functions(file: Path) -> Iterator[ast.FunctionDef]:
    """Yield the test functions of a file, in which Jinja may stand for the name of the package."""
    code = file.read_text().replace("{{cookiecutter.package_name}}", "package")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


@pytest.fixture(params=FOLDERS)
def promises(request: pytest.FixtureRequest) -> dict[str, ast.FunctionDef]:
    """The test functions of the template, and those of a project, by file and name."""
    folder = FOLDERS[request.param]
    found = {
        f"{file.relative_to(folder)}:{function.name}": function
        for file in folder.rglob("*.py")
        for function in functions(file)
    }
    assert found
    return found


def test_every_name_of_a_test_fits_a_terminal(promises: dict[str, ast.FunctionDef]) -> None:
    """The name of every test function has at most 60 characters."""
    assert [place for place, test in promises.items() if len(test.name) > LONGEST] == []


def test_every_test_states_its_promise(promises: dict[str, ast.FunctionDef]) -> None:
    """Every test function has a docstring."""
    assert [place for place, test in promises.items() if not ast.get_docstring(test)] == []
