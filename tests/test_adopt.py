"""`make adopt` on a new project: its files pass the checks, before and after the feature is registered."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from .conftest import BOUND, RAW, SKIPPING_IS_FAILING, Bake
from .contents import files
from .processes import run

# Each sample has the number of its views, and of those that move mechanically.
CHURN = (
    """
    import joblib
    from flask import Flask, jsonify, request
    app = Flask(__name__)
    model = joblib.load("churn.joblib")
    seen = []
    """,
    """
    def features(payload):
        return [[payload["age"], payload["balance"]]]

    @app.route("/predict", methods=["POST"])
    def predict():
        return jsonify(score=float(model.predict(features(request.json))[0]))

    @app.get("/seen/<name>")
    def see(name):
        seen.append(name)
        return jsonify(seen)

    @app.get("/double/<int:number>")
    def double(number):
        return {"double": 2 * number}
    """,
)
SHOP = (
    """
    from flask import Flask, jsonify, request
    from flask_sqlalchemy import SQLAlchemy
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///shop.db"
    db = SQLAlchemy(app)
    """,
    """
    class Product(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String(80), unique=True, nullable=False)
        price = db.Column(db.Float)

        def to_dict(self):
            return {"id": self.id, "name": self.name, "price": self.price}

    @app.get("/products")
    def products():
        return jsonify([product.to_dict() for product in Product.query.order_by(Product.id)])

    @app.get("/products/<int:number>")
    def product(number):
        return jsonify(Product.query.get_or_404(number).to_dict())

    @app.post("/products")
    def add():
        product = Product(name=request.json["name"], price=request.json.get("price"))
        db.session.add(product)
        db.session.commit()
        return product.to_dict(), 201
    """,
    "db.create_all()\napp.run()",
)
# The answers of the notebook's own views, which those of the feature must equal.
SAME_ANSWERS = '''"""The moved views answer as those of the notebook do."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient

from notes_service.churn import service


class Model:
    """A model for the test."""

    def predict(self, rows: list[list[float]]) -> list[float]:
        """Return the sum of the first row."""
        return [sum(rows[0])]


def test_the_shop_stores_products(client: FlaskClient) -> None:
    """A product is stored once, listed, and read."""
    assert client.get("/shop/products").json == []
    added = client.post("/shop/products", json={"name": "tea", "price": 2.5})
    found: Any = added.json

    assert (added.status_code, found["name"]) == (201, "tea")
    assert client.get("/shop/products").json == [found]
    assert client.get(f"/shop/products/{found['id']}").json == found
    assert client.get("/shop/products/999").status_code == 404


def test_the_model_predicts(client: FlaskClient) -> None:
    """The view calls the handle, which a test replaces."""
    with service.model.override(Model()):
        answer = client.post("/churn/predict", json={"age": 1, "balance": 2})

    assert answer.json == {"score": 3.0}
    assert client.get("/churn/double/4").json == {"double": 8}


def test_what_is_undecided_is_501(client: FlaskClient) -> None:
    """A view with an open question names it."""
    answer: Any = client.get("/churn/seen/ada")

    assert answer.status_code == 501
    assert "`seen` is changed by see" in answer.json["detail"]
'''
MOVED = {"churn": "views moved: 2 of 3", "shop": "views moved: 3 of 3"}


def notebook(*cells: str) -> str:
    """Return a notebook with these cells of code."""
    sources = [dedent(cell).strip("\n").splitlines(keepends=True) for cell in cells]
    code = [{"cell_type": "code", "metadata": {}, "source": source} for source in sources]
    return json.dumps({"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.mark.matrix
def test_what_is_adopted_passes_the_checks(project: Path, tmp_path: Path) -> None:
    """The features of two notebooks pass lint and their tests, before and after they are registered."""
    before = {path: path.read_bytes() for path in files(project) if ".venv" not in path.parts}
    run("make", "install", cwd=project, timeout=BOUND)
    for name, cells in (("churn", CHURN), ("shop", SHOP)):
        (tmp_path / f"{name}.ipynb").write_text(notebook(*cells))
        plan = run("make", "adopt", f"NOTEBOOK={tmp_path}/{name}.ipynb", cwd=project, timeout=BOUND).stdout
        assert MOVED[name] in plan
        run("make", "adopt", f"NOTEBOOK={tmp_path}/{name}.ipynb", "WRITE=1", cwd=project, timeout=BOUND)

    assert not [path for path, content in before.items() if path.read_bytes() != content]
    check(project)

    app = project / "src" / "notes_service" / "app.py"
    app.write_text(app.read_text().replace('    "notes",\n', '    "churn",\n    "notes",\n    "shop",\n'))
    run("make", "migration", "NAME=create shop", cwd=project, timeout=BOUND)
    (project / "tests" / "test_same_answers.py").write_text(SAME_ANSWERS)
    check(project, "tests/test_same_answers.py", "tests/test_smoke.py")


def check(project: Path, *tests: str) -> None:
    """Run `make lint`, and the tests of the two features with some others."""
    run("make", "lint", cwd=project, timeout=BOUND)
    command = (".venv/bin/pytest", "tests/churn", "tests/shop", *tests)
    run(*command, cwd=project, timeout=BOUND, env=SKIPPING_IS_FAILING)


def test_a_taken_name_ends_with_one_line(bake: Bake, tmp_path: Path) -> None:
    """A NAME that is already a feature is rejected, and nothing is written."""
    (tmp_path / "notes.ipynb").write_text(notebook("x = 1"))
    command = (sys.executable, "-B", "tools/adopt", "--write", tmp_path / "notes.ipynb")

    error = run(*command, cwd=bake(), status=2).stderr

    assert error.splitlines()[-1].endswith("src/notes_service/notes exists: choose another NAME")
    assert not (bake() / "docs" / "adopting-notes.md").exists()


def test_the_planner_is_a_part_of_notebooks() -> None:
    """The rule of make stands where the answer `notebooks` is asked for."""
    text = (RAW / "Makefile").read_text()
    block = text.partition("#% if cookiecutter.notebooks\nnotebook:")[2].partition("#% endif")[0]

    assert "\nadopt: install ##" in block
