"""Which files a project has, and what holds for all of them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Container, Iterable
from pathlib import Path

import pytest
import yaml

from .conftest import (
    COMBINATIONS,
    DEPLOYMENTS,
    EVERYTHING,
    RAW,
    ROOT,
    Answers,
    Bake,
    copy_of_template,
    generate,
    name_of,
    run,
)
from .contents import NOT_RENDERED, check_no_jinja, check_syntax, files, is_executable, tree

# What a file or folder is there for, where it is not for every project.
SERVERS = {
    "gunicorn": {"gunicorn.conf.py", "tests/test_gunicorn_conf.py", "deploy/nginx/gunicorn.conf"},
    "uwsgi": {"uwsgi.ini", "tests/test_uwsgi_ini.py", "deploy/nginx/uwsgi.conf"},
}
PODS = "deploy/kubernetes/base"
DATABASES = {
    "postgresql": {f"{PODS}/migrate.yaml", f"{PODS}/autoscaling.yaml", f"{PODS}/disruption.yaml"},
    "sqlite": {f"{PODS}/volume.yaml"},
}
IMAGE = {"Dockerfile", ".dockerignore", "tests/servers/test_healthcheck.py", ".github/workflows/image.yml"}
DEPLOYED = {
    "container": {"compose.yaml"} | IMAGE,
    "kubernetes": {"deploy/kubernetes/"} | IMAGE,
    "systemd": {"deploy/systemd/", "deploy/nginx/"},
    "tracing": {"tests/servers/test_tracing.py", "tests/servers/collector.py"},
    "error_reporting": {"tests/servers/test_error_reporting.py", "tests/servers/collector.py"},
}
CI = {"github": {".github/"}, "gitlab": {".gitlab-ci.yml"}}
HOOK = ROOT / "hooks" / "post_gen_project.py"
each_combination = pytest.mark.parametrize("answers", COMBINATIONS, ids=name_of)
each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS)
with_hooks_or_without = pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "no hooks"])


def belongs(path: str, folders: Iterable[str]) -> bool:
    """Tell whether a file is one of these, or lies in one of these folders, which end with a slash."""
    return any(path == folder or (folder.endswith("/") and path.startswith(folder)) for folder in folders)


def asked_for(path: str, answers: Answers) -> bool:
    """Tell whether a project of some answers has a file; defaults count where nothing was answered."""
    asked = {"container": True, "ci": "github", **answers}
    servers = SERVERS if asked["server"] == "both" else {asked["server"]}
    places: list[tuple[dict[str, set[str]], Container[object]]] = [
        (SERVERS, servers),
        (DATABASES, {asked["database"]}),
        (DEPLOYED, {name for name in DEPLOYED if asked.get(name)}),
        (CI, {asked["ci"]}),
    ]
    for table, chosen in places:
        reasons = [name for name, folders in table.items() if belongs(path, folders)]
        if reasons and not any(name in chosen for name in reasons):
            return False
    return True


@each_combination
@each_deployment
def test_a_project_has_the_files_its_answers_ask_for(answers: Answers, deployment: str, bake: Bake) -> None:
    both = answers | DEPLOYMENTS[deployment]
    everything = tree(bake(hooks=False))

    project = bake(**both)

    assert tree(project) == {path for path in everything if asked_for(path, both)}
    assert not [path for path in project.rglob("*") if path.is_dir() and not any(path.iterdir())]


@each_combination
def test_without_hooks_some_files_are_too_many_and_none_is_missing(answers: Answers, bake: Bake) -> None:
    assert tree(bake(hooks=False, **answers)) >= tree(bake(**answers))
    assert tree(bake(hooks=False, **answers)) == tree(bake(hooks=False))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"container": False}, "docker|compose"),
        ({}, "deploy/|kubectl|kustom|systemctl|nginx -"),
        ({"ci": "none"}, r"\.github|gitlab"),
        ({"ci": "gitlab"}, r"\.github"),
        ({}, "gitlab"),
        ({}, "OTEL_|SENTRY_DSN"),
        ({**EVERYTHING, "server": "gunicorn"}, "uwsgi_(pass|param)"),
        ({**EVERYTHING, "server": "uwsgi"}, "proxy_pass"),
        ({**EVERYTHING, "database": "sqlite"}, "POSTGRES_|postgres:18|port: 5432"),
    ],
    ids=str,
)
def test_what_was_not_chosen_leaves_no_trace(answer: Answers, words: str, bake: Bake) -> None:
    for path in files(bake(**answer)):
        # Tests look what is there; they and the guide to failures speak of what may be.
        if path.suffix not in {".py", ".md"} or path.name == "README.md":
            assert not re.search(words, path.read_text(), re.IGNORECASE), path


@each_deployment
@each_combination
def test_every_file_is_what_its_name_says(answers: Answers, deployment: str, bake: Bake) -> None:
    check_syntax(bake(**answers | DEPLOYMENTS[deployment]))


@each_deployment
@each_combination
def test_no_jinja_is_left(answers: Answers, deployment: str, bake: Bake) -> None:
    check_no_jinja(bake(**answers | DEPLOYMENTS[deployment]))


@each_combination
def test_what_is_too_many_without_hooks_is_right_too(answers: Answers, bake: Bake) -> None:
    check_syntax(bake(hooks=False, **answers))
    check_no_jinja(bake(hooks=False, **answers))


def test_every_row_of_the_hook_decides_about_a_file(bake: Bake) -> None:
    rows = re.findall(r'^    "(.+?)": ', HOOK.read_text(), re.MULTILINE)
    everything = tree(bake(hooks=False))
    kept = [tree(bake(**answers | chosen)) for answers in COMBINATIONS for chosen in DEPLOYMENTS.values()]

    for row in rows:
        about = {path for path in everything if path == row or path.startswith(f"{row}/")}
        assert about, row
        assert any(about & project for project in kept), row
        assert any(not about & project for project in kept), row


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
    hook = hook.replace("{{ cookiecutter.container }}", "True").replace("{{ cookiecutter.ci }}", "github")

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


WORKFLOWS = [path for house in (ROOT, RAW) for path in sorted((house / ".github" / "workflows").iterdir())]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda path: f"{path.parents[2].name}-{path.stem}")
def test_the_workflow_may_do_little_and_runs_what_is_pinned(file: Path) -> None:
    text = file.read_text()
    workflow = yaml.safe_load(text)

    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 30
        checkouts = [step for step in job["steps"] if "checkout@" in step.get("uses", "")]
        assert [step["with"] for step in checkouts] == [{"persist-credentials": False}]
    if file.stem == "ci":
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
