"""The doctor's findings, its output and its exit codes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from {{cookiecutter.package_name}}.foundation.configuration import MAKE_KEY, ServiceSettings
from {{cookiecutter.package_name}}.foundation.serving import doctor

from ..sample.app import create_app
from ..servers import MODULE, PACKAGE, Project

KEY = "gB3vQx9-LmT7_pRz2WcYh5NdKe8UaJf4SoXi6VtMq1rCbHwPZGEy0Dkl"
HAS_POSTGRESQL = importlib.util.find_spec("psycopg") is not None
SQLITE = f"sqlite:///{tempfile.gettempdir()}/notes.db"
ENCRYPTED = "postgresql://notes:pw-of-its-own@db.example.com/notes?sslmode=verify-full"
UNENCRYPTED = "postgresql://notes:pw-of-its-own@db.example.com/notes"
GOOD = {
    "DATABASE_URL": ENCRYPTED if HAS_POSTGRESQL else SQLITE,
    "SECRET_KEY": KEY,
    "TRUSTED_HOSTS": "example.com",
}

WRONG = [
    ("APP_ENV is development", {"APP_ENV": "development"}),
    ("APP_ENV is testing", {"APP_ENV": "testing"}),
    ("DATABASE_TIMEOUT permits statements of 30 seconds", {"DATABASE_TIMEOUT": "30"}),
    ("WEB_BIND accepts connections", {"WEB_BIND": "0.0.0.0:8000"}),
    ("WEB_BIND accepts connections", {"WEB_BIND": "0.0.0.0:8000", "WEB_WORKER_CLASS": "sync"}),
    ("QUEUE_LIMIT is 0 ms", {"QUEUE_LIMIT": "0"}),
    ("QUEUE_LIMIT is 5000 ms", {"QUEUE_LIMIT": "5000"}),
    ("TRUSTED_HOSTS is not set", {"TRUSTED_HOSTS": ""}),
    ("FORWARDED_ALLOW_IPS trusts every peer", {"FORWARDED_ALLOW_IPS": "127.0.0.1,*"}),
    ("METRICS_BIND accepts connections", {"METRICS_BIND": "0.0.0.0:9100"}),
    ("LOG_LEVEL is debug", {"LOG_LEVEL": "debug"}),
    ("LOG_FORMAT is text", {"LOG_FORMAT": "text"}),
    ("UNCOMMITTED_WORK is off", {"UNCOMMITTED_WORK": "off"}),
    ("SECRET_KEY is a sentence", {"SECRET_KEY": "every good boy does fine on sunny afternoons"}),
    ("FORWARDED_ALLOW_IPS trusts every peer", {"FORWARDED_ALLOW_IPS": "0.0.0.0/0"}),
]
REFUSED = [
    ("FLASK_DEBUG shows clients tracebacks", {"FLASK_DEBUG": "1"}),
    ("SECRET_KEY can be guessed", {"SECRET_KEY": "x1" * 20}),
    ("SECRET_KEY can be guessed", {"SECRET_KEY": KEY + "-changeme"}),
    ("LOG_LEVL is no setting", {"LOG_LEVL": "debug"}),
]
ACCEPTED = [
    {"DATABASE_TIMEOUT": "29"},
    {"QUEUE_LIMIT": "4999"},
    {"WEB_BIND": "0.0.0.0:8000", "FORWARDED_ALLOW_IPS": "10.0.0.0/8"},
    {"WEB_BIND": "0.0.0.0:8000", "WEB_WORKER_CLASS": "gevent"},
    {"WEB_BIND": "0.0.0.0:8000", "WEB_WORKER_CLASS": "gthread_patient"},
    {"WEB_BIND": "fd://3"},
    {"FORWARDED_ALLOW_IPS": "10.0.0.0/8"},
    {"METRICS_BIND": "127.0.0.1:9100"},
    {"LOG_LEVEL": "warning"},
    {"UNCOMMITTED_WORK": "raise"},
    {"FLASK_DEBUG": "0"},
]
if HAS_POSTGRESQL:
    password, several = "contains a password that attackers try", "?host=localhost&host=db-2:5432"
    WRONG += [
        (f"DATABASE_URL {problem}", {"DATABASE_URL": url})
        for problem, url in [
            ("names SQLite", SQLITE),
            (password, ENCRYPTED.replace("pw-of-its-own", "notes")),
            (password, ENCRYPTED.replace("pw-of-its-own", "postgres")),
            (password, f"postgresql://notes:postgres@/notes{several}&sslmode=require"),
            ("permits an unencrypted connection", UNENCRYPTED),
            ("permits an unencrypted connection", UNENCRYPTED + "?sslmode=prefer"),
            ("permits an unencrypted connection", f"postgresql://notes:pw-of-its-own@/notes{several}"),
            ("names the database's superuser", ENCRYPTED.replace("notes:", "postgres:")),
        ]
    ]
    WRONG += [
        (
            "DATABASE_URL permits an unencrypted connection",
            {"DATABASE_URL": UNENCRYPTED + "?sslmode=disable", "PGSSLMODE": "verify-full"},
        )
    ]
    REFUSED += [
        ("DATABASE_URL names another machine's", {"DATABASE_URL": ENCRYPTED.replace(":pw-of-its-own", "")})
    ]
    ACCEPTED += [
        {"DATABASE_URL": UNENCRYPTED + "?sslmode=require"},
        {"DATABASE_URL": UNENCRYPTED, "PGSSLMODE": "verify-full"},
        {"DATABASE_URL": "postgresql://db.example.com/notes?sslmode=require&passfile=/run/pgpass"},
        {"DATABASE_URL": "postgresql://postgres:postgres@localhost/notes"},
    ]

# The end of an app.py with an owner's changes.
CHANGED_APP = """
_unchanged = create_app
def create_app(settings=None):
    app = _unchanged(settings)
    app.config["MAX_CONTENT_LENGTH"] = None
    return app
"""
LIMITS = ["MAX_CONTENT_LENGTH", "MAX_FORM_MEMORY_SIZE", "MAX_FORM_PARTS"]
UNSAFE_COOKIES = {
    "SESSION_COOKIE_SECURE": False,
    "SESSION_COOKIE_HTTPONLY": False,
    "SESSION_COOKIE_SAMESITE": "None",
}
# Whether the owner's application keeps sessions, its changed configuration, and the findings.
CHANGES: list[tuple[bool, dict[str, object], list[str]]] = [
    (False, {"DEBUG": True, "TESTING": True}, ["DEBUG", "TESTING"]),
    (False, {"PROPAGATE_EXCEPTIONS": True}, ["PROPAGATE_EXCEPTIONS"]),
    (False, dict.fromkeys(LIMITS), LIMITS),
    (False, {"MAX_CONTENT_LENGTH": 8 * 1024 * 1024} | UNSAFE_COOKIES, []),
    (True, {}, []),
    (True, {"SESSION_COOKIE_SAMESITE": "strict"}, []),
    (True, UNSAFE_COOKIES, list(UNSAFE_COOKIES)),
]


class Environment:
    """A good environment, which tests change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def examine(self, changes: dict[str, str]) -> list[str]:
        """Run the doctor, check its exit code and count, and return the first line of each finding."""
        for name, value in changes.items():
            self.monkeypatch.setenv(name, value)
        code = doctor.main()
        *lines, count = self.capsys.readouterr().out.splitlines()
        found = [line for line in lines if not line.startswith("    ")]
        assert len(lines) == 2 * len(found)
        assert (count, code) == (f"findings: {len(found)}", 1 if found else 0)
        return found


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Environment:
    """An environment and a user without findings."""
    ours = {name.upper() for name in ServiceSettings.model_fields} | {"FLASK_DEBUG"}
    for name in os.environ:
        if name in ours or name.startswith("PG"):
            monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    monkeypatch.setattr(doctor, "settings_class", lambda: ServiceSettings)
    monkeypatch.setattr(doctor, "create_app", create_app)
    return Environment(monkeypatch, capsys)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project with the sample service."""
    return Project(tmp_path / "project")


def run(module: str, environment: dict[str, str], project: Project) -> subprocess.CompletedProcess[str]:
    """Run a module of `foundation.serving` with only this environment."""
    return subprocess.run(
        [sys.executable, "-m", f"{MODULE}.foundation.serving.{module}"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(project.folder / "src")} | environment,
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def names(output: str) -> list[str]:
    """Return the names of the findings, except the one caused by the user who runs the tests."""
    found = re.findall(r"^(\w+) ", output, re.MULTILINE)
    if os.geteuid() == 0:
        found.remove("UID")
    return found


def test_a_good_environment_has_no_findings(environment: Environment) -> None:
    """A good environment has no output, and exit code 0."""
    assert environment.examine({}) == []


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_an_acceptable_setting_is_no_finding(environment: Environment, changes: dict[str, str]) -> None:
    """A value on the safe side of a limit is not a finding."""
    assert environment.examine(changes) == []


@pytest.mark.parametrize(("finding", "changes"), WRONG)
def test_a_wrong_setting_is_the_only_finding(
    environment: Environment, finding: str, changes: dict[str, str]
) -> None:
    """Each wrong setting is one finding, and no other check fires."""
    (found,) = environment.examine(changes)

    assert found.startswith(finding)
    assert "would not start" not in found


@pytest.mark.parametrize(("finding", "changes"), REFUSED)
def test_a_refusal_to_start_is_the_only_finding(
    environment: Environment, finding: str, changes: dict[str, str]
) -> None:
    """Each reason to refuse startup is a finding marked as such, and no other check fires."""
    (found,) = environment.examine(changes)

    assert found.startswith(finding)
    assert found.endswith("; the service would not start")


def test_development_is_examined_as_production(environment: Environment) -> None:
    """In development the doctor reports what production would reject, but not development defaults."""
    found = environment.examine({"APP_ENV": "development", "SECRET_KEY": "x1" * 20})

    assert [line.split()[0] for line in found] == ["APP_ENV", "SECRET_KEY"]


def test_json_has_the_same_findings(environment: Environment) -> None:
    """With --json the output is one list of names, problems and fixes, and the exit code is the same."""
    environment.monkeypatch.setattr(sys, "argv", ["doctor", "--json"])
    code = doctor.main()
    assert (json.loads(environment.capsys.readouterr().out), code) == ([], 0)

    environment.monkeypatch.setenv("LOG_LEVEL", "debug")
    code = doctor.main()
    (finding,) = json.loads(environment.capsys.readouterr().out)

    assert code == 1
    assert finding == {
        "name": "LOG_LEVEL",
        "problem": "is debug: libraries may log data of clients",
        "fix": "set LOG_LEVEL=info",
    }


def test_root_is_found(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The superuser is a finding."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    (found,) = environment.examine({})

    assert found.startswith("UID is 0 (root)")


def test_the_command_reports_what_production_refuses(project: Project) -> None:
    """One run reports all findings of an environment in which the service would exit with 78."""
    environment = GOOD | {"FLASK_DEBUG": "1", "SECRET_KEY": "x1" * 20, "LOG_LEVL": "x", "TRUSTED_HOSTS": ""}

    refused = run("project", environment, project)
    done = run("doctor", environment, project)

    assert refused.returncode == 78
    assert len(refused.stderr.splitlines()) == 3
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert names(done.stdout) == ["LOG_LEVL", "FLASK_DEBUG", "SECRET_KEY", "TRUSTED_HOSTS"]
    assert f"SECRET_KEY can be guessed; the service would not start\n    {MAKE_KEY}\n" in done.stdout


def test_the_doctor_ends_with_78_without_settings(environment: Environment) -> None:
    """If no settings can be built, each reason is one line, and the exit code is 78."""
    environment.monkeypatch.delenv("DATABASE_URL")

    with pytest.raises(SystemExit) as ended:
        environment.examine({"SECRET_KEY": "short", "WEB_THREADS": "many", "LOG_LEVL": "debug"})

    out, err = environment.capsys.readouterr()
    assert (ended.value.code, out) == (78, "")
    problems = re.findall(r"^configuration error: (\w+) ", err, re.MULTILINE)
    assert problems == ["DATABASE_URL", "SECRET_KEY", "WEB_THREADS", "LOG_LEVL"]
    assert len(err.splitlines()) == len(problems)


@pytest.mark.parametrize(("sessions", "config", "expected"), CHANGES)
def test_a_change_of_the_application_is_found(
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    sessions: bool,
    config: dict[str, object],
    expected: list[str],
) -> None:
    """The doctor finds the owner's changes, and cookie settings only in an application with sessions."""

    def changed(settings: ServiceSettings) -> Flask:
        app = create_app(settings)
        app.config.update(config)
        if sessions:
            app.session_interface = SecureCookieSessionInterface()
        return app

    monkeypatch.setattr(doctor, "create_app", changed)

    assert [line.split()[0] for line in environment.examine({})] == expected


def test_the_command_examines_app_py(project: Project) -> None:
    """The command checks the application built by the project's app.py."""
    project.append(f"{PACKAGE}/app.py", CHANGED_APP)

    done = run("doctor", GOOD, project)

    assert names(done.stdout) == ["MAX_CONTENT_LENGTH"], done.stderr
    assert done.stderr == ""
    assert done.returncode == 1
