"""The record of an imported application that serves a request in two forked processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .samples import TOOL, run_tool, write

ENGINE = """
from flask import Flask
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
engine = create_engine("sqlite:///shop.db")
"""
BAD = (
    ENGINE
    + """
import random, threading
app = Flask(__name__)
session = Session(engine)
session.execute(text("select 1"))
rng = random.Random(3)
seen = []
done = threading.Event()
threading.Thread(target=done.wait, daemon=True, name="beat").start()
app.app_context().push()
@app.get("/")
def index():
    seen.append(1)
    return str(session.execute(text("select 2")).scalar())
@app.get("/broken")
def broken():
    1 / 0
"""
)
GOOD = (
    ENGINE
    + """
LIMITS = {"rows": 10}
def create_app():
    app = Flask(__name__)
    @app.get("/")
    def index():
        with Session(engine) as session:
            return str(session.execute(text("select 2")).scalar())
    @app.get("/broken")
    def broken():
        1 / 0
    return app
"""
)


HANGING = """
import time
from pathlib import Path
from doctor.recorder import Recorder, compare, run_child
from doctor.sources import Place

class Hanging:
    def test_client(self):
        return self

    def get(self, url):
        while True:
            time.sleep(60)

report = run_child(Hanging(), "/", [], Recorder(Path.cwd()), patience=0.2)
for finding in compare([report, {}], Place("shop.py", None, 1, 1)):
    print(finding.message)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Record an application in a folder, as JSON."""
    return run_tool("--format", "json", *arguments, folder=folder)


def test_the_record_of_a_hazardous_application(tmp_path: Path) -> None:
    """Connections, threads and contexts from the import are found, and changes and repeats by requests."""
    write(tmp_path, {"shop.py": BAD})

    done = run(tmp_path, "--app", "shop")

    assert done.returncode == 1, done.stderr
    findings = [(item["rule"], item["line"], item["message"]) for item in json.loads(done.stdout)]
    lines = BAD.lstrip().splitlines()
    opened = lines.index('session.execute(text("select 1"))') + 1
    started = next(number for number, line in enumerate(lines, 1) if "beat" in line)
    assert ("N103", opened, "session began a transaction at import") in findings
    assert ("N401", started, "thread started at import: `beat`") in findings
    assert ("N101", opened) in {(rule, line) for rule, line, _ in findings}
    messages = {message for _, _, message in findings}
    assert "application context still pushed after the import" in messages
    assert "the request changed the global `shop.seen`" in messages
    assert "the request used a connection that the parent opened" in messages
    assert "two forked processes drew the same number from `shop.rng`" in messages


def test_the_record_of_a_good_application_is_empty(tmp_path: Path) -> None:
    """A factory whose requests open their own sessions has no finding."""
    write(tmp_path, {"shop.py": GOOD})

    done = run(tmp_path, "--app", "shop:create_app")

    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize("url", ["/broken"])
def test_a_request_that_fails_is_no_clean_record(url: str, tmp_path: Path) -> None:
    """A recording whose request fails exits with 2 and a line on stderr."""
    write(tmp_path, {"shop.py": GOOD})

    done = run(tmp_path, "--app", "shop:create_app", "--url", url)

    assert (done.returncode, done.stdout) == (2, "")
    assert "doctor: GET /broken in a forked process: the status is 500" in done.stderr


def test_a_process_that_hangs_is_killed(tmp_path: Path) -> None:
    """A forked process that does not answer is killed, and is a finding."""
    write(tmp_path, {"hang.py": HANGING})
    command = [sys.executable, "-B", "hang.py"]
    environment = {"PYTHONPATH": str(TOOL.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("a forked process hung while it served the request\n", "")
