"""Daily commands of a new project: `make dev`, `cli`, `settings`, `format` and `coverage`."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import yaml

from .conftest import BOUND
from .processes import run, serve


def own_database(tmp_path: Path) -> dict[str, str]:
    """Return the setting of a database for this test only."""
    return {"DATABASE_URL": f"sqlite:///{tmp_path}/own.db"}


def test_make_cli_runs_and_lists_commands(default: Path, tmp_path: Path) -> None:
    """`make cli` lists the commands, runs one with its arguments, and leaves quotes to the shell."""
    env = own_database(tmp_path)
    run("make", "migrate", cwd=default, env=env)

    listed = run("make", "cli", cwd=default, env=env)
    done = run("make", "cli", "ARGS=seed 3", cwd=default, env=env)
    wrong = run("make", "cli", "ARGS=seed 'two words'", cwd=default, env=env, status=2)

    assert re.search("^  seed +Add COUNT notes", listed.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1] == "3 notes added"
    assert "Error: Invalid value for 'COUNT': 'two words' is not" in wrong.stderr


def test_make_settings_lists_values_and_problems(default: Path) -> None:
    """`make settings` lists the values of .env and of the environment, and fails where one is wrong."""
    listed = run("make", "settings", cwd=default, env={"LOG_LEVEL": "warning"}).stdout.splitlines()
    wrong = run("make", "settings", cwd=default, env={"WEB_THREADS": "many"}, status=2)

    assert {"APP_ENV=development", "LOG_LEVEL=warning", "SECRET_KEY=**********"} <= set(listed)
    assert "\nWEB_THREADS is not a number such as 4" in wrong.stdout
    assert "Error 78" in wrong.stderr


def test_make_dev_serves_and_logs_statements(default: Path, tmp_path: Path) -> None:
    """`make dev SQL=1` migrates, serves, logs statements and requests, and Ctrl-C leaves no process."""
    env = own_database(tmp_path)
    with serve("make", "dev", "SQL=1", cwd=default, log=tmp_path / "log", env=env) as server:
        server.wait_until_ready()
        assert server.get("/notes").status == 200
        server.wait_for_log("GET /notes 200")
        server.signal_all(signal.SIGINT)
        server.wait()

        assert server.log.count("INFO sql: SELECT notes.id") == 1
        assert server.log.count("GET /notes 200") == 1
        assert "Traceback" not in server.log
        assert not server.is_running()


def test_make_format_formats_despite_findings(project: Path) -> None:
    """`make format` formats a file in which lint finds what it cannot fix, and lists that."""
    file = project / "src" / "notes_service" / "notes" / "odd.py"
    file.write_text("def odd( )->None:\n  print( 'a line that is left' )\n")

    done = run("make", "format", cwd=project)

    assert "T201" in done.stdout
    assert file.read_text() == 'def odd() -> None:\n    print("a line that is left")\n'


def test_make_coverage_lists_the_owners_lines(project: Path) -> None:
    """`make coverage` runs the owner's tests, and lists the lines of the owner's modules that none runs."""
    table = run("make", "coverage", cwd=project, timeout=BOUND).stdout.partition("Missing\n")[2]

    assert "src/notes_service/notes/views.py" in table
    assert "foundation" not in table


def test_the_hook_of_pre_commit_is_a_make_command(project: Path) -> None:
    """The command of .pre-commit-config.yaml is one that the project has."""
    (repository,) = yaml.safe_load((project / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repository["hooks"]

    assert (repository["repo"], hook["language"]) == ("local", "system")
    run(*hook["entry"].split(), "--dry-run", cwd=project)


def test_make_doctor_proves_a_rule_on_a_postgresql_it_brings(default: Path) -> None:
    """`make doctor EXPLAIN=N103 PROVE=1` shows the hazard on a PostgreSQL that the project brings."""
    env = {"TEST_DATABASE_URL": ""}

    shown = run("make", "doctor", "EXPLAIN=N103", "PROVE=1", cwd=default, timeout=BOUND, env=env)

    assert "As it is:\n    the commit of bob's request stored alice's rejected order\n" in shown.stdout
    assert shown.stdout.endswith("After the fix:\n    nothing went wrong\n")
    assert shown.stderr == ""
