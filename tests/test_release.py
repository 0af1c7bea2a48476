"""A release dates the changelog, sets the version, commits and tags; projects follow its tag."""

from __future__ import annotations

import datetime
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from .conftest import ROOT, Bake, copy_of_template
from .processes import run

IDENTITY = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}
CHANGELOG = """# Changelog

## Unreleased

### Added

- A change.

## 0.1.0 - 2026-01-01

- The beginning.
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment for git with an identity, and without other configuration."""
    return IDENTITY | {
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
    }


@pytest.fixture
def template(env: dict[str, str], tmp_path: Path) -> Path:
    """A template at version 0.1.0 in a history with a remote, which is installed already."""
    template = copy_of_template(tmp_path)
    (template / "bin" / "install").write_text("#!/bin/sh\n")
    (template / "CHANGELOG.md").write_text(CHANGELOG)
    set_version(template, "0.1.0")
    python = template / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    run("git", "init", "--quiet", "--bare", tmp_path / "remote", cwd=tmp_path, env=env)
    git(template, env, "init", "--quiet", "--initial-branch=main")
    git(template, env, "remote", "add", "origin", str(tmp_path / "remote"))
    commit_all(template, env)
    return template


def git(folder: Path, env: dict[str, str], *arguments: str) -> str:
    """Run git in a folder, and return its output."""
    return run("git", *arguments, cwd=folder, env=env).stdout


def commit_all(folder: Path, env: dict[str, str]) -> None:
    """Commit everything in a folder."""
    git(folder, env, "add", "--all")
    git(folder, env, "commit", "--quiet", "--message", "Change")


def set_version(template: Path, version: str) -> None:
    """Write the version that a template has, whatever it had before."""
    for name, start in {"pyproject.toml": "\nversion = ", "cookiecutter.json": '"_version": '}.items():
        text = (template / name).read_text("utf-8")
        changed, count = re.subn(rf'({start}")[0-9.]+"', rf'\g<1>{version}"', text)
        assert count == 1, name
        (template / name).write_text(changed, "utf-8")


def release(template: Path, env: dict[str, str], version: str, *, status: int = 0) -> str:
    """Run `make release`, and return what it writes."""
    done = run("make", "release", f"VERSION={version}", cwd=template, env=env, status=status)
    return done.stdout + done.stderr


def state(template: Path, env: dict[str, str]) -> list[str]:
    """Return what a release changes: the commit, the tags and the files."""
    return [
        git(template, env, *command.split()) for command in ("rev-parse HEAD", "tag", "status --porcelain")
    ]


def test_the_version_is_the_same_everywhere(bake: Bake) -> None:
    """A project records the version of the template's pyproject.toml, the newest one in the changelog."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    tools = tomllib.loads((bake() / "pyproject.toml").read_text("utf-8"))["tool"]
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    assert tools[about["name"]]["template"] == about["version"]
    assert sections[0] == "Unreleased"
    assert sections[1].split(" - ")[0] == about["version"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", section) for section in sections[1:])


def test_a_release_commits_and_tags(template: Path, env: dict[str, str], tmp_path: Path) -> None:
    """A release dates the unreleased entries, changes only the version, and pushes nothing."""
    days = {datetime.datetime.now(datetime.UTC).date()}
    release(template, env, "0.2.0")
    days.add(datetime.datetime.now(datetime.UTC).date())

    changelog = (template / "CHANGELOG.md").read_text()
    assert changelog in {
        CHANGELOG.replace("## Unreleased\n", f"## Unreleased\n\n## 0.2.0 - {day}\n") for day in days
    }
    pyproject = (template / "pyproject.toml").read_text("utf-8")
    assert tomllib.loads(pyproject)["project"]["version"] == "0.2.0"
    assert json.loads((template / "cookiecutter.json").read_text("utf-8"))["_version"] == "0.2.0"
    assert git(template, env, "diff", "--numstat", "HEAD~1").splitlines() == [
        "2\t0\tCHANGELOG.md",
        "1\t1\tcookiecutter.json",
        "1\t1\tpyproject.toml",
    ]
    assert git(template, env, "log", "-1", "--format=%s") == "Release 0.2.0\n"
    assert git(template, env, "cat-file", "-t", "v0.2.0") == "tag\n"
    assert git(template, env, "rev-parse", "v0.2.0^{}") == git(template, env, "rev-parse", "HEAD")
    assert git(template, env, "status", "--porcelain") == ""
    assert git(tmp_path / "remote", env, "for-each-ref") == ""


@pytest.mark.parametrize(
    "version", ["", "1", "0.2", "v0.2.0", "0.2.0rc1", "0.2.0.1", "00.2.0", "0.\u0662.0", "0.1.0", "0.0.9"]
)
def test_a_bad_version_is_refused(version: str, template: Path, env: dict[str, str]) -> None:
    """An invalid version, or one that is not newer, is rejected with one line."""
    before = state(template, env)

    assert_refused(release(template, env, version, status=2), "VERSION must be ")
    assert state(template, env) == before


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [
        ("untracked.txt", "x\n", "the working tree has changes: "),
        ("README.md", "x\n", "the working tree has changes: "),
    ],
)
def test_a_dirty_tree_is_refused(
    path: str, text: str, problem: str, template: Path, env: dict[str, str]
) -> None:
    """A release with uncommitted changes is rejected."""
    (template / path).write_text(text)
    before = state(template, env)

    assert_refused(release(template, env, "0.2.0", status=2), problem)
    assert state(template, env) == before


def test_an_existing_tag_is_refused(template: Path, env: dict[str, str]) -> None:
    """A version whose tag exists is rejected: a tag never moves."""
    git(template, env, "tag", "v0.2.0")
    before = state(template, env)

    assert_refused(release(template, env, "0.2.0", status=2), "tag v0.2.0 exists: ")
    assert state(template, env) == before


@pytest.mark.parametrize("unreleased", ["", "\n### Added\n"], ids=["empty", "heading"])
def test_an_empty_release_is_refused(unreleased: str, template: Path, env: dict[str, str]) -> None:
    """A release without an entry is rejected, even if the release before has one."""
    empty = CHANGELOG.replace("\n### Added\n\n- A change.\n", unreleased)
    (template / "CHANGELOG.md").write_text(empty)
    commit_all(template, env)
    before = state(template, env)

    assert_refused(release(template, env, "0.2.0", status=2), "CHANGELOG.md has no entry under Unreleased: ")
    assert state(template, env) == before


def assert_refused(output: str, problem: str) -> None:
    """Check that there is one line, beside that of make."""
    lines = [line for line in output.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1
    assert lines[0].startswith(f"release: {problem}")


def test_a_project_follows_the_tags(template: Path, env: dict[str, str], tmp_path: Path) -> None:
    """A project of one tag gets the next tag, and nothing of a later commit."""
    cruft = Path(sys.executable).with_name("cruft")
    git(template, env, "tag", "v0.1.0")
    release(template, env, "0.2.0")
    (template / "{{cookiecutter.project_slug}}" / "LATER.md").write_text("later\n")
    commit_all(template, env)
    create = ("create", template, "--no-input", "--checkout", "v0.1.0", "--output-dir", tmp_path)

    run(cruft, *create, cwd=tmp_path, env=env, timeout=120)
    project = tmp_path / "notes-service"
    git(project, env, "init", "--quiet")
    commit_all(project, env)
    assert recorded_version(project) == "0.1.0"
    run(cruft, "update", "--skip-apply-ask", "--checkout", "v0.2.0", cwd=project, env=env, timeout=120)

    assert recorded_version(project) == "0.2.0"
    assert not (project / "LATER.md").exists()


def recorded_version(project: Path) -> object:
    """Return the version of the template that a project records."""
    tools = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["tool"]
    return tools["cookiecutter-flask-production"]["template"]
