"""Generated migrations run as they are written, on a table with rows, and do what the models say."""

from __future__ import annotations

import ast
import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from {{cookiecutter.package_name}}.foundation.database import UTCDateTime

from ..databases import Databases, SQLite, names
from .workshop import Colour, Parts, Workshop, begin, models

NOTHING = "the database has the schema of the models already: no file written"


class Shout(sa.TypeDecorator[str]):
    """Text that is kept in capitals, by a decorated type."""

    impl = sa.String(20)
    cache_ok = True


class Whisper(sa.TypeDecorator[str]):
    """A decorator of a decorator."""

    impl = Shout
    cache_ok = True


class Key(sa.TypeDecorator[uuid.UUID]):
    """A type that each database stores in its own way."""

    impl = sa.CHAR(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.UUID())
        return dialect.type_descriptor(sa.CHAR(32))


class Point(sa.types.UserDefinedType[str]):
    """A type that SQLAlchemy does not know."""

    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "TEXT"


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def url(each_databases: Databases) -> str:
    """An empty database of each kind."""
    return each_databases.empty()


def every_type() -> Parts:
    """Return columns of every type that both databases have, with constraints and indexes."""
    return [
        sa.Column("at", UTCDateTime),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("day", sa.Date),
        sa.Column("long", sa.Interval),
        sa.Column("shout", Shout(20)),
        sa.Column("whisper", Whisper),
        sa.Column("key", Key),
        sa.Column("either", Shout().with_variant(UTCDateTime(), "sqlite")),
        sa.Column("reverse", sa.Text().with_variant(UTCDateTime(), "postgresql")),
        sa.Column("place", Point),
        sa.Column("done", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("colour", sa.Enum(Colour), nullable=False, server_default="RED"),
        sa.Column("other_colour", sa.Enum(Colour)),
        sa.Column("text_colour", sa.Enum(Colour, native_enum=False, create_constraint=True, name="text")),
        sa.Column("json", sa.JSON, server_default="{}"),
        sa.Column("jsonb", sa.JSON().with_variant(postgresql.JSONB, "postgresql"), server_default="[1]"),
        sa.Column("words", sa.JSON().with_variant(postgresql.ARRAY(sa.Text), "postgresql")),
        sa.Column("price", sa.Numeric(10, 2), server_default="1.50"),
        sa.Column("big", sa.BigInteger().with_variant(sa.Integer, "sqlite"), server_default=sa.text("7")),
        sa.Column("real", sa.Double),
        sa.Column("uuid", sa.Uuid),
        sa.Column("bytes", sa.LargeBinary),
        sa.Column("letters", sa.String(20), nullable=False, server_default="it's “a:b”"),
        sa.Column("owner_id", sa.ForeignKey("owners.id", ondelete="CASCADE"), index=True),
        sa.Column("name", sa.Text, unique=True),
        sa.Column("count", sa.Integer),
        sa.CheckConstraint("count > 0", name="positive"),
        sa.Index("ix_things_name_count", "name", "count", unique=True),
    ]


def test_a_table_is_created_and_dropped(workshop: Workshop, url: str) -> None:
    """A migration creates a table with columns of every type, and its downgrade drops it."""
    begin(workshop, url, models())
    new = models()
    parts = [part for part in every_type() if not isinstance(part, sa.Index)]
    sa.Table("more", new, sa.Column("id", sa.Integer, primary_key=True), *parts)

    workshop.generate(url, new)

    workshop.run(url, models(), new)


def test_columns_are_added_to_a_table_with_rows(workshop: Workshop, url: str) -> None:
    """A migration adds columns of every type to a table with rows, and its downgrade drops them."""
    begin(workshop, url, models())

    workshop.generate(url, models(*every_type()))

    workshop.run(url, models(), models(*every_type()))


def test_columns_are_dropped_and_restored(workshop: Workshop, url: str) -> None:
    """A migration drops columns of every type, and its downgrade adds them again."""
    begin(workshop, url, models(*every_type()))

    workshop.generate(url, models())

    workshop.run(url, models(*every_type()), models())


def changed(*, text: TypeEngine[str], size: TypeEngine[int], **options: Any) -> sa.MetaData:
    """Return models with a text and a size, of some types."""
    default = options.pop("default")
    return models(sa.Column("text", text, **options), sa.Column("size", size, server_default=default))


def test_a_column_changes_in_every_way(workshop: Workshop, url: str) -> None:
    """A migration changes a column's type, default and NOT NULL, and its downgrade changes them back."""
    old = changed(text=sa.String(10), size=sa.Integer(), default="1")
    new = changed(text=sa.Text(), size=sa.BigInteger(), default="2", nullable=False)
    begin(workshop, url, old, text="x")

    workshop.generate(url, new)

    workshop.run(url, old, new)


def test_a_migration_runs_on_the_other_database(
    workshop: Workshop, each_databases: Databases, sqlite: SQLite, request: pytest.FixtureRequest
) -> None:
    """A migration that one database has made does the same on the other."""
    other: Databases = sqlite
    if each_databases is sqlite:
        other = request.getfixturevalue(names()[0])
    here, there = each_databases.empty(), other.empty()
    begin(workshop, here, models())
    command.upgrade(workshop.config(there, models()), "head")

    workshop.generate(here, models(*every_type()))

    workshop.run(there, models(), models(*every_type()))


def test_an_enum_is_shared_by_tables(workshop: Workshop, url: str) -> None:
    """An enum of two tables is created once, and dropped with its last column."""
    one = models(sa.Column("colour", sa.Enum(Colour)))
    both = models(sa.Column("colour", sa.Enum(Colour)))
    both.tables["owners"].append_column(sa.Column("colour", sa.Enum(Colour)))
    begin(workshop, url, both)
    workshop.generate(url, one)
    workshop.run(url, both, one)

    text = workshop.generate(url, models())

    assert text.count(" TYPE colour") == (2 if url.startswith("postgresql") else 0)
    workshop.run(url, one, models())


def test_a_text_becomes_an_enum(workshop: Workshop, url: str) -> None:
    """A migration creates the enum that a column with text becomes. Only the cast is left to its author."""
    old, new = models(sa.Column("colour", sa.Text)), models(sa.Column("colour", sa.Enum(Colour)))
    begin(workshop, url, old, colour="RED")

    text = workshop.generate(url, new)

    (file,) = (file for file in workshop.files() if file.read_text() == text)
    file.write_text(text.replace("type_=sa.Enum(", 'postgresql_using="colour::colour", type_=sa.Enum('))
    workshop.run(url, old, new)


NAMES = ('say "hello" $HOME \\n', "\"\"\"'''\\", "-m “naïve”\nin two lines", "a" * 200)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_makes_a_migration(workshop: Workshop, sqlite: SQLite, name: str) -> None:
    """A name with quotes, backslashes or line ends is the docstring of the migration."""
    url = sqlite.empty()

    workshop.generate(url, models(), name)

    (file,) = workshop.files()
    assert ast.get_docstring(ast.parse(file.read_text()), clean=False) == name
    command.upgrade(workshop.config(url, models()), "head")


def test_no_change_makes_no_migration(
    workshop: Workshop, sqlite: SQLite, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the database has the schema of the models, no file is written, and a line says so."""
    url = sqlite.empty()
    begin(workshop, url, models())
    capsys.readouterr()

    command.revision(workshop.config(url, models()), "nothing", autogenerate=True)

    assert len(workshop.files()) == 1
    assert capsys.readouterr().out == f"migration: {NOTHING}\n"
