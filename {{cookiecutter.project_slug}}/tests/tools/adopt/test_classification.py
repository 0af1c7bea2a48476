"""The destination of each statement of a notebook, and the open questions."""

import ast
import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from tools.adopt.cells import Notebook
from tools.adopt.classification import Plan
from tools.adopt.modules import Feature
from tools.adopt.project import Project
from tools.adopt.report import write_plan

from ..doctor.samples import notebook, write
from .samples import SAMPLES

ROOT = Path(__file__).resolve().parents[3]
LABEL = re.compile(r"# goes: (\w+)( asks)?$")
SHAPES = sorted(SAMPLES)
PACKAGES = '["flask", "flask-sqlalchemy", "sqlalchemy"]'
PROJECT = {"src/shop/app.py": "", "pyproject.toml": f"[project]\ndependencies = {PACKAGES}\n"}


def feature_of(folder: Path, *cells: str, name: str = "a") -> Feature:
    """Return the feature of a notebook with these cells."""
    write(folder, {f"{name}.ipynb": notebook(*cells), **PROJECT})
    return Feature(Plan(Notebook(folder / f"{name}.ipynb"), Project(folder)), "adopted")


def labels(cells: tuple[str, ...]) -> list[tuple[str, bool]]:
    """Return the labels of a sample, in order."""
    lines = [line for cell in cells for line in dedent(cell).splitlines()]
    return [(found[1], bool(found[2])) for line in lines if (found := LABEL.search(line))]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_statement_goes_where_its_label_says(shape: str, tmp_path: Path) -> None:
    """Each statement has the kind and the open question of its label."""
    feature = feature_of(tmp_path, *SAMPLES[shape])
    items = [item for item in feature.plan.items if not isinstance(item.node, ast.Pass)]

    found = [(item.kind, item.kind != "import" and any(feature.plan.blockers(item))) for item in items]

    names = [ast.unparse(item.node).splitlines()[0] for item in items]
    assert list(zip(names, found, strict=True)) == list(zip(names, labels(SAMPLES[shape]), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_plan_is_the_same_each_time(shape: str, tmp_path: Path) -> None:
    """Reading a notebook twice gives the same plan and files, with one line per cell."""
    first, second = (feature_of(tmp_path / folder, *SAMPLES[shape]) for folder in ("one", "two"))

    assert first.files() == second.files()
    assert write_plan(first, first.files()) == write_plan(second, second.files())
    lines = [line for line in write_plan(first, []).splitlines() if re.match(r" *cell \d+  ", line)]
    assert len(lines) == len(SAMPLES[shape])


@pytest.mark.parametrize("shape", SHAPES)
def test_no_secret_is_copied(shape: str, tmp_path: Path) -> None:
    """Passwords and database URLs of a notebook appear neither in files nor in the plan."""
    feature = feature_of(tmp_path, *SAMPLES[shape])

    text = "".join(feature.files().values()) + write_plan(feature, [])

    assert "hunter2" not in text
    assert "postgresql://" not in text


QUESTIONS = {
    "frame": "`df` is computed when the notebook runs, and used by 1 route (total): compute it in each",
    "counters": "`seen` is changed by remember, and each process has its own copy",
    "undefined": "what is `vanished`? It is used, and no cell defines it",
    "twice": "which definition of `score` is meant: cell 1, cell 2?",
    "broken": "it does not parse",
    "secrets": "which field of Settings in settings.py gives `API_KEY` (API_KEY)?",
    "climate": "it writes other.py: is that file adopted with NOTEBOOK=other.py?",
    "pages": "which files does `render_template` need",
    "local_sessions": "where does the transaction of `loop` begin and end?",
}


@pytest.mark.parametrize("shape", QUESTIONS)
def test_a_decision_is_a_question_with_its_cell(shape: str, tmp_path: Path) -> None:
    """A decision shows its cell, its names and the question."""
    text = write_plan(feature_of(tmp_path, *SAMPLES[shape]), [])

    assert [line for line in text.splitlines() if line.startswith("  cell") and QUESTIONS[shape] in line]


@pytest.mark.parametrize("shape", ["broken", "climate"])
def test_a_cell_without_statements_may_be_a_decision(shape: str, tmp_path: Path) -> None:
    """A cell that does not parse, or that writes a file, is a decision in its line of the plan."""
    plan = write_plan(feature_of(tmp_path, *SAMPLES[shape]), [])

    assert (
        len([line for line in plan.splitlines() if re.match(r" *cell \d  .* -> decision \(it ", line)]) == 1
    )


def test_what_is_not_moved_is_a_comment(tmp_path: Path) -> None:
    """A function with an open question is a comment in service.py, below the question."""
    cells = ("model = train()", "def predict(age):\n    return model[age]")
    text = feature_of(tmp_path, *cells).files()["src/shop/adopted/service.py"]

    _, comment = text.split("# `predict` is not moved until this is decided:\n")
    assert comment.startswith("# cell 1: `model` is ")
    assert comment.endswith("#     def predict(age):\n#         return model[age]\n")
    assert "\ndef " not in text


def test_a_function_that_only_changes_a_global_is_not_pure(tmp_path: Path) -> None:
    """A counter that no cell reads is a question, and the function that counts is not moved."""
    feature = feature_of(tmp_path, "n = 0", "def score(age):\n    global n\n    n += 1\n    return age")

    assert "`n` is changed by score, and each process has its own copy" in write_plan(feature, [])
    assert [item.name for item in feature.undecided] == ["score"]


def test_a_sorted_copy_changes_no_frame(tmp_path: Path) -> None:
    """`sort_values` returns a copy; it changes the frame only with `inplace`."""
    cells = "import pandas as pd\ndf = pd.read_csv('a.csv')", "def m():\n    return df.sort_values('v'{})"

    plans = [
        write_plan(feature_of(tmp_path / name, cells[0], cells[1].format(more)), [])
        for name, more in (("copy", ""), ("inplace", ", inplace=True"))
    ]

    assert ["`df` is changed by m" in plan for plan in plans] == [False, True]


def test_a_commit_becomes_the_end_of_a_transaction(tmp_path: Path) -> None:
    """A commit becomes the end of `with transaction()`; no view commits, rolls back or closes a session."""
    for number, shape in enumerate(("global_session", "shop", "local_sessions")):
        files = feature_of(tmp_path / str(number), *SAMPLES[shape]).files()
        code = re.sub(r"#.*", "", files["src/shop/adopted/views.py"])
        assert not re.search(r"\.(commit|rollback|close)\(|sessionmaker|Local\(", code)
        assert ("with transaction():\n" in code) == (shape != "local_sessions")


EARLY = """
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy
    app = Flask(__name__)
    db = SQLAlchemy(app)

    class Thing(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    @app.post("/things")
    def add():
        thing = Thing()
        db.session.add(thing)
        if thing.id:
            return "refused"
        db.session.commit()
        return "stored"

    @app.post("/lost")
    def lose():
        db.session.add(Thing())
        return "lost"
"""


def test_a_return_before_the_commit_is_a_decision(tmp_path: Path) -> None:
    """A view that returns between a write and its commit, or never commits, is not moved."""
    feature = feature_of(tmp_path, EARLY)

    assert [item.name for item in feature.views if id(item) in feature.code] == []
    assert len([item for item in feature.views if item.questions]) == 2


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """A package missing from pyproject.toml is reported with the fix, and imported where it is used."""
    feature = feature_of(tmp_path, *SAMPLES["churn"])
    text = feature.files()[f"src/{feature.package}/adopted/service.py"]

    line = 'package: add "joblib" to dependencies in pyproject.toml, then make lock'
    assert line in write_plan(feature, [])
    assert "    import joblib" in text
    assert "\nimport joblib" not in text


def test_a_file_is_read_in_groups(tmp_path: Path) -> None:
    """In a .py file each group of statements has a line with the number of its first line."""
    write(tmp_path, {"app.py": "import os\nimport re\n\nLIMIT = 3\n\n\ndef f(x):\n    return x\n"})

    units = Notebook(tmp_path / "app.py").units

    assert [unit.label for unit in units] == ["line 1", "line 4", "line 7"]


def test_the_command_imports_only_the_doctor() -> None:
    """The modules import the standard library, the doctor and each other."""
    for path in (ROOT / "tools" / "adopt").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)] if node.level == 0 else []
                assert node.level < 2 or str(node.module).startswith("doctor"), path
            assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names, path
