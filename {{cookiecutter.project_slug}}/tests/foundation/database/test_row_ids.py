"""No row gets the id of a deleted one, on any database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from flask import Flask
from migrations import row_ids
from sqlalchemy.orm import Mapped, mapped_column

from {{cookiecutter.package_name}}.foundation.database import Base, Identified
from {{cookiecutter.package_name}}.foundation.database.session import engines_of

from ..databases import Databases, SQLite
from ..fixtures import make_settings
from ..sample.app import create_app
from .workshop import Workshop, engine_on, models

OLD = """
CREATE TABLE owners (id INTEGER NOT NULL, CONSTRAINT pk_owners PRIMARY KEY (id));
CREATE TABLE things (
    id INTEGER NOT NULL,
    owner_id INTEGER NOT NULL,
    CONSTRAINT pk_things PRIMARY KEY (id),
    CONSTRAINT fk_things_owner_id_owners FOREIGN KEY (owner_id) REFERENCES owners (id)
);
CREATE TABLE words (word TEXT NOT NULL PRIMARY KEY, length INTEGER);
INSERT INTO owners VALUES (1), (2);
INSERT INTO things VALUES (1, 1), (2, 2), (3, 2);
"""


@pytest.fixture
def service(each_databases: Databases) -> Iterator[Flask]:
    """The sample service, on each kind of database."""
    app = create_app(make_settings(each_databases.sampled()))
    yield app
    for engine in engines_of(app):
        engine.dispose()


def test_a_new_row_has_a_new_address(service: Flask) -> None:
    """After the newest row is deleted, its URL and ETag match no other row."""
    client = service.test_client()
    first = client.post("/samples", json={"text": "first"})
    path, etag = first.headers["Location"], first.headers["ETag"]
    client.delete(path)

    second = client.post("/samples", json={"text": "second"})

    assert second.headers["Location"] != path
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 404
    assert client.patch(path, json={"text": "lost"}, headers={"If-Match": etag}).status_code == 404


class OwnBase(Base):
    """Models with metadata that no migration compares."""

    __abstract__ = True
    metadata = sa.MetaData(naming_convention=Base.metadata.naming_convention)


class FoundationNumbered(Identified, OwnBase):
    """A table with ids assigned by the database."""

    __tablename__ = "foundation_numbered"


class FoundationSmall(OwnBase):
    """A table with an ordinary integer as its key."""

    __tablename__ = "foundation_small"

    id: Mapped[int] = mapped_column(primary_key=True)


class FoundationWord(OwnBase):
    """A table with keys assigned by the service."""

    __tablename__ = "foundation_words"

    word: Mapped[str] = mapped_column(primary_key=True)


class FoundationLarge(OwnBase):
    """A table with a key that SQLite does not assign."""

    __tablename__ = "foundation_large"

    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)


class FoundationPair(OwnBase):
    """A table with a key of two columns."""

    __tablename__ = "foundation_pairs"

    left: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[int] = mapped_column(primary_key=True)


class FoundationPart(OwnBase):
    """A table whose primary key is also a foreign key."""

    __tablename__ = "foundation_parts"

    id: Mapped[int] = mapped_column(sa.ForeignKey("foundation_small.id"), primary_key=True)


def test_every_model_that_is_numbered_has_it(each_databases: Databases) -> None:
    """Tables of every kind can be created, and those whose ids come from SQLite have AUTOINCREMENT."""
    engine = sa.create_engine(each_databases.empty())
    OwnBase.metadata.create_all(engine)
    engine.dispose()

    numbered = {name for name, table in OwnBase.metadata.tables.items() if table.kwargs}
    assert numbered == {"foundation_numbered", "foundation_small"}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def ids(url: str, *statements: str) -> list[int]:
    """Run statements, and return the ids of things."""
    with closing(sqlite3.connect(url.partition("///")[2])) as connection, connection:
        for statement in statements:
            connection.executescript(statement)
        return [number for (number,) in connection.execute("SELECT id FROM things ORDER BY id")]


DELETIONS = ["DELETE FROM things WHERE id > 1", "DELETE FROM things"]


@pytest.mark.parametrize("deletion", DELETIONS)
def test_a_rebuilt_table_goes_on(sqlite: SQLite, workshop: Workshop, deletion: str) -> None:
    """A migration that rebuilds a table, even an empty one, does not restart its ids."""
    url = sqlite.empty()
    workshop.generate(url, models(sa.Column("size", sa.Integer)), "begin")
    command.upgrade(workshop.config(url, models()), "head")
    ids(url, "INSERT INTO things (size) VALUES (1), (2), (3)", deletion)

    workshop.generate(url, models(sa.Column("size", sa.Text)), "change")
    command.upgrade(workshop.config(url, models()), "head")

    assert ids(url, "INSERT INTO things (size) VALUES (4)")[-1] == 4


@pytest.fixture
def old(sqlite: SQLite, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> str:
    """An older database, whose tables lack AUTOINCREMENT; the program works on it."""
    url = sqlite.empty()
    ids(url, OLD)
    settings = make_settings(url)
    monkeypatch.setattr(row_ids, "load_settings", lambda: settings)
    monkeypatch.setattr(row_ids, "Config", lambda **_: workshop.config(url, sa.MetaData()))
    return url


def test_older_tables_get_it_by_a_migration(
    old: str, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program writes a migration for the tables that lack AUTOINCREMENT only; rows and keys stay."""
    assert row_ids.main() == 0

    (file,) = workshop.files()
    assert f"wrote {file}" in capsys.readouterr().out
    assert 'for table in ["owners", "things"]:' in file.read_text()
    command.upgrade(workshop.config(old, sa.MetaData()), "head")
    assert ids(old, "DELETE FROM things WHERE id = 3", "INSERT INTO things (owner_id) VALUES (1)") == [
        1,
        2,
        4,
    ]
    with closing(sqlite3.connect(old.partition("///")[2])) as connection:
        assert connection.execute("PRAGMA foreign_key_list(things)").fetchall()[0][2:5] == (
            "owners",
            "owner_id",
            "id",
        )
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert row_ids.main() == 0
    assert "no table needs a migration" in capsys.readouterr().out
    command.downgrade(workshop.config(old, sa.MetaData()), "base")


def test_postgresql_needs_no_migration(
    own_databases: Databases, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a new database the program writes nothing."""
    settings = make_settings(own_databases.sampled())
    monkeypatch.setattr(row_ids, "load_settings", lambda: settings)

    assert (row_ids.main(), workshop.files()) == (0, set())


def test_the_migration_does_nothing_on_postgresql(
    old: str, workshop: Workshop, each_databases: Databases
) -> None:
    """The migration of the program runs on every database."""
    row_ids.main()
    url = each_databases.empty()
    with engine_on(url) as engine, engine.begin() as connection:
        for name in ("owners", "things"):
            connection.execute(sa.text(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY)"))

    config: Config = workshop.config(url, sa.MetaData())
    command.upgrade(config, "head")
