"""The base class of models, model discovery, a column type for timestamps, and storable text."""

import importlib
import pkgutil
from datetime import UTC, datetime
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator
from sqlalchemy import DateTime, Dialect, MetaData, Table, TypeDecorator
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import DeclarativeBase

_SQLITE = sqlite.dialect()


class Base(DeclarativeBase):
    """The base class of every model. Constraints are named, so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )

    @classmethod
    def __table_cls__(cls, *arguments: Any, **options: Any) -> Table:
        """Return the table of a model."""
        table = Table(*arguments, **options)
        number_rows_once(table)
        return table


def number_rows_once(table: Table) -> None:
    """Prevent SQLite from reusing ids, as PostgreSQL does: a deleted row's URL must not return a new row."""
    keys = list(table.primary_key.columns)
    # The only type for which SQLite supports AUTOINCREMENT.
    if len(keys) == 1 and not keys[0].foreign_keys and keys[0].type.compile(_SQLITE) == "INTEGER":
        table.kwargs["sqlite_autoincrement"] = True


class UTCDateTime(TypeDecorator[datetime]):
    """A timestamp in UTC. SQLite stores no time zone, so it is restored when read.

    Raises `ValueError` for a value without a time zone.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(
                f"{value!r} has no time zone: use datetime.now(UTC), or value.replace(tzinfo=UTC)"
            )
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # PostgreSQL returns it in the session's time zone, which a role or the server may set.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _storable(text: str) -> str:
    # PostgreSQL cannot store it, but SQLite can: the response must not depend on the database.
    if "\0" in text:
        raise ValueError("must not contain the character U+0000")
    return text


StorableText = Annotated[str, AfterValidator(_storable)]


def import_models(package: ModuleType) -> None:
    """Import every `models` module or package, so that `Base` knows all tables."""
    import_modules(package, "models")


def import_modules(package: ModuleType, name: str) -> list[ModuleType]:
    """Import every module of the package with this name, or inside a package with this name."""

    def fail(name: str) -> None:
        raise  # walk_packages calls this while it handles an import error.

    modules = pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=fail)
    return [importlib.import_module(module.name) for module in modules if name in module.name.split(".")]
