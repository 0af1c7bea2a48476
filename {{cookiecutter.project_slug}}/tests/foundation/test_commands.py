"""Commands of the project, found by the name of their module and run like `flask` runs them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from flask import Flask

from {{cookiecutter.package_name}}.foundation.commands import Commands

from .fixtures import SECRET
from .processes import run
from .servers import MODULE, PACKAGE, Project

ADD = """
import click
from ..foundation.database import db, transaction
from ..samples import add_sample, newest_samples

@click.command()
@click.argument("texts", nargs=-1, required=True)
def add(texts: tuple[str, ...]) -> None:
    "Add samples; `fail` fails."
    with transaction() as session:
        for text in texts:
            add_sample(session, text)
            if text == "fail":
                raise RuntimeError("a bug in a command")
    click.echo(f"added {list(texts)}")

@click.group()
def rows() -> None:
    "Commands about rows."

@rows.command()
def count() -> None:
    click.echo(len(newest_samples(db.session(), limit=100).rows))
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project with a feature that has commands."""
    project = Project(tmp_path / "project")
    feature = project.folder / PACKAGE / "orders"
    feature.mkdir()
    (feature / "__init__.py").touch()
    (feature / "commands.py").write_text(ADD)
    return project


@pytest.fixture
def settings(database_url: str) -> dict[str, str]:
    """The settings of a service on a migrated database."""
    return {"APP_ENV": "testing", "DATABASE_URL": database_url, "SECRET_KEY": SECRET, "PYTHONPATH": "src"}


def flask(
    project: Project, settings: Mapping[str, str], *arguments: str, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run `flask` in a project, and check its exit code."""
    program = str(Path(sys.executable).parent / "flask")
    command = (program, "--app", f"{MODULE}.wsgi", *arguments)
    return run(*command, cwd=project.folder, status=status, env=settings)


def test_a_command_commits_or_rolls_back(project: Project, settings: dict[str, str]) -> None:
    """A command commits its transaction; one that raises rolls back, and exits with 1 and a traceback."""
    done = flask(project, settings, "add", "two words", "it's")
    failed = flask(project, settings, "add", "lost", "fail", status=1)
    count = flask(project, settings, "rows", "count")

    assert done.stdout == """added ['two words', "it's"]\n"""
    assert failed.stderr.endswith("RuntimeError: a bug in a command\n")
    assert count.stdout == "2\n"


def test_the_commands_are_listed(project: Project, settings: dict[str, str]) -> None:
    """The list has each command with a line; the commands of a group are listed only in the group."""
    done = flask(project, settings, "--help")
    group = flask(project, settings, "rows", "--help")

    commands = done.stdout.partition("Commands:\n")[2]
    lines = [line.split(maxsplit=1) for line in commands.splitlines()]
    assert ["add", "Add samples; `fail` fails."] in lines
    assert ["delete-idempotency-keys", "Delete old idempotency keys."] in lines
    assert ["rows", "Commands about rows."] in lines
    assert "count" not in commands
    assert "  count\n" in group.stdout


def test_wrong_arguments_exit_with_2(project: Project, settings: dict[str, str]) -> None:
    """Invalid arguments and an unknown command exit with 2 and one line with the reason."""
    missing = flask(project, settings, "add", status=2)
    unknown = flask(project, settings, "sow", status=2)

    assert missing.stderr.endswith("Error: Missing argument 'TEXTS...'.\n")
    assert unknown.stderr.endswith("Error: No such command 'sow'.\n")


def test_a_wrong_setting_exits_with_78(project: Project, settings: dict[str, str]) -> None:
    """An invalid setting exits with 78 and one line."""
    done = flask(project, settings | {"SECRET_KEY": "short"}, "add", "text", status=78)

    assert done.stderr.startswith("configuration error: SECRET_KEY is shorter than 32 characters")
    assert len(done.stderr.splitlines()) == 1


def test_servers_do_not_import_commands(app: Flask) -> None:
    """The modules of commands are imported only when a command is looked up."""
    assert isinstance(app.cli, Commands)
    assert app.cli.package == app.import_name


def test_two_commands_of_one_name_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands with one name raise an error that names the second module."""
    for feature in ("a", "b"):
        folder = tmp_path / "twice" / feature
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "commands.py").write_text("import click\n\n@click.command()\ndef seed(): ...\n")
    (tmp_path / "twice" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    commands = Commands("twice")

    with pytest.raises(RuntimeError, match=r"twice\.b\.commands: another command is named seed, rename one"):
        commands.list_commands(click.Context(commands))
