"""A project's notebooks run, on each database, with the packages that only notebooks need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import BOUND, ROOT, SKIPPING_IS_FAILING, Bake, Workshop, generate
from .processes import run

PROOF = "tests/foundation/proofs/test_notebooks.py"
TOOLS = "jupyterlab", "matplotlib", "pandas"
PRICES_TEST = """
def test_a_price_is_predicted(client):
    answers = [client.post("/prices/predict", json={"district": name}) for name in ("north", "west")]
    assert [answer.status_code for answer in answers] == [200, 404]
    assert answers[0].json == {"price": 250.0}
"""


@pytest.mark.matrix
@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_every_cell_of_a_new_project_runs(database: str, workshop: Workshop) -> None:
    """The notebooks of a new project, and the code of docs/notebooks.md, run as they are."""
    project = generate(workshop(), {"database": database})
    run("bin/install", "notebook", cwd=project, timeout=BOUND)
    write_prices(project)

    run(".venv/bin/pytest", PROOF, "tests/prices", cwd=project, timeout=BOUND, env=SKIPPING_IS_FAILING)


def write_prices(project: Path) -> None:
    """Write the feature of docs/notebooks.md, its data and a test."""
    page = (project / "docs" / "notebooks.md").read_text("utf-8").partition("## From a CSV file")[2]
    service, views = re.findall(r"^```python\n(.+?)^```$", page, re.MULTILINE | re.DOTALL)[:2]
    files = {
        "src/notes_service/prices/__init__.py": "",
        "src/notes_service/prices/prices.csv": "district,price\nnorth,200\nnorth,300\nnorth,\n",
        "src/notes_service/prices/service.py": service,
        "src/notes_service/prices/views.py": views,
        "tests/prices/__init__.py": "",
        "tests/prices/test_views.py": PRICES_TEST,
    }
    for name, text in files.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    app = project / "src" / "notes_service" / "app.py"
    app.write_text(app.read_text().replace('    "notes",\n', '    "notes",\n    "prices",\n'))


def test_make_prove_and_make_notebook_alone_install_them(bake: Bake) -> None:
    """Only `make notebook` and `make prove` install the packages of notebooks; the image has none."""
    shown = {
        rule: run("make", "--dry-run", rule, cwd=bake()).stdout.count("bin/install notebook")
        for rule in ("notebook", "prove", "install", "serve", "test", "check")
    }

    assert shown == {"notebook": 1, "prove": 1, "install": 0, "serve": 0, "test": 0, "check": 0}
    for name in (
        "requirements/production.txt",
        "requirements/development.txt",
        "Dockerfile",
        ".dockerignore",
    ):
        text = (bake() / name).read_text()
        assert not [tool for tool in (*TOOLS, "notebook") if tool in text], name


def test_the_doctor_finds_the_mistake_of_the_guide(bake: Bake, tmp_path: Path) -> None:
    """The guided notebook has no finding, and without its ignore comments the one that it names."""
    doctor = ROOT / "bin" / "doctor"
    guide = bake() / "notebooks" / "from-notebook-to-endpoint.ipynb"
    without = tmp_path / guide.name
    without.write_text(guide.read_text().replace("doctor: ignore", "ignored"))

    assert "findings: 0" in run(doctor, guide, cwd=tmp_path).stdout
    found = run(doctor, without, cwd=tmp_path, status=1).stdout
    assert "N103 error: one database session for every request: `global_session`" in found
