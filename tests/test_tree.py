"""Which files a project has, and what holds for all of them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import COMBINATIONS, RAW, ROOT, Bake, copy_of_template, generate, name_of, run
from .contents import NOT_RENDERED, check_no_jinja, check_syntax, files, is_executable, tree

# What a project is made without when it is to be served by one of the two.
NOT_FOR = {
    "both": set(),
    "gunicorn": {"uwsgi.ini", "tests/test_uwsgi_ini.py"},
    "uwsgi": {"gunicorn.conf.py", "tests/test_gunicorn_conf.py"},
}
HOOK = ROOT / "hooks" / "post_gen_project.py"
each_combination = pytest.mark.parametrize("answers", COMBINATIONS, ids=name_of)
with_hooks_or_without = pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "no hooks"])


@each_combination
def test_a_project_has_the_files_its_answers_ask_for(answers: dict[str, str], bake: Bake) -> None:
    assert tree(bake(**answers)) == tree(bake()) - NOT_FOR[answers["server"]]


@each_combination
def test_without_hooks_some_files_are_too_many_and_none_is_missing(
    answers: dict[str, str], bake: Bake
) -> None:
    assert tree(bake(hooks=False, **answers)) == tree(bake())


@with_hooks_or_without
@each_combination
def test_every_file_is_what_its_name_says(answers: dict[str, str], hooks: bool, bake: Bake) -> None:
    check_syntax(bake(hooks=hooks, **answers))


@with_hooks_or_without
@each_combination
def test_no_jinja_is_left(answers: dict[str, str], hooks: bool, bake: Bake) -> None:
    check_no_jinja(bake(hooks=hooks, **answers))


def test_every_row_of_the_hook_decides_about_a_file(bake: Bake) -> None:
    rows = set(re.findall(r'^    "(.+?)": ', HOOK.read_text(), re.MULTILINE))
    removed = [tree(bake()) - tree(bake(**answers)) for answers in COMBINATIONS]

    assert rows == set().union(*removed)


def test_every_pattern_of_what_is_copied_matches_a_file(bake: Bake) -> None:
    patterns = json.loads((ROOT / "cookiecutter.json").read_text())["_copy_without_render"]

    assert sorted(patterns) == sorted(NOT_RENDERED)
    for pattern in patterns:
        assert list(bake().rglob(pattern)), pattern


def test_python_never_asks_what_was_chosen() -> None:
    for path in RAW.rglob("*.py"):
        assert not re.search(r"\{[%#]|^\s*#%", path.read_text(), re.MULTILINE), path


def test_nothing_of_a_tools_own_lies_in_the_template() -> None:
    # cookiecutter would take it for a part of the project.
    assert not [path for path in RAW.rglob("*") if re.search(r"__pycache__|_cache$|\.venv|\.pyc$", path.name)]


def test_the_same_answers_make_the_same_bytes(bake: Bake, tmp_path: Path) -> None:
    again = generate(tmp_path)

    assert tree(again) == tree(bake())
    for path in files(again):
        assert path.read_bytes() == (bake() / path.relative_to(again)).read_bytes()


def test_the_hook_changes_nothing_the_second_time(tmp_path: Path) -> None:
    project = generate(tmp_path, {"server": "uwsgi"})
    before = tree(project)
    hook = HOOK.read_text().replace("{{ cookiecutter.server }}", "uwsgi")

    run(sys.executable, "-c", hook, cwd=project)

    assert tree(project) == before


def test_lines_end_with_a_newline_alone_and_yaml_has_no_tabs(bake: Bake) -> None:
    for path in files(bake()):
        content = path.read_bytes()
        assert b"\r" not in content, path
        assert content[-1:] in {b"", b"\n"}, path
        assert not (path.suffix in {".yml", ".yaml"} and b"\t" in content), path


@with_hooks_or_without
def test_scripts_can_be_run_and_nothing_else_can(hooks: bool, bake: Bake) -> None:
    for path in files(bake(hooks=hooks)):
        assert is_executable(path) == (path.parent.name == "bin"), path


def test_scripts_can_be_run_when_the_template_came_as_a_zip_file(tmp_path: Path) -> None:
    template = copy_of_template(tmp_path)
    for path in files(template):
        path.chmod(0o644)

    run(
        Path(sys.executable).with_name("cookiecutter"),
        template,
        "--no-input",
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},
    )

    assert is_executable(tmp_path / "notes-service" / "bin" / "serve")


def test_no_file_names_where_packages_come_from(bake: Bake) -> None:
    for path in [*files(bake()), ROOT / "requirements" / "development.txt"]:
        text = path.read_text()
        assert not re.search(r"(?<!no-emit-)(extra-)?index-url|find-links|trusted-host", text), path
        assert path.parent.name != "requirements" or "://" not in text, path


def test_files_are_small(bake: Bake) -> None:
    for path in files(bake()):
        limit = 150_000 if path.parent.name == "requirements" else 24_000
        assert path.stat().st_size < limit, path


def test_generating_opens_no_connection(tmp_path: Path) -> None:
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):\n"
        "        raise RuntimeError('there is no network')\n"
        "sys.addaudithook(refuse)\n"
    )
    closed = dict.fromkeys(("http_proxy", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    nowhere = {"PYTHONPATH": str(guard), "HOME": str(tmp_path), **closed}
    connect = "import socket; socket.create_connection(('127.0.0.1', 9))"
    assert (
        "there is no network"
        in run(sys.executable, "-c", connect, cwd=tmp_path, status=1, env=nowhere).stderr
    )

    run(Path(sys.executable).with_name("cookiecutter"), ROOT, "--no-input", cwd=tmp_path, env=nowhere)

    assert (tmp_path / "notes-service" / "pyproject.toml").exists()


@pytest.mark.parametrize("house", [ROOT, RAW], ids=["template", "project"])
def test_the_workflow_may_do_little_and_runs_what_is_pinned(house: Path) -> None:
    text = (house / ".github" / "workflows" / "ci.yml").read_text()
    workflow = yaml.safe_load(text)

    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 30
        checkouts = [step for step in job["steps"] if "checkout@" in step.get("uses", "")]
        assert [step["with"] for step in checkouts] == [{"persist-credentials": False}]
    versions = next(iter(workflow["jobs"].values()))["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    uses = re.findall(r"uses: (.*)", text)
    assert uses
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in uses)


def test_the_projects_workflow_runs_its_check_and_skips_nothing() -> None:
    steps = yaml.safe_load((RAW / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["check"]["steps"]

    assert steps[-1] == {"run": "make check", "env": {"FORBID_SKIPS": "1"}}


def test_the_menu_lists_every_rule(bake: Bake) -> None:
    for house in (ROOT, bake()):
        rules = set(re.findall(r"^([a-z]+):", (house / "Makefile").read_text(), re.MULTILINE))
        shown = set(re.findall(r"^  make (\w+) ", run("make", cwd=house).stdout, re.MULTILINE))
        assert rules == shown
