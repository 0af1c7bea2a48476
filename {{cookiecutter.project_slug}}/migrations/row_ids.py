"""Ids on SQLite: no row gets the id of a deleted one, neither in a new table nor in one that is rebuilt.

SQLite gives the largest id that is left, plus one, unless the table is made with AUTOINCREMENT. Run as a
module, this writes a migration that rebuilds the tables of the database which were made without it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Table, create_engine, event, inspect

from {{cookiecutter.package_name}}.foundation.database.base import number_rows_once
from {{cookiecutter.package_name}}.foundation.serving.project import load_settings

SEQUENCES = "SELECT count(*) FROM sqlite_master WHERE name IN ('sqlite_sequence', ?)"
FUTURE = "from __future__ import annotations\n"
BODY = """    if op.get_context().dialect.name == "sqlite":
        for table in {tables}:
            with op.batch_alter_table(table, recreate="always"):
                pass  # It is rebuilt with AUTOINCREMENT.
"""


@contextmanager
def kept() -> Generator[None]:
    """Make every table with AUTOINCREMENT, and let one that is rebuilt go on where the old one was."""
    event.listen(Table, "before_create", _before_create)
    event.listen(Table, "before_drop", _before_drop)
    try:
        yield
    finally:
        event.remove(Table, "before_create", _before_create)
        event.remove(Table, "before_drop", _before_drop)


def _before_create(table: Table, connection: Connection, **options: Any) -> None:
    number_rows_once(table)


def _before_drop(table: Table, connection: Connection, **options: Any) -> None:
    """Copy the largest id that was ever given to the table that replaces this one."""
    rebuilt = f"_alembic_tmp_{table.name}"
    if connection.exec_driver_sql(SEQUENCES, (rebuilt,)).scalar() == 2:
        both = (table.name, rebuilt)
        largest = connection.exec_driver_sql(
            "SELECT max(seq) FROM sqlite_sequence WHERE name IN (?, ?)", both
        ).scalar()
        connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (rebuilt,))
        connection.exec_driver_sql("INSERT INTO sqlite_sequence VALUES (?, ?)", (rebuilt, largest or 0))


def tables_without(url: str) -> list[str]:
    """Return the tables of a database whose ids SQLite may give twice."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'table'").all()
        inspector = inspect(connection)
        names = [
            name
            for name, sql in found
            if re.search(r"\bINTEGER\b", sql) and not re.search(r"\bAUTOINCREMENT\b", sql, re.IGNORECASE)
            if _has_integer_key(inspector, name)
        ]
    engine.dispose()
    return sorted(names)


def _has_integer_key(inspector: Any, table: str) -> bool:
    keys = inspector.get_pk_constraint(table)["constrained_columns"]
    types = {column["name"]: str(column["type"]) for column in inspector.get_columns(table)}
    return len(keys) == 1 and types[keys[0]] == "INTEGER"


def main() -> int:
    """Write the migration, if a table needs it, and return the exit code."""
    url = load_settings().database_url
    tables = tables_without(url) if url.startswith("sqlite") else []
    if not tables:
        print("row_ids: no table needs a migration")  # noqa: T201
        return 0
    made: Any = command.revision(Config(toml_file="pyproject.toml"), "give no id twice")
    path = Path(made.path)
    text = path.read_text().replace("    pass\n", BODY.format(tables=json.dumps(tables)), 1)
    path.write_text(text.replace(FUTURE, f"{FUTURE}\nfrom alembic import op\n", 1))
    print(f"row_ids: wrote {path}: run make migrate")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
