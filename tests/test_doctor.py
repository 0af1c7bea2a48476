"""The doctor on generated projects: no findings at first, and one for each added hazard."""

from __future__ import annotations

import json
import shutil
import typing as t
from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import BaseModel
from sarif_pydantic import Sarif

from .conftest import COMBINATIONS, ROOT, Answers, Bake, name_of
from .processes import run

SERVICE = "src/notes_service/notes/service.py"
VIEWS = "src/notes_service/notes/views.py"
# The file, code that has the hazard, and the same code after the documented fix.
HAZARDS = {
    "N101": (
        SERVICE,
        "from ..foundation.database import db\nsession = Session(db.engine)\n",
        """
        from ..foundation.database import db
        def count():
            with Session(db.engine) as session:
                return session.query(Note).count()
        """,
    ),
    "N102": (
        "src/notes_service/wsgi.py",
        """
        from .foundation.database import db
        with app.app_context():
            db.create_all()
        """,
        """
        from .foundation.database import db
        @app.cli.command()
        def create_tables():
            db.create_all()
        """,
    ),
    "N103": (
        VIEWS,
        """
        from sqlalchemy import create_engine
        shared = Session(create_engine("postgresql:///notes"))
        @bp.get("/count")
        def count():
            return str(shared.query(Note).count())
        """,
        """
        @bp.get("/count")
        def count():
            return str(db.session.query(Note).count())
        """,
    ),
    "N104": (
        VIEWS,
        """
        from functools import lru_cache
        @lru_cache
        def cached(key):
            return db.session.get(Note, key)
        @bp.get("/cached")
        def read_cached():
            return cached(1).text
        """,
        """
        from functools import lru_cache
        @lru_cache
        def cached(key):
            return db.session.get(Note, key).text
        @bp.get("/cached")
        def read_cached():
            return cached(1)
        """,
    ),
    "N201": (
        VIEWS,
        """
        last = {}
        @bp.get("/last")
        def read_last():
            last["text"] = service.find_note(db.session(), 1).text
            return last["text"]
        """,
        """
        @bp.get("/last")
        def read_last():
            last = {}
            last["text"] = service.find_note(db.session(), 1).text
            return last["text"]
        """,
    ),
    "N301": (
        "src/notes_service/wsgi.py",
        "app.run(debug=True)\n",
        'if __name__ == "__main__":\n    app.run()\n',
    ),
    "N302": (
        "src/notes_service/wsgi.py",
        "app.app_context().push()\n",
        "with app.app_context():\n    app.logger.info('ready')\n",
    ),
    "N401": (
        SERVICE,
        "import threading\nthreading.Thread(target=print).start()\n",
        "import threading\ndef post_fork(server, worker):\n    threading.Thread(target=print).start()\n",
    ),
    "N402": (
        SERVICE,
        "import joblib\nmodel = joblib.load('model.joblib')\n",
        "import functools, joblib\n@functools.lru_cache\ndef model():\n    return joblib.load('model')\n",
    ),
    "N403": (
        SERVICE,
        "from sklearn.svm import SVC\nmodel = SVC()\nmodel.fit([[1]], [1])\n",
        """
        import functools, joblib
        @functools.lru_cache
        def model():
            return joblib.load("model.joblib")
        def predict(row):
            return model().predict([row])
        """,
    ),
    "N404": (
        VIEWS,
        """
        import numpy as np
        generator = np.random.default_rng()
        @bp.get("/draw")
        def draw():
            return str(generator.random())
        """,
        """
        import numpy as np
        @bp.get("/draw")
        def draw():
            return str(np.random.default_rng().random())
        """,
    ),
    "N501": (
        VIEWS,
        """
        @bp.post("/quick")
        def quick():
            try:
                db.session.commit()
            except Exception:
                return "failed"
            return "stored"
        """,
        """
        @bp.post("/quick")
        def quick():
            try:
                db.session.commit()
            except Exception:
                db.session.rollback()
                return "failed"
            return "stored"
        """,
    ),
    "X901": (SERVICE, "if __name__ = '__main__':\n    pass\n", "if __name__ == '__main__':\n    pass\n"),
}


class Finding(t.TypedDict):
    """A finding in the JSON of the doctor; it has more fields."""

    rule: str
    level: str
    path: str
    line: int


def examine(*paths: Path, status: int) -> list[Finding]:
    """Run the doctor of the template, compare its exit code, and return its findings."""
    command: list[str | Path] = [ROOT / "bin" / "doctor", "--format", "json", *paths]
    findings: list[Finding] = json.loads(run(*command, cwd=ROOT, status=status).stdout)
    return findings


@pytest.fixture
def copy(bake: Bake, tmp_path: Path) -> Path:
    """A default project that a test can change."""
    return Path(shutil.copytree(bake(), tmp_path / "project"))


def add(project: Path, file: str, code: str) -> int:
    """Append code to a file, and return the number of its first line."""
    path = project / file
    before = path.read_text("utf-8")
    path.write_text(before + dedent(code).lstrip("\n"), "utf-8")
    return before.count("\n") + 1


@pytest.mark.parametrize("answers", COMBINATIONS, ids=name_of)
@pytest.mark.parametrize("telemetry", [False, True], ids=["", "telemetry"])
def test_a_generated_project_has_no_finding(answers: Answers, telemetry: bool, bake: Bake) -> None:
    """The doctor finds nothing in any file of a project, for each combination of answers."""
    project = bake(**answers, tracing=telemetry, error_reporting=telemetry)

    assert examine(project, status=0) == []


@pytest.mark.parametrize("rule", HAZARDS)
def test_an_added_hazard_is_found(rule: str, copy: Path) -> None:
    """A hazard added to a project is the only finding, in its file and on one of its lines."""
    file, hazard, _ = HAZARDS[rule]
    first = add(copy, file, hazard)

    findings = [finding for finding in examine(copy / "src", status=1) if finding["rule"] != "N601"]

    assert [finding["rule"] for finding in findings] == [rule]
    assert findings[0]["path"].endswith(file)
    assert findings[0]["line"] >= first


@pytest.mark.parametrize("rule", HAZARDS)
def test_the_documented_fix_silences_it(rule: str, copy: Path) -> None:
    """The same code with the finding's fix has no finding."""
    file, _, fix = HAZARDS[rule]
    add(copy, file, fix)

    assert examine(copy / "src", status=0) == []


def test_uwsgi_without_lazy_apps_makes_a_hazard_fatal(copy: Path) -> None:
    """A statement at import is an error if uwsgi.ini lacks lazy-apps, and the setting is a finding."""
    (copy / "gunicorn.conf.py").unlink()
    add(copy, *HAZARDS["N102"][:2])
    (warning,) = examine(copy / "src", status=1)

    ini = copy / "uwsgi.ini"
    ini.write_text(ini.read_text("utf-8").replace("lazy-apps = true", ""), "utf-8")
    findings = examine(copy / "src", status=1)

    assert warning["level"] == "warning"
    assert sorted((finding["rule"], finding["level"]) for finding in findings) == [
        ("N102", "error"),
        ("N601", "error"),
    ]


def test_the_template_needs_only_python_for_it(tmp_path: Path) -> None:
    """The template's command runs in a bare environment, leaves no bytecode, and rejects a wrong path."""
    code = tmp_path / "app.py"
    code.write_text("from flask import Flask\napp = Flask(__name__)\napp.run()\n")
    environment = {"PYTHONNOUSERSITE": "1", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    command = ROOT / "bin" / "doctor"

    assert " N301 error: " in run(command, code, cwd=tmp_path, status=1, env=environment).stdout
    assert "nope does not exist" in run(command, "nope", cwd=tmp_path, status=2, env=environment).stderr
    assert not list((ROOT / "{{cookiecutter.project_slug}}" / "tools").rglob("__pycache__"))


@pytest.mark.parametrize("hazard", HAZARDS)
def test_the_log_for_code_scanning_is_sarif(hazard: str, copy: Path) -> None:
    """The log of each hazard has what SARIF 2.1.0 requires, of the types that it has, and nothing else."""
    file, code, _ = HAZARDS[hazard]
    add(copy, file, code)

    log = run(ROOT / "bin" / "doctor", "--format", "sarif", copy / "src", cwd=copy, status=1).stdout

    assert unknown_fields(Sarif.model_validate_json(log), "") == []


def unknown_fields(part: object, path: str) -> list[str]:
    """Return the paths of the fields below a part of a log that SARIF has not."""
    if isinstance(part, list):
        return [
            name for number, item in enumerate(part) for name in unknown_fields(item, f"{path}[{number}]")
        ]
    if not isinstance(part, BaseModel):
        return []
    found = [f"{path}.{name}" for name in part.model_extra or {}]
    for name in type(part).model_fields:
        found += unknown_fields(getattr(part, name), f"{path}.{name}")
    return found
