"""The migrations of a removed feature: deleted where that is safe, otherwise undone by another one."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from dotenv import dotenv_values
from sqlalchemy import NullPool, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from . import schema
from .project import VERSIONS, all_or_nothing, run

# The operations whose first argument is the table, and those whose second one is, unless they name it.
FIRST = {"create_table", "drop_table", "add_column", "drop_column", "alter_column", "batch_alter_table"}
SECOND = {"create_index", "drop_index", "create_unique_constraint", "create_check_constraint"}


def scripts() -> list[Script]:
    """Return the migrations, the newest first."""
    return list(ScriptDirectory.from_config(Config(toml_file="pyproject.toml")).walk_revisions())


def newest_of(tables: set[str]) -> list[Script]:
    """Return the newest migrations that consist of operations on these tables."""
    return list(takewhile(lambda script: _touches_only(Path(script.path), tables), scripts()))


def reason_to_keep(own: list[Script]) -> str:
    """Return why these migrations can't be deleted, or nothing."""
    others = {script.revision for script in scripts()[len(own) :]}
    return _applied(others) if own else "the newest migration has more than these tables"


def delete(own: list[Script], removal: Path) -> bool:
    """Delete the migrations and the one that would undo them, if the others lead to the models."""
    with suppress(_Kept), all_or_nothing(VERSIONS):
        for path in (removal, *(Path(script.path) for script in own)):
            path.unlink()
        if schema.differs():
            raise _Kept
        if not any(VERSIONS.glob("*.py")):
            (VERSIONS / ".gitkeep").touch()  # git keeps no empty folder, and Alembic needs this one.
        return True
    return False


class _Kept(Exception):
    """Migrations that can't be deleted."""


def _touches_only(path: Path, tables: set[str]) -> bool:
    """Return whether a migration consists of operations on these tables."""
    return set(_touched(ast.parse(path.read_text("utf-8")))) <= tables


def _touched(module: ast.Module) -> Iterator[str]:
    """Yield the table of each operation, or an empty name where it is not known."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
            if owner == "op" and name != "f":
                tables = [keyword.value for keyword in node.keywords if keyword.arg == "table_name"]
                tables += node.args[:1] if name in FIRST else node.args[1:2] if name in SECOND else []
                yield str(getattr(tables[0], "value", "")) if tables else ""


def _applied(others: set[str]) -> str:
    """Return why the configured database counts as one that has more than the other revisions."""
    url = os.environ.get("DATABASE_URL") or dotenv_values(".env").get("DATABASE_URL")
    if not url:
        return "DATABASE_URL is not set, so a database may have it"
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if not Path(parsed.database or "").exists():
                return ""
            options = {}
        else:
            parsed, options = parsed.set(drivername="postgresql+psycopg"), {"connect_timeout": 5}
        with create_engine(parsed, poolclass=NullPool, connect_args=options).connect() as connection:
            found = set(MigrationContext.configure(connection).get_current_heads())
    except (SQLAlchemyError, ImportError) as error:
        return f"the database of DATABASE_URL can't be reached ({type(error).__name__}), so it may have it"
    return "" if found <= others else "the database of DATABASE_URL has it"


def mark_as_meant(path: Path, reason: str) -> None:
    """Mark a migration as one that drops tables on purpose, for the check of migrations."""
    text = path.read_text("utf-8")
    meant = {"upgrade()": reason}
    path.write_text(text.replace("depends_on = None\n", f"depends_on = None\n{meant = }\n"), "utf-8")
    run("ruff", "check", "--quiet", "--fix", "--exit-zero", path)
    run("ruff", "format", "--quiet", path)
