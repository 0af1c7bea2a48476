"""A project follows the template with `cruft update`, and keeps its owner's changes."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from .conftest import BOUND, RAW, ROOT, Bake, copy_of_template
from .contents import check_imports, check_no_jinja, check_syntax, tree
from .owners import FIRST_MIGRATION, OWNERS, PACKAGE, SOURCE, append, edit
from .processes import run

ANSWERS = {
    "project_name": "Größe \N{ROCKET}",
    "package_name": "size",
    "description": 'It\'s "good" \\',
    "database": "sqlite",
    "server": "uwsgi",
}
FLAT = "023208fc069ac74982355652580141b3e9afb988"  # the last commit before the foundation had a folder
STORE = {"project_name": "Store Service", "package_name": PACKAGE}
RAW_SOURCE = "src/{{cookiecutter.package_name}}"
OURS: list[str | Path] = ["README.md", "tests/conftest.py", "tests/notes/test_views.py", FIRST_MIGRATION]
OURS += [f"{RAW_SOURCE}/{name}.py" for name in ("app", "settings", "notes/views")]
THEIRS: list[str | Path] = ["Makefile", f"{RAW_SOURCE}/foundation/http/errors.py"]
UPGRADING = (ROOT / "docs" / "upgrading.md").read_text()
STEPS = UPGRADING.partition("## From 0.1 to 0.2")[2].partition("\n## ")[0]
KEYS = "migrations/versions/0000_create_idempotency_keys.py"  # before the first migration of a new project
Tool = Callable[..., str]


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """Run a program for a user who has configured neither git nor cruft."""
    person = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org"}
    person |= {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org"}
    nothing = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    nothing["HOME"] = str(tmp_path_factory.mktemp("home"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def run_tool(*command: str | Path, cwd: Path, status: int = 0) -> str:
        settings = {"PATH": path} | person | nothing
        return run(*command, cwd=cwd, status=status, timeout=BOUND, env=settings).stdout

    return run_tool


def commit_all(tool: Tool, folder: Path, message: str) -> None:
    """Commit everything in a folder, which becomes a repository if it is none."""
    tool("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    tool("git", "add", "--all", cwd=folder)
    tool("git", "commit", "--quiet", "--message", message, cwd=folder)


def make_project(tool: Tool, template: Path, answers: dict[str, str], out: Path) -> Path:
    """Make a project of the template's newest version, in its own repository."""
    out.mkdir()
    tool("cruft", "create", template, "--no-input", "--extra-context", json.dumps(answers), cwd=out)
    (project,) = out.iterdir()
    commit_all(tool, project, "generated")
    return project


@pytest.fixture
def template(tool: Tool, tmp_path: Path) -> Path:
    """The template, as the first version of a history."""
    template = copy_of_template(tmp_path)
    commit_all(tool, template, "one")
    return template


@pytest.fixture
def project(tool: Tool, template: Path, tmp_path: Path) -> Path:
    """A project of the first version."""
    return make_project(tool, template, ANSWERS, tmp_path / "out")


def test_a_new_project_is_up_to_date(tool: Tool, project: Path) -> None:
    """A new project is up to date, and equals the template."""
    tool("cruft", "check", cwd=project)

    assert tool("cruft", "diff", cwd=project) == ""


def test_an_update_keeps_edits(tool: Tool, template: Path, project: Path) -> None:
    """An update brings changed, added and deleted files, and keeps edits and deletions of the owner."""
    raw = template / RAW.name
    edit(raw / "Makefile", "# `make` lists what there is to do.", "# `make` lists all there is to do.")
    edit(raw / "requirements" / "production.txt", "flask==3.", "flask==4.")
    edit(raw / "pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    edit(raw / "bin" / "serve", "set -eu\n", "set -eu\n# {{cookiecutter.project_name}}\n")
    (raw / "ADDED.md").write_text("{{cookiecutter.description}}\n")
    (raw / ".env.example").unlink()
    commit_all(tool, template, "two")
    append(project / "Makefile", "\nours: ## a rule of the owner\n\t@true\n")
    append(project / "pyproject.toml", "# ours\n")
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
    assert changed == {"ADDED.md", ".env.example"}
    assert conflicts(tool, project) == set()
    tool("cruft", "check", cwd=project)


def test_a_later_version_may_derive_other_defaults(tool: Tool, template: Path, project: Path) -> None:
    """A later version may change the filters and the defaults of answers."""
    # cruft renders the new version with the old version's filters in memory.
    edit(template / "cookiecutter.json", "| importable }}", "| importable | lower }}")
    edit(template / "local_extensions.py", '"project_name": 60', '"project_name": 50')
    (template / RAW.name / "ADDED.md").write_text("{{cookiecutter.__description}}\n")
    commit_all(tool, template, "two")

    tool("cruft", "update", "--skip-apply-ask", cwd=project)

    assert (project / "ADDED.md").exists()
    assert conflicts(tool, project) == set()


def test_an_update_can_change_an_answer(tool: Tool, project: Path) -> None:
    """An update with another answer adds the files that it asks for."""
    answers = json.dumps({"description": "It does more.", "server": "both"})

    tool("cruft", "update", "--skip-apply-ask", "--variables-to-update", answers, cwd=project)

    assert 'description = "It does more."' in (project / "pyproject.toml").read_text()
    assert (project / "gunicorn.conf.py").exists()
    check_syntax(project / "src")
    check_no_jinja(project / "src")


def test_changes_of_the_foundation_are_found(tool: Tool, project: Path) -> None:
    """The README's commands list the changed files of the foundation, and put the template's back."""
    show, put_back = commands(project / "README.md", "cruft diff |")
    path = project / "src" / "size" / "foundation" / "http" / "errors.py"
    kept = path.read_text()
    append(project / "src" / "size" / "app.py", "# ours\n")
    append(project / "Makefile", "# ours\n")
    append(path, "# ours\n")

    listed = tool("sh", "-c", show, cwd=project)
    tool("sh", "-c", put_back, cwd=project)

    assert listed == "+++ upstream-template-new/src/size/foundation/http/errors.py\n"
    assert path.read_text() == kept
    assert (project / "Makefile").read_text().endswith("# ours\n")


class Upgraded(NamedTuple):
    """A project updated as in docs/upgrading.md: its conflicts, and its owner's additions and deletions."""

    project: Path
    conflicts: set[str]
    added: set[str]
    deleted: set[str]
    deleted_folders: set[Path]


@pytest.fixture(scope="module")
def flat_project(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of the template's last flat version, which this version (v0.2.0) and a next one follow."""
    folder = tmp_path_factory.mktemp("history")
    template = folder / "template"
    template.mkdir()
    unpack_flat(template)
    commit_all(tool, template, "flat")
    project = make_project(tool, template, STORE, folder / "out")
    tool("git", "rm", "-r", "--quiet", ".", cwd=template)
    shutil.copytree(copy_of_template(folder / "new"), template, dirs_exist_ok=True)
    commit_all(tool, template, "one foundation")
    tool("git", "tag", "v0.2.0", cwd=template)
    for path in OURS:
        (template / RAW.name / path).write_text("# all of it is new\n")
    for path in THEIRS:
        append(template / RAW.name / path, "# new\n")
    commit_all(tool, template, "next")
    return project


def unpack_flat(template: Path) -> None:
    """Unpack the template's last flat version, or skip the test where this repository lacks it."""
    archive = template.with_name("flat.tar")
    try:
        run("git", "archive", f"--output={archive}", FLAT, cwd=ROOT)
    except AssertionError as error:
        pytest.skip(f"the history of this repository has no commit {FLAT} (git fetch --unshallow): {error}")
    with tarfile.open(archive) as file:
        file.extractall(template, filter="data")


@pytest.fixture(scope="module", params=OWNERS)
def upgraded(
    request: pytest.FixtureRequest, tool: Tool, flat_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Upgraded:
    """An owner's project, updated as docs/upgrading.md says."""
    owner = OWNERS[request.param]
    project = tmp_path_factory.mktemp(request.param) / "store"
    shutil.copytree(flat_project, project)
    made = tracked(tool, project)
    owner.change(project)
    commit_all(tool, project, "changed")
    changed = tracked(tool, project)
    put_back, update, take_new, move_imports, *_ = blocks(STEPS, "sh")

    for command in (put_back, update):
        tool("sh", "-ec", command, cwd=project)
    found = conflicts(tool, project)
    tool("sh", "-ec", take_new, cwd=project)
    tool("git", "checkout", "--theirs", "--", "pyproject.toml", cwd=project)
    tool("git", "checkout", "--ours", "--", "README.md", cwd=project)
    owner.change_again(project, blocks(STEPS, "python"))
    tool("sh", "-ec", move_imports, cwd=project)
    format_code(tool, project)
    commit_all(tool, project, "updated")
    return Upgraded(project, found, changed - made, made - changed, folders(made) - folders(changed))


def folders(paths: set[str]) -> set[Path]:
    """Return the folders of some files."""
    return {Path(path).parent for path in paths}


def format_code(tool: Tool, project: Path) -> None:
    """Format like `make format`."""
    tool("ruff", "check", "--fix", "--exit-zero", "--quiet", cwd=project)
    tool("ruff", "format", "--quiet", cwd=project)


def tracked(tool: Tool, project: Path) -> set[str]:
    """Return the paths in a repository's index."""
    return set(tool("git", "ls-files", cwd=project).splitlines())


def conflicts(tool: Tool, project: Path) -> set[str]:
    """Return the paths that an update left in conflict."""
    unmerged = tool("git", "diff", "--name-only", "--diff-filter=U", cwd=project).splitlines()
    rejected = [path.relative_to(project).with_suffix("").as_posix() for path in project.rglob("*.rej")]
    return {*unmerged, *rejected}


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a document in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(document: Path, start: str) -> list[str]:
    """Return the commands in a document that start with some words."""
    lines = "".join(blocks(document.read_text("utf-8"), "sh")).splitlines()
    return [line for line in lines if line.startswith(start)]


def test_every_documented_place_exists() -> None:
    """Every module and folder that docs/upgrading.md names as a new place exists."""
    columns = re.findall(r"^\| `[^|]+ \| ([^|]+) \|$", STEPS, re.MULTILINE)
    places = re.findall(r"`([^`]+)`", re.sub(r"\(.*?\)", "", " ".join(columns)))
    places += re.findall(r'": "([\w.]+)"', STEPS)

    assert len(places) > 40
    for place in places:
        module = place if "/" in place else place.replace(".", "/")
        roots = [RAW] if "/" in place else [RAW / RAW_SOURCE / "foundation", RAW / "tests" / "foundation"]
        assert any((root / name).exists() for root in roots for name in (module, f"{module}.py")), place


def test_conflicts_are_only_where_documented(upgraded: Upgraded) -> None:
    """An update from the flat layout leaves conflicts only in files that docs/upgrading.md lists."""
    listed = re.findall(r"^\| `([^`]+)` \| .* \| .* \|$", STEPS, re.MULTILINE)

    assert upgraded.conflicts
    assert [
        path for path in upgraded.conflicts if not any(fnmatch.fnmatch(path, row) for row in listed)
    ] == []


def test_the_documented_steps_lead_to_good_code(tool: Tool, upgraded: Upgraded) -> None:
    """After the documented steps the project compiles, passes ruff, and imports only names that exist."""
    for folder in ("src", "tests", "migrations"):
        check_syntax(upgraded.project / folder)
    assert tomllib.loads((upgraded.project / "pyproject.toml").read_text())["tool"]["cruft"]["skip"]
    tool("ruff", "check", cwd=upgraded.project)
    tool("ruff", "format", "--check", cwd=upgraded.project)
    check_imports(upgraded.project)


def test_no_file_of_the_flat_layout_is_left(tool: Tool, upgraded: Upgraded, bake: Bake) -> None:
    """After the update the project has the files of a new one, except those its owner added or deleted.

    A file that is new in a folder which the owner deleted does not come back, nor does a migration.
    """
    fresh = {path for path in tree(bake(**STORE)) if Path(path).parent not in upgraded.deleted_folders}
    expected = fresh - {KEYS} - upgraded.deleted | upgraded.added | {".cruft.json"}

    assert tracked(tool, upgraded.project) == expected


def test_migrations_stay_as_they_were(tool: Tool, upgraded: Upgraded) -> None:
    """After the update the owner's migrations are those that databases have run, without a new one."""
    assert tool("git", "diff", "HEAD~1", "--", "migrations/versions", cwd=upgraded.project) == ""


def test_the_foundation_is_the_templates(upgraded: Upgraded, bake: Bake) -> None:
    """After the update each file of the foundation is the template's."""
    fresh = bake(**STORE)
    for path in tree(fresh):
        if "/foundation/" in path:
            assert (upgraded.project / path).read_bytes() == (fresh / path).read_bytes(), path


def test_the_next_update_has_no_conflict(tool: Tool, upgraded: Upgraded, bake: Bake, tmp_path: Path) -> None:
    """The next update changes the template's files and none of the owner's, without a conflict.

    The README's commands show the foundation alone, and the rest.
    """
    project = tmp_path / "store"
    shutil.copytree(upgraded.project, project)
    alone, rest = commands(bake(**STORE) / "README.md", "git diff")

    tool("cruft", "update", "--skip-apply-ask", cwd=project)

    assert conflicts(tool, project) == set()
    changed = set(tool("git", "diff", "--name-only", "HEAD", cwd=project).split())
    assert changed == {".cruft.json", "Makefile", f"{SOURCE}/foundation/http/errors.py"}
    assert "/foundation/http/errors.py " in tool("sh", "-c", alone, cwd=project)
    assert "1 file changed" in tool("sh", "-c", alone, cwd=project)
    shown = re.findall(r"^\+\+\+ b/(.*)", tool("sh", "-c", rest, cwd=project), re.MULTILINE)
    assert shown == [".cruft.json", "Makefile"]
