"""An owner's migrations: `make migration`, `migrate`, `check` and `downgrade`, with rows in the table."""

from __future__ import annotations

import ast
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import ROOT
from .owners import edit
from .processes import run

pytestmark = pytest.mark.matrix

MODELS = Path("src/notes_service/notes/models.py")
COLUMN = "    text: Mapped[str] = mapped_column(Text)\n"
COLOUR = '    colour: Mapped[str] = mapped_column(Text, server_default="red")\n'
SEEN = "    seen: Mapped[datetime | None] = mapped_column(UTCDateTime)\n"
SIZE = "    size: Mapped[int] = mapped_column(default=1)\n"
REQUIRED = "ALTER TABLE notes ADD COLUMN size INTEGER NOT NULL"
UPGRADING = (ROOT / "docs" / "upgrading.md").read_text("utf-8").partition("### 6. Ids on SQLite")[2]
OLD_TABLE = """
CREATE TABLE old_notes (
    id INTEGER NOT NULL, text TEXT NOT NULL, created_at DATETIME NOT NULL, version INTEGER NOT NULL,
    CONSTRAINT pk_notes PRIMARY KEY (id)
)
"""
ADD_NOTE = "INSERT INTO notes (text, created_at, version) VALUES ('new', '2026-11-26 00:00:00', 1)"
CHECKS = (
    (".venv/bin/ruff", "check"),
    (".venv/bin/ruff", "format", "--check"),
    (".venv/bin/mypy",),
    (".venv/bin/python", "-m", "migrations.check"),
)


@pytest.fixture
def project(project: Path) -> Path:
    """A fresh default project whose database, on SQLite, has a note."""
    make(project, "migrate")
    query(project, "INSERT INTO notes (text, created_at, version) VALUES ('kept', '2026-11-26 00:00:00', 1)")
    return project


def import_types(project: Path) -> None:
    """Import the types of a column with a timestamp."""
    edit(
        project / MODELS,
        "from sqlalchemy import Text\n",
        "from datetime import datetime\n\nfrom sqlalchemy import Text\n",
    )
    edit(project / MODELS, "Timestamped, Versioned\n", "Timestamped, UTCDateTime, Versioned\n")


def make(project: Path, *arguments: str, code: int = 0) -> str:
    """Run make in the project, and return what it printed."""
    # The linked environment has another project's sources in its path.
    done = run("make", *arguments, cwd=project, env={"PYTHONPATH": "src"}, status=code)
    return done.stdout + done.stderr


def query(project: Path, statement: str) -> list[tuple[object, ...]]:
    """Run a statement in the project's database, and return its rows."""
    with closing(sqlite3.connect(project / "notes_service.db")) as connection, connection:
        return connection.execute(statement).fetchall()


def migrations(project: Path) -> set[Path]:
    """Return the project's migrations."""
    return set((project / "migrations/versions").glob("*.py"))


def check_migrations(project: Path, code: int = 0) -> str:
    """Run the steps of `make check` that concern a migration, and return what the last one printed."""
    *linters, last = CHECKS
    for command in linters:
        run(*command, cwd=project)
    return run(*last, cwd=project, env={"PYTHONPATH": "src"}, status=code).stdout


def test_a_column_is_added_to_a_table_with_rows(project: Path) -> None:
    """The README's way adds columns to a table with rows, passes the checks and is undone."""
    import_types(project)
    edit(project / MODELS, COLUMN, COLUMN + COLOUR + SEEN)

    make(project, "migration", "NAME=add colour")
    check_migrations(project)
    make(project, "migrate")
    assert query(project, "SELECT text, colour, seen FROM notes") == [("kept", "red", None)]
    run(".venv/bin/dotenv", "run", "--", ".venv/bin/alembic", "check", cwd=project)

    make(project, "downgrade")
    assert len(query(project, "SELECT * FROM notes")[0]) == 4
    make(project, "migrate")
    make(project, "downgrade", "REVISION=base")
    assert query(project, "SELECT name FROM sqlite_master WHERE name = 'notes'") == []


def test_a_second_migration_upgrades_first(project: Path) -> None:
    """A migration that is made before the last one has run upgrades the database first."""
    edit(project / MODELS, COLUMN, COLUMN + COLOUR)
    make(project, "migration", "NAME=add colour")
    import_types(project)
    edit(project / MODELS, COLOUR, COLOUR + SEEN)

    before = migrations(project)
    make(project, "migration", "NAME=add seen")

    (made,) = migrations(project) - before
    assert '"seen"' in made.read_text()
    assert '"colour"' not in made.read_text()


def test_an_unsafe_migration_fails_until_it_is_marked(project: Path) -> None:
    """An unsafe migration is a warning when it is made, and fails the check until it is marked."""
    edit(project / MODELS, COLUMN, COLUMN + SIZE)
    before = migrations(project)

    assert REQUIRED in make(project, "migration", "NAME=add size")
    assert "adding-required-field" in check_migrations(project, code=1)

    (made,) = migrations(project) - before
    edit(
        made,
        "\ndepends_on = None\n",
        f'\ndepends_on = None\nmeant = {{"{REQUIRED}": "the table is empty"}}\n',
    )
    assert check_migrations(project) == ""
    # SQLite refuses it, too: the note has no size.
    assert "NOT NULL" in make(project, "migrate", code=2)


def test_nothing_is_made_without_a_name_or_a_change(project: Path) -> None:
    """Without a name, or without a change of the models, no file is written and a line says why."""
    before = migrations(project)

    assert "NAME is missing" in make(project, "migration", code=2)
    assert "NAME is missing" in make(project, "migration", "NAME= ", code=2)
    assert "no file written" in make(project, "migration", "NAME=nothing")

    assert migrations(project) == before


def test_a_name_is_never_run(project: Path) -> None:
    """A name with quotes, `$` and commands is the migration's docstring, and nothing else."""
    edit(project / MODELS, COLUMN, COLUMN + COLOUR)
    name = """pay "it's" $HOME $(shell touch run) `touch run` \\n \"\"\" %d"""

    before = migrations(project)
    make(project, "migration", f"NAME={name}")

    (made,) = migrations(project) - before
    assert ast.get_docstring(ast.parse(made.read_text()), clean=False) == name
    assert not (project / "run").exists()


def test_a_downgrade_at_the_first_revision_is_refused(project: Path) -> None:
    """A downgrade of an empty database is refused with one line."""
    make(project, "downgrade", "REVISION=base")

    assert "migrations: there are fewer migrations to undo than that" in make(project, "downgrade", code=2)


def test_an_older_database_gives_no_id_twice(project: Path) -> None:
    """The commands of docs/upgrading.md give AUTOINCREMENT to a table from before, and keep its rows."""
    for statement in (OLD_TABLE, "INSERT INTO old_notes SELECT * FROM notes", "DROP TABLE notes"):
        query(project, statement)
    query(project, "ALTER TABLE old_notes RENAME TO notes")
    (block,) = re.findall(r"^```sh\n(.*?)^```", UPGRADING, re.MULTILINE | re.DOTALL)

    done = run("sh", "-ec", block, cwd=project, env={"PYTHONPATH": "src"})

    assert "give_no_id_twice" in done.stdout
    check_migrations(project)
    for statement in (ADD_NOTE, "DELETE FROM notes WHERE id = 2", ADD_NOTE):
        query(project, statement)
    assert query(project, "SELECT id, text FROM notes ORDER BY id") == [(1, "kept"), (3, "new")]
