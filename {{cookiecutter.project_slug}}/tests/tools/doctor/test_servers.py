"""Levels that depend on the server configuration next to the code."""

from pathlib import Path

import pytest
from tools.doctor.examination import examine

from .samples import notebook, write

APP = """
import threading
import joblib
from flask import Flask
from sqlalchemy import create_engine

app = Flask(__name__)
model = joblib.load("model")
used = joblib.load("used")
used.predict([[1]])
with create_engine("sqlite://").connect() as connection:
    connection.commit()
"""
THREAD = APP + "threading.Thread(target=print).start()\n"
LOW = {"N102": "warning", "N402": "note", "N403": "warning"}
HIGH = {"N102": "error", "N402": "warning", "N403": "error", "N601": "error"}


@pytest.mark.parametrize(
    ("name", "text", "levels"),
    [
        ("none.txt", "", LOW),
        ("gunicorn.conf.py", "workers = 4\n", LOW),
        ("gunicorn.conf.py", "preload_app = False\n", LOW),
        ("gunicorn.conf.py", "preload_app = True\n", HIGH),
        ("gunicorn.conf.py", "import os\npreload_app = bool(os.environ.get('A'))\n", HIGH),
        ("gunicorn.conf.py", "preload_app = (\n", LOW | {"X901": "note"}),
        ("Procfile", "web: gunicorn app:app\n", LOW),
        ("Procfile", "web: gunicorn --preload app:app\n", HIGH),
        ("uwsgi.ini", "[uwsgi]\nmaster = true\nprocesses = 4\n", HIGH),
        ("uwsgi.ini", "[uwsgi]\nprocesses = 4\nlazy-apps = true\n", LOW),
        ("uwsgi.ini", "[uwsgi]\nprocesses = 4\nlazy-apps\n", LOW),
        ("uwsgi.ini", "[uwsgi]\nmodule = app:app\n", LOW),
        ("service.ini", "; comment\n[uwsgi]\nworkers = 2\nif-env = A\nworkers = 3\nendif =\n", HIGH),
        ("other.ini", "[tool]\nprocesses = 4\n", LOW),
    ],
)
def test_levels_follow_the_server(name: str, text: str, levels: dict[str, str], tmp_path: Path) -> None:
    """An object that crosses a fork is worse if the server preloads the code; the setting is a finding."""
    write(tmp_path, {"app.py": APP, name: text or " "})

    assert {finding.rule: finding.level for finding in examine([tmp_path])[0]} == levels


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ("lazy-apps = true", {"N401", "N601"}),
        ("lazy-apps = true\nenable-threads = true", {"N401"}),
        ("lazy-apps = true\nthreads = 4", {"N401"}),
    ],
)
def test_uwsgi_needs_its_option_for_threads(options: str, rules: set[str], tmp_path: Path) -> None:
    """Without enable-threads or threads, uWSGI runs no thread of the code."""
    write(tmp_path, {"app.py": THREAD, "uwsgi.ini": f"[uwsgi]\nmaster = true\n{options}\n"})

    found = {finding.rule for finding in examine([tmp_path])[0]} - set(LOW)

    assert found == rules


def test_the_configuration_above_the_code_counts(tmp_path: Path) -> None:
    """The nearest configuration counts, up to the root of the project."""
    write(tmp_path, {"src/shop/app.py": APP, "uwsgi.ini": "[uwsgi]\nmaster = true\n", "pyproject.toml": " "})

    findings, _ = examine([tmp_path / "src" / "shop"])

    (setting,) = [finding for finding in findings if finding.rule == "N601"]
    assert setting.place.path.endswith("uwsgi.ini")
    assert {use.where.split()[0] for use in setting.uses} == {"N102", "N403"}


def test_a_notebook_does_not_contradict_the_configuration(tmp_path: Path) -> None:
    """A notebook's object crosses no fork, because servers do not load notebooks."""
    cells = "import sqlite3", "conn = sqlite3.connect('a.db')", "conn.execute('SELECT 1')"
    write(tmp_path, {"notebooks/mine.ipynb": notebook(*cells), "gunicorn.conf.py": "preload_app = True\n"})

    assert {finding.level for finding in examine([tmp_path])[0]} == {"note"}


def test_the_configuration_of_another_project_does_not_count(tmp_path: Path) -> None:
    """The search ends at the root of the project."""
    write(tmp_path, {"a/pyproject.toml": " ", "a/app.py": APP, "uwsgi.ini": "[uwsgi]\nmaster = true\n"})

    assert {finding.rule: finding.level for finding in examine([tmp_path / "a"])[0]} == LOW
