"""A migration that breaks the previous release is a problem until it is changed or marked."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from migrations.check import main, problems

from ..databases import PROJECT

HEADER = """
import sqlalchemy as sa
from alembic import op

revision = "one"
down_revision = None
"""
# Operations with the squawk rule that finds each. SQLite has no locks on single tables.
BREAKING = {
    'op.drop_column("notes", "text")': "ban-drop-column",
    'op.alter_column("notes", "text", new_column_name="body")': "renaming-column",
    'op.drop_table("notes")': "ban-drop-table",
    'op.rename_table("notes", "papers")': "renaming-table",
    'op.add_column("notes", sa.Column("size", sa.Integer(), nullable=False))': "adding-required-field",
    'op.alter_column("notes", "text", nullable=False)': "adding-not-nullable-field",
    'op.execute("ALTER TABLE notes DROP COLUMN text")': "ban-drop-column",
}
LOCKING = {
    'op.create_index("ix_notes_text", "notes", ["text"])': "require-concurrent-index-creation",
    'op.drop_index("ix_notes_text")': "require-concurrent-index-deletion",
    'op.alter_column("notes", "text", type_=sa.LargeBinary())': "changing-column-type",
    'op.create_foreign_key("fk", "notes", "users", ["user_id"], ["id"])': "constraint-missing-not-valid",
    """op.create_check_constraint("ck", "notes", "text <> ''")""": "constraint-missing-not-valid",
    'op.create_unique_constraint("uq", "notes", ["text"])': "disallowed-unique-constraint",
    'op.add_column("notes", sa.Column("at", sa.Uuid(), server_default=sa.text("gen_random_uuid()")))': (
        "adding-field-with-default"
    ),
    'op.create_index("ix", "notes", ["text"], postgresql_concurrently=True)': (
        "ban-concurrent-index-creation-in-transaction"
    ),
}
SAFE = [
    'op.create_table("new", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("at", sa.DateTime()))',
    'op.create_table("new", sa.Column("a", sa.Text()))\n    op.create_index("ix_new_a", "new", ["a"])',
    'op.add_column("notes", sa.Column("size", sa.Integer(), nullable=True))',
    'op.add_column("notes", sa.Column("done", sa.Boolean(), nullable=False, server_default=sa.false()))',
    'op.alter_column("notes", "text", nullable=True)',
    'op.alter_column("notes", "text", server_default="x")',
    'op.create_foreign_key("fk", "notes", "users", ["user_id"], ["id"], postgresql_not_valid=True)',
    """op.create_check_constraint("ck", "notes", "text <> ''", postgresql_not_valid=True)""",
    'op.execute("ALTER TABLE notes VALIDATE CONSTRAINT ck")',
    'op.execute("ALTER TABLE notes ADD CONSTRAINT uq UNIQUE USING INDEX ix")',
    "op.execute(\"CREATE TYPE colour AS ENUM ('red')\")",
    "op.execute(\"ALTER TYPE colour ADD VALUE IF NOT EXISTS 'blue' AFTER 'red'\")",
    'op.execute(sa.table("notes", sa.column("text", sa.Text())).update().values(text="x"))',
    'with op.batch_alter_table("notes") as batch:\n        batch.add_column(sa.Column("size", sa.Integer()))',
    "with op.get_context().autocommit_block():\n        "
    'op.create_index("ix", "notes", ["text"], postgresql_concurrently=True)',
]
DROP = "ALTER TABLE notes DROP COLUMN text"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder without migrations."""
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.alembic]\nscript_location = "%(here)s/migrations"\n')
    (tmp_path / ".squawk.toml").write_text((PROJECT / ".squawk.toml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add(folder: Path, *operations: str, meant: dict[str, str] | None = None) -> Path:
    """Add a migration with some operations, and marks of statements that are meant."""
    file = folder / "migrations" / "versions" / "one.py"
    body = "".join(f"    {operation}\n" for operation in operations)
    marks = f"meant = {meant}\n" if meant else ""
    file.write_text(f"{HEADER}{marks}\ndef upgrade():\n{body}")
    return file


def check() -> list[tuple[str, str]]:
    """Return the problems of all migrations."""
    scripts = ScriptDirectory.from_config(Config(toml_file="pyproject.toml")).walk_revisions()
    return [problem for script in scripts for problem in problems(script)]


@pytest.mark.parametrize("operation", BREAKING)
def test_what_breaks_the_previous_release_is_found(folder: Path, operation: str) -> None:
    """An operation that breaks the previous release is found."""
    add(folder, operation)

    ((_, reason),) = check()
    assert f"({BREAKING[operation]})" in reason


@pytest.mark.parametrize("operation", LOCKING)
def test_what_blocks_the_previous_release_is_found(folder: Path, operation: str) -> None:
    """An operation that locks a table for long is a problem on PostgreSQL, but not on SQLite."""
    add(folder, operation)

    if '"require-concurrent-index-creation"' in (folder / ".squawk.toml").read_text():
        assert check() == []
    else:
        ((_, reason),) = check()
        assert f"({LOCKING[operation]})" in reason


@pytest.mark.parametrize("operation", SAFE)
def test_what_is_safe_passes(folder: Path, operation: str) -> None:
    """An operation that does not break the previous release is not a problem."""
    add(folder, operation)

    assert check() == []


def test_a_statement_that_is_meant_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A statement marked with a reason passes, but the migration's other statements do not."""
    operations = 'op.drop_column("notes", "text")', 'op.drop_table("other")'
    add(folder, *operations, meant={DROP: "no release has read it since June"})

    assert [statement for statement, _ in check()] == ["DROP TABLE other"]
    assert main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "migrations/versions/one.py: unsafe while the previous release serves:"
    assert lines[1] == "    DROP TABLE other"


def test_a_mark_needs_a_reason(folder: Path) -> None:
    """A mark without a reason marks nothing."""
    add(folder, 'op.drop_column("notes", "text")', meant={DROP: ""})

    assert [statement for statement, _ in check()] == [DROP]


def test_what_squawk_cannot_read_hides_nothing(folder: Path) -> None:
    """A statement with another database's syntax does not hide the problems after it."""
    add(folder, 'op.execute("INSERT OR IGNORE INTO notes VALUES (1)")', 'op.drop_column("notes", "text")')

    assert DROP in [statement for statement, _ in check()]


def test_a_broken_configuration_ends_the_check(folder: Path) -> None:
    """A rule unknown to squawk stops the check with squawk's message."""
    add(folder, 'op.drop_table("notes")')
    (folder / ".squawk.toml").write_text('excluded_rules = ["foundation-unknown"]\n')

    with pytest.raises(SystemExit, match="foundation-unknown"):
        check()


def test_what_is_no_sql_must_be_marked(folder: Path) -> None:
    """A migration that reads the database cannot be checked, and must be marked as a whole."""
    reading = "op.get_bind().execute(sa.text('SELECT 1')).all()"
    add(folder, reading)
    assert [statement for statement, _ in check()] == ["upgrade()"]

    add(folder, reading, meant={"upgrade()": "changes rows alone"})
    assert check() == []


def test_only_the_given_files_are_checked(folder: Path) -> None:
    """A check of some files skips the others."""
    file = add(folder, 'op.drop_table("notes")')

    assert main([str(file)]) == 1
    assert main([str(file.with_name("two.py"))]) == 0
