"""A project follows the template with `cruft update`, and keeps what its people changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import copy_of_template, run
from .contents import check_no_jinja, check_syntax, tree

ANSWERS = {
    "project_name": "Größe \N{ROCKET}",
    "package_name": "size",
    "description": 'It\'s "good" \\',
    "database": "sqlite",
    "server": "uwsgi",
}
Tool = Callable[..., str]


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    """Run git or cruft as somebody who has configured neither."""
    somebody = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org"}
    somebody |= {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org"}
    nothing = {"HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}

    def run_tool(name: str, *arguments: str | Path, cwd: Path, status: int = 0) -> str:
        program = Path(sys.executable).with_name("cruft") if name == "cruft" else name
        done = run(program, *arguments, cwd=cwd, status=status, timeout=120, env=somebody | nothing)
        return done.stdout

    return run_tool


def commit_all(tool: Tool, folder: Path, message: str) -> None:
    """Put everything in a folder into its history, which is begun where there is none."""
    tool("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    tool("git", "add", "--all", cwd=folder)
    tool("git", "commit", "--quiet", "--message", message, cwd=folder)


def edit(path: Path, old: str, new: str) -> None:
    """Replace a piece of a file that is there once."""
    text = path.read_text("utf-8")
    assert text.count(old) == 1, path
    path.write_text(text.replace(old, new), "utf-8")


@pytest.fixture
def template(tool: Tool, tmp_path: Path) -> Path:
    """The template, as the first version in a history."""
    template = copy_of_template(tmp_path)
    commit_all(tool, template, "one")
    return template


@pytest.fixture
def project(tool: Tool, template: Path, tmp_path: Path) -> Path:
    """A project of the first version, in a history of its own."""
    out = tmp_path / "out"
    out.mkdir()
    tool("cruft", "create", template, "--no-input", "--extra-context", json.dumps(ANSWERS), cwd=out)
    (project,) = out.iterdir()
    commit_all(tool, project, "generated")
    return project


def test_a_project_that_was_just_made_is_up_to_date(tool: Tool, project: Path) -> None:
    tool("cruft", "check", cwd=project)

    assert tool("cruft", "diff", cwd=project) == ""


def test_an_update_brings_the_new_version_and_keeps_what_was_edited(
    tool: Tool, template: Path, project: Path
) -> None:
    raw = template / "{{cookiecutter.project_slug}}"
    edit(raw / "Makefile", "# `make` lists what there is to do.", "# `make` lists all there is to do.")
    edit(raw / "requirements" / "production.txt", "flask==3.", "flask==4.")
    edit(raw / "pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    edit(raw / "bin" / "serve", "set -eu\n", "set -eu\n# {{cookiecutter.project_name}}\n")
    (raw / "ADDED.md").write_text("{{cookiecutter.description}}\n")
    (raw / "pywsgi.py").unlink()
    commit_all(tool, template, "two")
    for path, ours in {
        "Makefile": "\nours: ## a rule of our own\n\t@true\n",
        "pyproject.toml": "# ours\n",
    }.items():
        with (project / path).open("a") as file:
            file.write(ours)
    (project / "uwsgi.ini").unlink()
    commit_all(tool, project, "edited")
    before = tree(project)

    tool("cruft", "check", cwd=project, status=1)
    tool("cruft", "update", "--skip-apply-ask", cwd=project)

    makefile_text = (project / "Makefile").read_text()
    assert makefile_text.startswith("# `make` lists all there is to do.")
    assert makefile_text.endswith("@true\n")
    assert (project / "pyproject.toml").read_text().endswith("# ours\n")
    assert 'version = "0.2.0"' in (project / "pyproject.toml").read_text()
    assert "\nflask==4." in (project / "requirements" / "production.txt").read_text()
    assert f"\n# {ANSWERS['project_name']}\n" in (project / "bin" / "serve").read_text()
    assert (project / "ADDED.md").read_text() == ANSWERS["description"] + "\n"
    changed = {name for name in before ^ tree(project) if not name.startswith(".git/")}
    assert changed == {"ADDED.md", "pywsgi.py"}
    assert "<<<<<<<" not in tool("git", "diff", cwd=project)
    tool("cruft", "check", cwd=project)


def test_a_later_version_may_change_how_defaults_are_made(tool: Tool, template: Path, project: Path) -> None:
    # cruft renders the new version with the old version's filters in memory.
    edit(template / "cookiecutter.json", "| importable }}", "| importable | lower }}")
    edit(template / "local_extensions.py", '"project_name": 60', '"project_name": 50')
    (template / "{{cookiecutter.project_slug}}" / "ADDED.md").write_text("{{cookiecutter.__description}}\n")
    commit_all(tool, template, "two")

    tool("cruft", "update", "--skip-apply-ask", cwd=project)

    assert (project / "ADDED.md").exists()
    assert not list(project.rglob("*.rej"))


def test_an_update_can_change_an_answer(tool: Tool, project: Path) -> None:
    answers = json.dumps({"description": "It does more.", "server": "both"})

    tool("cruft", "update", "--skip-apply-ask", "--variables-to-update", answers, cwd=project)

    assert 'description = "It does more."' in (project / "pyproject.toml").read_text()
    assert (project / "gunicorn.conf.py").exists()
    check_syntax(project / "src")
    check_no_jinja(project / "src")
