"""The import contracts of pyproject.toml forbid what they name, for features of any name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .databases import PROJECT
from .servers import MODULE, PACKAGE

# A project with two features, instead of the owner's code.
FILES = {
    "settings.py": "from .foundation import configuration\n",
    "app.py": "from . import settings\nfrom .first import views\nfrom .second import views as second\n",
    "first/__init__.py": "",
    "first/views.py": "import flask\nfrom . import service\nfrom .. import foundation\n",
    "first/service.py": "import sqlalchemy\nfrom . import models\n",
    "first/models.py": "from ..foundation import database\n",
    "second/__init__.py": "",
    "second/views.py": "from ..first import service\n",
    "second/models.py": "",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's foundation and contracts, with two features that respect them."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(PROJECT / "pyproject.toml", folder)
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / PACKAGE / "foundation", folder / PACKAGE / "foundation", ignore=compiled)
    for name in ("__init__.py", "wsgi.py"):
        shutil.copy(PROJECT / PACKAGE / name, folder / PACKAGE)
    for name, content in FILES.items():
        (folder / PACKAGE / name).parent.mkdir(exist_ok=True)
        (folder / PACKAGE / name).write_text(content)
    return folder


@pytest.fixture
def package(folder: Path) -> Iterator[Path]:
    """The package of the copy, whose files are restored after the test."""
    package = folder / PACKAGE
    before = {path: path.read_bytes() for path in package.rglob("*.py")}
    yield package
    for path in package.rglob("*.py"):
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


def broken_contracts(package: Path) -> list[str]:
    """Return the names of the broken contracts, or fail with the output."""
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=package.parents[1],
        env=os.environ | {"PYTHONPATH": str(package.parent), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    broken = re.findall(r"^(.+) BROKEN", checked.stdout, re.MULTILINE)
    assert (checked.returncode == 0) == (not broken), checked.stdout + checked.stderr
    return broken


INDEPENDENT = "The foundation imports nothing of the project"
LOADING = "Servers load the application, the application its features, the features the foundation"
ROOMS = "Imports inside the foundation point down"
FEATURE = "A feature's views use its service, its service uses its models"
PROTECTED = "Only servers import the application"
FEATURES_IN_A_CIRCLE = "Features do not import each other in a circle"
FOUNDATION_IN_A_CIRCLE = "Modules of the foundation do not import each other in a circle"
VIOLATIONS = {
    "foundation imports a feature": ("foundation/http/api.py", "first", INDEPENDENT),
    "foundation imports app": ("foundation/serving/doctor.py", "app", INDEPENDENT),
    "app imports wsgi": ("app.py", "wsgi", LOADING),
    "edge imports observability": ("foundation/edge/bodies.py", "foundation.observability", ROOMS),
    "room in a circle": ("foundation/edge/context.py", "foundation.edge.bodies", FOUNDATION_IN_A_CIRCLE),
    "feature imports app": ("first/views.py", "app", PROTECTED),
    "feature imports wsgi": ("first/service.py", "wsgi", PROTECTED),
    "service imports views": ("first/service.py", "first.views", FEATURE),
    "features in a circle": ("first/service.py", "second.models", FEATURES_IN_A_CIRCLE),
}


def test_features_that_keep_to_the_contracts_need_no_edit(package: Path) -> None:
    """Features of any name that respect the contracts break none."""
    assert broken_contracts(package) == []


@pytest.mark.parametrize(("file", "imported", "contract"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_forbidden_import_breaks_its_contract(
    package: Path, file: str, imported: str, contract: str
) -> None:
    """An import in a forbidden direction breaks its contract, and possibly others."""
    with (package / file).open("a") as code:
        code.write(f"\nimport {MODULE}.{imported}\n")

    assert contract in broken_contracts(package)


@pytest.mark.parametrize("library", ["flask", "sqlalchemy"])
def test_the_edge_imports_neither_flask_nor_sqlalchemy(package: Path, library: str) -> None:
    """An import of Flask or SQLAlchemy by the edge breaks its contract, also inside a function."""
    with (package / "foundation" / "edge" / "headers.py").open("a") as code:
        code.write(f"\ndef late():\n    import {library}\n")

    assert broken_contracts(package) == ["WSGI layers know neither Flask nor SQLAlchemy"]


def test_a_module_of_the_foundation_needs_a_layer(package: Path) -> None:
    """A module of the foundation outside all layers breaks the layer contract."""
    (package / "foundation" / "extras.py").write_text("")

    assert broken_contracts(package) == [ROOMS]


def test_no_test_of_the_foundation_imports_the_owners_code() -> None:
    """The foundation's tests import nothing from the project except the foundation and wsgi.py."""
    imported = {
        module
        for path in Path(__file__).parent.rglob("*.py")
        for module in re.findall(rf"\b(?:from|import) {MODULE}(?:\.| import )(\w+)", path.read_text())
    }

    assert imported <= {"foundation", "wsgi"}
