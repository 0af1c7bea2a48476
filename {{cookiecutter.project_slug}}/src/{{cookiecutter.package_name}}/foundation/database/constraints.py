"""Violated constraints as fields of the API."""

import re
from typing import Any

from sqlalchemy import Table
from sqlalchemy.exc import IntegrityError

from .base import Base

_SQLITE = re.compile(r"UNIQUE constraint failed: (?:index '(?P<index>.*)'|(?P<columns>.*))")


def taken_fields(error: IntegrityError) -> list[str]:
    """Return the fields with duplicate values: each column's `info={"field": …}`, or its name."""
    tables = [
        table for mapper in Base.registry.mappers for table in mapper.tables if isinstance(table, Table)
    ]
    diagnostics: Any = getattr(error.orig, "diag", None)
    if getattr(error.orig, "sqlstate", None) == "23505":  # unique_violation
        return _fields(tables, diagnostics.constraint_name)
    if not (found := _SQLITE.fullmatch(str(error.orig))):
        return []
    if found["index"]:
        return _fields(tables, found["index"])
    names = found["columns"].split(", ")
    return [_field(column) for table in tables for column in table.columns if str(column) in names]


def _fields(tables: list[Table], constraint: str) -> list[str]:
    named: list[Any] = [each for table in tables for each in (*table.constraints, *table.indexes)]
    return next(([*map(_field, each.columns)] for each in named if each.name == constraint), [])


def _field(column: Any) -> str:
    return str(column.info.get("field", column.name))
