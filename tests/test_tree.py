"""The files of a project, and the rules for all of them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

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
)
from .contents import NOT_RENDERED, check_no_jinja, check_syntax, files, is_executable, tree
from .processes import run

HOOK = ROOT / "hooks" / "post_gen_project.py"
ROWS = [
    row.replace("{{cookiecutter.package_name}}", "notes_service")
    for row in re.findall(r'^    "(.+?)": ', HOOK.read_text(), re.MULTILINE)
]
PODS = "deploy/kubernetes/base"
each_combination = pytest.mark.parametrize("answers", COMBINATIONS, ids=name_of)
each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS)
with_hooks_or_without = pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "no hooks"])


@pytest.mark.parametrize(
    ("answers", "present", "absent"),
    [
        (
            {},
            "Dockerfile compose.yaml gunicorn.conf.py uwsgi.ini .github deploy/prometheus",
            "deploy/kubernetes deploy/nginx deploy/systemd .gitlab-ci.yml",
        ),
        ({"server": "gunicorn"}, "gunicorn.conf.py", "uwsgi.ini"),
        (
            {"notebooks": False},
            "src/*/foundation/loading.py",
            "notebooks requirements/notebook.txt src/*/foundation/notebook.py tests/**/test_notebook*",
        ),
        ({"server": "uwsgi"}, "uwsgi.ini", "gunicorn.conf.py"),
        ({"container": False, "ci": "none"}, "", "Dockerfile compose.yaml .github renovate.json"),
        ({"ci": "gitlab"}, ".gitlab-ci.yml Dockerfile renovate.json", ".github"),
        ({"systemd": True, "server": "uwsgi"}, "deploy/nginx/uwsgi.conf", "deploy/nginx/gunicorn.conf"),
        (
            {"container": False, "kubernetes": True},
            "Dockerfile deploy/kubernetes",
            "compose.yaml deploy/nginx",
        ),
        ({"kubernetes": True}, f"{PODS}/migrate.yaml", f"{PODS}/volume.yaml"),
        ({"kubernetes": True, "database": "sqlite"}, f"{PODS}/volume.yaml", f"{PODS}/migrate.yaml"),
        (
            {"tracing": True},
            "**/test_tracing.py **/collector.py",
            "**/test_error_reporting.py",
        ),
        ({"error_reporting": True}, "**/test_error_reporting.py **/collector.py", "**/test_tracing.py"),
    ],
    ids=str,
)
def test_an_answer_decides_about_files(answers: Answers, present: str, absent: str, bake: Bake) -> None:
    """A project has exactly the files and folders of its answers."""
    project = bake(**answers)

    assert [path for path in present.split() if not list(project.glob(path))] == []
    assert [path for path in absent.split() if list(project.glob(path))] == []


@each_combination
@each_deployment
def test_the_hook_removes_only_its_rows(answers: Answers, deployment: str, bake: Bake) -> None:
    """The hook removes only the files of its rows, and each folder that becomes empty."""
    project = bake(**answers | DEPLOYMENTS[deployment])

    removed = tree(bake(hooks=False)) - tree(project)
    assert [path for path in removed if not f"{path}/".startswith(tuple(f"{row}/" for row in ROWS))] == []
    assert not [path for path in project.rglob("*") if path.is_dir() and not any(path.iterdir())]


@each_combination
def test_without_hooks_every_possible_file_is_present(answers: Answers, bake: Bake) -> None:
    """Without hooks, every combination has the same files, including all that it has with hooks."""
    assert tree(bake(hooks=False, **answers)) >= tree(bake(**answers))
    assert tree(bake(hooks=False, **answers)) == tree(bake(hooks=False))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"container": False}, "docker|compose"),
        ({}, "deploy/[^p]|kubectl|kustom|systemctl|nginx -"),
        ({"ci": "none"}, r"\.github|gitlab"),
        ({"ci": "gitlab"}, r"\.github"),
        ({}, "gitlab"),
        ({"notebooks": False}, "jupyter|notebook: "),
        ({}, "OTEL_|SENTRY_DSN"),
        ({**EVERYTHING, "server": "gunicorn"}, "uwsgi_(pass|param)"),
        ({**EVERYTHING, "server": "uwsgi"}, "proxy_pass"),
        ({**EVERYTHING, "database": "sqlite"}, "POSTGRES_|postgres:18|port: 5432"),
    ],
    ids=str,
)
def test_what_was_not_chosen_leaves_no_trace(answer: Answers, words: str, bake: Bake) -> None:
    """No README or configuration file outside the foundation mentions a feature that was not chosen."""
    for path in files(bake(**answer)):
        # Tests, their data and the guide to failures name files that only some projects have.
        if path.parent.name != "foundation" and (
            path.suffix not in {".py", ".md"} or path.name == "README.md"
        ):
            assert not re.search(words, path.read_text(), re.IGNORECASE), path


@each_deployment
@each_combination
def test_every_file_parses(answers: Answers, deployment: str, bake: Bake) -> None:
    """Every Python, TOML, YAML, INI and shell file parses, for each combination of answers and deployment."""
    check_syntax(bake(**answers | DEPLOYMENTS[deployment]))


@each_deployment
@each_combination
def test_no_jinja_is_left(answers: Answers, deployment: str, bake: Bake) -> None:
    """No rendered file contains template syntax, for each combination of answers and deployment."""
    check_no_jinja(bake(**answers | DEPLOYMENTS[deployment]))


@each_combination
def test_surplus_files_without_hooks_are_valid(answers: Answers, bake: Bake) -> None:
    """Without hooks, the surplus files parse too, and no rendered file contains template syntax."""
    check_syntax(bake(hooks=False, **answers))
    check_no_jinja(bake(hooks=False, **answers))


def test_every_row_of_the_hook_decides_about_a_file(bake: Bake) -> None:
    """Every row of the hook matches a file: some answers keep at least one of its files, and others none."""
    everything = tree(bake(hooks=False))
    kept = [tree(bake(**answers | chosen)) for answers in COMBINATIONS for chosen in DEPLOYMENTS.values()]

    for row in ROWS:
        about = {path for path in everything if path == row or path.startswith(f"{row}/")}
        assert about, row
        assert any(about & project for project in kept), row
        assert any(not about & project for project in kept), row


def test_every_copied_pattern_matches_a_file(bake: Bake) -> None:
    """The _copy_without_render patterns are those that the Jinja check skips, and each matches a file."""
    patterns = json.loads((ROOT / "cookiecutter.json").read_text())["_copy_without_render"]

    assert sorted(patterns) == sorted(NOT_RENDERED)
    for pattern in patterns:
        assert list(bake().rglob(pattern)), pattern


def test_python_files_have_no_jinja_blocks() -> None:
    """No Python file of the project folder contains a Jinja block, comment or line statement."""
    for path in RAW.rglob("*.py"):
        assert not re.search(r"\{[%#]|^\s*#%", path.read_text(), re.MULTILINE), path


def test_no_blank_line_follows_a_control_line() -> None:
    """No control line precedes a blank line, which Jinja removes: a table would take in the next line."""
    for path in files(RAW):
        lost = re.findall(r"^[ \t]*#%.*\n[ \t]*\n", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not lost, path


@each_combination
@each_deployment
def test_every_table_ends_where_its_rows_end(answers: Answers, deployment: str, bake: Bake) -> None:
    """Each table of each document is parsed as its rows, with as many cells each, and no other line."""
    for path in bake(**answers | DEPLOYMENTS[deployment]).rglob("*.md"):
        for table in tables(path.read_text(encoding="utf-8")):
            assert all(line.startswith("|") for line in table), (path, table)
            plain = [re.sub(r"`[^`]*`|\\.", "", line) for line in table]
            assert len({line.count("|") for line in plain}) == 1, (path, table)


def tables(text: str) -> list[list[str]]:
    """Return the lines of each table, as GitHub's kind of Markdown reads them."""
    lines = text.splitlines()
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    return [lines[slice(*token.map)] for token in tokens if token.type == "table_open" and token.map]


def test_no_tool_leaves_a_file_in_the_project_folder() -> None:
    """The project folder of the template contains no bytecode, tool cache or virtual environment."""
    # cookiecutter would treat it as part of the project.
    assert not [path for path in RAW.rglob("*") if re.search(r"__pycache__|_cache$|\.venv|\.pyc$", path.name)]


def test_the_same_answers_make_the_same_bytes(bake: Bake, tmp_path: Path) -> None:
    """Two projects generated with the same answers have the same files, byte for byte."""
    again = generate(tmp_path)

    assert tree(again) == tree(bake())
    for path in files(again):
        assert path.read_bytes() == (bake() / path.relative_to(again)).read_bytes()


def test_the_hook_changes_nothing_the_second_time(tmp_path: Path) -> None:
    """A second run of the post-generation hook adds and removes no file."""
    project = generate(tmp_path, {"server": "uwsgi"})
    before = tree(project)
    hook = HOOK.read_text().replace("{{ cookiecutter.server }}", "uwsgi")
    hook = hook.replace("{{ cookiecutter.container }}", "True").replace("{{ cookiecutter.ci }}", "github")
    hook = hook.replace("{{ cookiecutter.notebooks }}", "True")

    run(sys.executable, "-c", hook, cwd=project)

    assert tree(project) == before


def test_lines_end_with_a_newline_alone_and_yaml_has_no_tabs(bake: Bake) -> None:
    """No file has a carriage return, every nonempty file ends with a newline, and YAML has no tabs."""
    for path in files(bake()):
        content = path.read_bytes()
        assert b"\r" not in content, path
        assert content[-1:] in {b"", b"\n"}, path
        assert not (path.suffix in {".yml", ".yaml"} and b"\t" in content), path


@with_hooks_or_without
def test_scripts_can_be_run_and_nothing_else_can(hooks: bool, bake: Bake) -> None:
    """Every file in bin/ is executable and no other file is, with hooks and without."""
    for path in files(bake(hooks=hooks)):
        assert is_executable(path) == (path.parent.name == "bin"), path


def test_scripts_can_be_run_when_the_template_came_as_a_zip_file(tmp_path: Path) -> None:
    """The script bin/serve is executable even if no template file is, as after unpacking a zip file."""
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
    """No project file or template lock file sets a package index, and no requirements file has a URL."""
    for path in [*files(bake()), ROOT / "requirements" / "development.txt"]:
        text = path.read_text()
        assert not re.search(r"(?<!no-emit-)(extra-)?index-url|find-links|trusted-host", text), path
        assert path.parent.name != "requirements" or "://" not in text, path


@pytest.mark.parametrize("house", [ROOT, RAW], ids=["template", "project"])
def test_line_ends_are_those_of_unix(house: Path) -> None:
    """A checkout has the line ends of Unix on every machine, and no file has others."""
    assert "* text=auto eol=lf" in (house / ".gitattributes").read_text("utf-8").splitlines()
    for path in (house / "bin").rglob("*"):
        assert not path.is_file() or b"\r" not in path.read_bytes(), path


def test_files_are_small(bake: Bake) -> None:
    """Every file is smaller than 32,000 bytes, 70,000 in docs/ and 150,000 in requirements/."""
    for path in files(bake()):
        limit = {"requirements": 150_000, "docs": 70_000}.get(path.parent.name, 32_000)
        assert path.stat().st_size < limit, path


def test_generating_opens_no_connection(tmp_path: Path) -> None:
    """A project is generated without network access: no connection, name lookup or datagram."""
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
    """Workflows only read, cancel stale runs, time out, keep no token, pin actions; CI runs 3.11 to 3.14."""
    text = file.read_text()
    workflow = yaml.safe_load(text)

    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        checkouts = [step for step in job["steps"] if "checkout@" in step.get("uses", "")]
        assert [step["with"]["persist-credentials"] for step in checkouts] == [False]
    if file.stem == "ci":
        versions = next(iter(workflow["jobs"].values()))["strategy"]["matrix"]["python"]
        assert versions == ["3.11", "3.12", "3.13", "3.14"]
    uses = re.findall(r"uses: (.*)", text)
    assert uses
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in uses)


def test_the_projects_workflow_runs_its_check_and_skips_nothing() -> None:
    """The last step of the project's CI workflow runs `make check` with FORBID_SKIPS=1."""
    steps = yaml.safe_load((RAW / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["check"]["steps"]

    assert steps[-1] == {"run": "make check", "env": {"FORBID_SKIPS": "1"}}


def test_the_menu_lists_every_rule(bake: Bake) -> None:
    """The output of `make` lists exactly the Makefile's rules, in the template and in a project."""
    for house in (ROOT, bake()):
        rules = set(re.findall(r"^([a-z]+):", (house / "Makefile").read_text(), re.MULTILINE))
        shown = set(re.findall(r"^  make (\w+) ", run("make", cwd=house).stdout, re.MULTILINE))
        assert rules == shown
