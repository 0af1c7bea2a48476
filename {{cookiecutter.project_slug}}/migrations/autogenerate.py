"""Corrections of Alembic's autogenerate: its migrations run as written, on PostgreSQL and on SQLite.

Alembic renders a type of the project by a name that it does not import, and leaves out the statements that
PostgreSQL needs for an enum (tried with 1.20.1).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext

# Private: imported by name, so that a release without it fails the tests.
from alembic.autogenerate.render import _repr_type
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Enum, MetaData, TypeDecorator, inspect, make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.elements import False_, True_
from sqlalchemy.sql.functions import now
from sqlalchemy.types import TypeEngine

Type = TypeEngine[Any]


class _Dialect(DefaultDialect):
    """A dialect that gives a type back as it is."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


POSTGRESQL: Any = make_url("postgresql://").get_dialect()()
IMPL = PostgresqlImpl(
    POSTGRESQL, None, as_sql=True, transactional_ddl=None, output_buffer=None, context_opts={}
)
# Each database has another spelling of these.
PORTABLE_DEFAULTS: dict[type, str] = {False_: "sa.false()", True_: "sa.true()", now: "sa.func.now()"}
DIALECTS = (_Dialect("postgresql"), _Dialect("sqlite"))


class PostgreSQLOp(ops.ExecuteSQLOp):
    """A statement for PostgreSQL alone."""


@renderers.dispatch_for(PostgreSQLOp)
def _render(context: AutogenContext, op: PostgreSQLOp) -> list[str]:
    return ['if op.get_context().dialect.name == "postgresql":', f"op.execute({op.sqltext!r})", ""]


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Render a type of the project as SQLAlchemy's, because the code changes and a migration stays."""
    if kind == "server_default":
        return PORTABLE_DEFAULTS.get(type(getattr(item, "arg", None)), False)
    if kind != "type":
        return False
    if (found := plain(item)) is not item:
        return _repr_type(found, context)
    if type(item).__module__.startswith("sqlalchemy.dialects.postgresql"):
        context.imports.add("from sqlalchemy.dialects import postgresql")
        return IMPL.render_type(item, context) or f"postgresql.{item!r}"
    if not _belongs_to_sqlalchemy(item):
        context.imports.add(f"import {type(item).__module__}")
    return False


def plain(kind: Type) -> Type:
    """Return the type without decorators of the project. Its enum is created by a separate statement."""
    found, variants = kind, dict(kind._variant_mapping)
    if isinstance(kind, TypeDecorator) and not _belongs_to_sqlalchemy(kind):
        found = plain(kind.impl_instance)
        for dialect in DIALECTS:
            if (own := kind.load_dialect_impl(dialect)) is not kind.impl_instance:
                variants.setdefault(dialect.name, own)
    elif isinstance(kind, Enum) and kind.native_enum and kind.create_type:
        found = enum = copy.copy(kind)
        enum.create_type = False
    variants = {name: plain(variant) for name, variant in variants.items()}
    if found is kind and variants == kind._variant_mapping:
        return kind
    found = copy.copy(found)
    found._variant_mapping = found._variant_mapping.union(variants)
    return found


def _belongs_to_sqlalchemy(kind: Type) -> bool:
    return type(kind).__module__.startswith("sqlalchemy.")


def complete(context: MigrationContext, script: ops.MigrationScript, metadata: MetaData) -> None:
    """Add the statements for enums to a new migration, and remove constraints that it would add twice."""
    upgrade, downgrade = script.upgrade_ops, script.downgrade_ops
    assert upgrade and downgrade  # noqa: PT018
    added = dict(_columns(upgrade.ops))
    columns = {(table.name, column.name): column for table in metadata.tables.values() for column in table.c}
    modelled = _enums(columns.values())
    earlier = _enums(column for place, column in columns.items() if place not in added)
    _leave_to_types(upgrade.ops, set(added), metadata)
    for name, enum in _enums(added.values()).items():
        if name not in earlier:
            _create_and_drop(enum, upgrade.ops, downgrade.ops)
    for name, enum in _enums(column for _, column in _columns(downgrade.ops)).items():
        if name not in modelled:
            _create_and_drop(enum, downgrade.ops, upgrade.ops)
    if context.dialect.name == "postgresql":
        inspector: Any = inspect(context.connection)
        for stored in inspector.get_enums():
            if stored["name"] in modelled:
                upgrade.ops[:0] = _added_values(modelled[stored["name"]], stored["labels"])


def _columns(operations: Iterable[ops.MigrateOperation]) -> Iterator[tuple[tuple[str, str], Column[Any]]]:
    """Yield the columns that operations add or give another type, by table and name."""
    for op in operations:
        if isinstance(op, ops.ModifyTableOps):
            yield from _columns(op.ops)
        elif isinstance(op, ops.CreateTableOp):
            columns = (part for part in op.columns if isinstance(part, Column))
            yield from (((op.table_name, column.name), column) for column in columns)
        elif isinstance(op, ops.AddColumnOp):
            yield (op.table_name, op.column.name), op.column
        elif isinstance(op, ops.AlterColumnOp) and op.modify_type is not None:
            yield (op.table_name, op.column_name), Column(op.column_name, op.modify_type)


def _leave_to_types(
    operations: Iterable[ops.MigrateOperation], added: set[tuple[str, str]], metadata: MetaData
) -> None:
    """Remove the CHECK constraints that the types of new columns bring along."""
    constraints: Any = (c for table in metadata.tables.values() for c in table.constraints if c._type_bound)
    bound = {c.name for c in constraints if any((c.table.name, column.name) in added for column in c.columns)}
    for op in operations:
        if isinstance(op, ops.ModifyTableOps):
            op.ops = [part for part in op.ops if getattr(part, "constraint_name", None) not in bound]


def _enums(columns: Iterable[Column[Any]]) -> dict[str, Enum]:
    """Return the enums of the columns that are types on PostgreSQL, by name."""
    found = {}
    for column in columns:
        kind: Any = plain(column.type)
        kind = kind._variant_mapping.get("postgresql", kind)
        kind = getattr(kind, "item_type", kind)
        if isinstance(kind, Enum) and kind.native_enum and kind.name:
            found[kind.name] = kind
    return found


def _create_and_drop(
    enum: Enum, before: list[ops.MigrateOperation], after: list[ops.MigrateOperation]
) -> None:
    """Create the type before some operations, and drop it after those that undo them."""
    values = ", ".join(map(_quoted, enum.enums))
    before.insert(0, PostgreSQLOp(f"CREATE TYPE {_name(enum)} AS ENUM ({values})"))
    after.append(PostgreSQLOp(f"DROP TYPE {_name(enum)}"))


def _added_values(enum: Enum, labels: list[str]) -> Iterator[PostgreSQLOp]:
    """Yield the statements that add the model's new values in place. PostgreSQL can't remove one."""
    for number, value in enumerate(enum.enums):
        if value not in labels:
            place = f"AFTER {_quoted(enum.enums[number - 1])}" if number else f"BEFORE {_quoted(labels[0])}"
            yield PostgreSQLOp(f"ALTER TYPE {_name(enum)} ADD VALUE IF NOT EXISTS {_quoted(value)} {place}")


def _name(enum: Enum) -> str:
    return str(POSTGRESQL.identifier_preparer.format_type(enum))


def _quoted(value: str) -> str:
    """Return a literal, in which `op.execute` finds no parameter."""
    return "'" + value.replace("'", "''").replace(":", r"\:") + "'"
