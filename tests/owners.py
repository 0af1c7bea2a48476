"""Owners of version 0.1 projects: their edits, and their update to version 0.2."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

PACKAGE = "store_service"  # as long as the default, so that ruff wraps lines at the same places
SOURCE = Path("src", PACKAGE)
FIRST_MIGRATION = Path("migrations", "versions", "0001_create_notes.py")
TASKS_MIGRATION = FIRST_MIGRATION.with_name("0001_create_tasks.py")
DEFAULT = " = mapped_column(default=False)\n"
COLUMN = 'sa.Column("done", sa.Boolean(), nullable=False),\n'
VIEWS = '''"""Orders over HTTP."""

from __future__ import annotations

from flask import Blueprint

from ..api import Input, operation
from ..db import transaction
from ..errors import Problem
from . import service

bp = Blueprint("orders", __name__, url_prefix="/orders")


class Order(Input):
    """An order of a client."""

    count: int


@bp.post("")
@operation()
def add_order(body: Order) -> Order:
    """Accept an order."""
    if body.count < 1:
        raise Problem(422, "Order at least one.")
    with transaction() as session:
        service.take(session, body.count)
    return body
'''
SERVICE = '''"""Operations on orders."""

from __future__ import annotations

from sqlalchemy.orm import Session


class OutOfStock(Exception):
    """Nothing is left."""


def take(session: Session, count: int) -> None:
    """Take pieces out of the stock."""
    raise OutOfStock(f"{session} has no {count}")
'''
TEST = f'''"""The promises of orders."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from {PACKAGE}.app import create_app
from {PACKAGE}.db import engines_of
from {PACKAGE}.settings import ConfigurationError, Settings

from ..conftest import make_settings
from ..databases import Databases


def test_an_order_without_stock_is_refused(client: FlaskClient) -> None:
    """An order without stock is refused, and every page of the store may read the response."""
    response = client.post("/orders", json={{"count": 1}})

    assert response.status_code == 409
    assert response.headers["Access-Control-Allow-Origin"] == "https://store.example.org"


def test_settings_have_defaults(own_databases: Databases, currency: str) -> None:
    """The settings of the store have defaults."""
    settings: Settings = make_settings(own_databases.migrated(), stock_limit=5)

    assert (settings.currency, settings.stock_limit) == (currency, 5)
    assert len(engines_of(create_app(settings))) == 1


def test_an_error_lists_its_problems() -> None:
    """An error of the configuration lists its problems."""
    with pytest.raises(ConfigurationError, match="one"):
        raise ConfigurationError(["one"])
'''
FUNCTIONS = '''

def allow_origin(response: Response) -> Response:
    """Let a page of the store read every response."""
    response.headers["Access-Control-Allow-Origin"] = "https://store.example.org"
    return response


def out_of_stock(error: OutOfStock) -> Response:
    """Answer an order that cannot be filled."""
    return problem(409, "Nothing is left.")
'''
OUT_OF_STOCK = "from .orders.service import OutOfStock\n"
ORDERS = f"from .orders import views as orders\n{OUT_OF_STOCK}"


class Owner(NamedTuple):
    """An owner's edits of the project, and of files that an update has replaced.

    The second function is given the document's examples of Python.
    """

    change: Callable[[Path], None]
    change_again: Callable[[Path, Sequence[str]], None]


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that a file contains exactly once."""
    text = path.read_text("utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), "utf-8")


def append(path: Path, text: str) -> None:
    """Add text to the end of a file."""
    path.write_text(path.read_text("utf-8") + text, "utf-8")


def rename_notes(path: Path) -> None:
    """Write tasks wherever a file says notes."""
    path.write_text(path.read_text().replace("note", "task").replace("Note", "Task"))


def rename_the_example(project: Path) -> None:
    """Turn notes into tasks in all code and all tests, and add a column."""
    (project / SOURCE / "notes").rename(project / SOURCE / "tasks")
    (project / "tests" / "notes").rename(project / "tests" / "tasks")
    (project / FIRST_MIGRATION).rename(project / TASKS_MIGRATION)
    for folder in ("src", "tests", "migrations"):
        for path in (project / folder).rglob("*.py"):
            rename_notes(path)
    rename_notes(project / "pyproject.toml")
    tasks = project / SOURCE / "tasks"
    edit(tasks / "models.py", "    text: Mapped", f"    done: Mapped[bool]{DEFAULT}    text: Mapped")
    edit(project / TASKS_MIGRATION, '        sa.Column("text"', f'        {COLUMN}        sa.Column("text"')


def rename_the_example_again(project: Path, examples: Sequence[str]) -> None:
    """Register the renamed feature."""
    rename_notes(project / SOURCE / "app.py")


def delete_the_example(project: Path) -> None:
    """Delete the example with its tests, its migration and every mention outside of tests."""
    shutil.rmtree(project / SOURCE / "notes")
    shutil.rmtree(project / "tests" / "notes")
    (project / FIRST_MIGRATION).unlink()
    edit(project / SOURCE / "app.py", "from .notes import views as notes\n", "")
    edit(project / SOURCE / "app.py", "    app.register_blueprint(notes.bp)\n", "")
    drop_lines(project / "migrations" / "env.py", "notes import models")
    pyproject = project / "pyproject.toml"
    edit(pyproject, '"notes | health | openapi"', '"health | openapi"')
    text = pyproject.read_text()
    pyproject.write_text(text[: text.rindex("\n[[tool.importlinter.contracts]]")])


def delete_the_example_again(project: Path, examples: Sequence[str]) -> None:
    """Delete the example's entry."""
    drop_lines(project / SOURCE / "app.py", '"notes"')


def drop_lines(path: Path, word: str) -> None:
    """Delete the lines of a file that contain a word."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if word not in line))


def edit_the_application(project: Path) -> None:
    """Add a feature, a header, an error handler, settings, a fixture, a dependency and text."""
    for name, text in {"__init__": "", "views": VIEWS, "service": SERVICE}.items():
        write(project / SOURCE / "orders" / f"{name}.py", text)
    write(project / "tests" / "orders" / "__init__.py", "")
    write(project / "tests" / "orders" / "test_views.py", TEST)
    app = project / SOURCE / "app.py"
    edit(app, "from flask import Flask, Request\n", "from flask import Flask, Request, Response\n")
    edit(
        app,
        "from .notes import views as notes\n",
        f"from .errors import problem\nfrom .notes import views as notes\n{ORDERS}",
    )
    hooks = "    app.after_request(allow_origin)\n    app.register_error_handler(OutOfStock, out_of_stock)\n"
    notes = "    app.register_blueprint(notes.bp)\n"
    edit(app, notes, f"{notes}    app.register_blueprint(orders.bp)\n{hooks}")
    append(app, FUNCTIONS)
    first = "    web_bind: "
    edit(
        project / SOURCE / "settings.py",
        first,
        f'    currency: str = "EUR"\n    stock_limit: PositiveInt = 100\n\n{first}',
    )
    edit(project / "README.md", "    api.py  ", "    orders/           orders of the store\n    api.py  ")
    edit(
        project / "pyproject.toml",
        "\n]\n\n[dependency-groups]",
        '\n  "redis>=7", # the cache\n]\n\n[dependency-groups]',
    )
    edit(project / "tests" / "conftest.py", "\n\n@pytest.hookimpl", FIXTURE + "\n\n@pytest.hookimpl")


FIXTURE = '''

@pytest.fixture
def currency() -> str:
    """The currency of the store."""
    return "EUR"
'''


def edit_the_application_again(project: Path, examples: Sequence[str]) -> None:
    """Put the application's and the settings' own lines where the document shows them."""
    create_app, settings = examples
    app = project / SOURCE / "app.py"
    edit(app, "from flask import Flask\n", "from flask import Flask, Response\n")
    settings_import = "from .settings import Settings\n"
    edit(app, settings_import, f"from .errors import problem\n{OUT_OF_STOCK}{settings_import}")
    edit(app, '    "notes",\n', '    "notes",\n    "orders",\n')
    replace_rest(app, "def create_app", create_app + FUNCTIONS)
    replace_rest(project / SOURCE / "settings.py", "class Settings", settings)
    edit(
        project / SOURCE / "settings.py",
        "\nfrom .foundation",
        "\nfrom pydantic import PositiveInt\n\nfrom .foundation",
    )
    append(project / "tests" / "conftest.py", FIXTURE)


def write(path: Path, text: str) -> None:
    """Write a file, whose folder may be missing."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def replace_rest(path: Path, start: str, text: str) -> None:
    """Replace a file's text from the line that starts with some words on."""
    before, found, _ = path.read_text().partition(f"\n{start}")
    assert found, path
    path.write_text(f"{before}\n{text}")


OWNERS = {
    "renamed": Owner(rename_the_example, rename_the_example_again),
    "deleted": Owner(delete_the_example, delete_the_example_again),
    "edited": Owner(edit_the_application, edit_the_application_again),
}
