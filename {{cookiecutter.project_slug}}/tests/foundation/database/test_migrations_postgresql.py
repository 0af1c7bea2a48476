"""Migrations on PostgreSQL only: its types, its enums, and servers that reject the connection."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from sqlalchemy import make_url, text
from sqlalchemy.dialects import postgresql

from {{cookiecutter.package_name}}.foundation.database import UTCDateTime

from ..databases import PostgreSQL
from ..fixtures import SECRET
from ..servers import free_port
from .conftest import refused
from .workshop import Colour, Parts, Workshop, begin, engine_on, models


def types_of_postgresql() -> Parts:
    """Return columns of types that only PostgreSQL has."""
    return [
        sa.Column("words", postgresql.ARRAY(sa.Text), server_default="{}"),
        sa.Column("colours", sa.ARRAY(sa.Enum(Colour))),
        sa.Column("times", postgresql.ARRAY(UTCDateTime)),
        sa.Column("data", postgresql.JSONB, server_default=sa.text("'{}'::jsonb")),
        sa.Column("address", postgresql.INET),
        sa.Column("letter", postgresql.ENUM("a", "it's: b", name="letters")),
        sa.Column("search", postgresql.TSVECTOR),
        sa.Index("ix_things_data", "data", postgresql_using="gin"),
    ]


def test_types_of_postgresql_are_added_and_dropped(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """Migrations add and drop columns of types that only PostgreSQL has."""
    workshop, url = Workshop(tmp_path), postgresql.empty()
    begin(workshop, url, models())
    workshop.generate(url, models(*types_of_postgresql()))
    workshop.run(url, models(), models(*types_of_postgresql()))

    workshop.generate(url, models())

    workshop.run(url, models(*types_of_postgresql()), models())


def test_an_enum_gains_values(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """A migration adds new enum values in their places. Its downgrade keeps them."""
    workshop, url = Workshop(tmp_path), postgresql.empty()
    begin(workshop, url, models(sa.Column("letter", sa.Enum("b", "d", name="letter"))), letter="d")
    new = models(sa.Column("letter", sa.Enum("a", "b", "c", "d", "e", name="letter")))

    workshop.generate(url, new)

    config = workshop.config(url, new)
    for _ in range(2):
        command.upgrade(config, "head")
        command.check(config)
        command.downgrade(config, "-1")
    with engine_on(url) as engine:
        (enum,) = sa.inspect(engine).get_enums()  # type: ignore[attr-defined]
    assert enum["labels"] == ["a", "b", "c", "d", "e"]


def test_a_server_that_refuses_is_one_line(postgresql: PostgreSQL, sample_migrations: Path) -> None:
    """An unreachable server, an unknown role and an unknown database cause one line each."""
    empty = make_url(postgresql.empty())
    wrong = {
        "Connection refused": empty.set(host="127.0.0.1", port=free_port(), query={}),
        "foundation_missing": empty.set(database="foundation_missing"),
        "foundation_unknown": empty.set(username="foundation_unknown", password="wrong"),  # noqa: S106
    }

    for reason, url in wrong.items():
        line = refused(url.render_as_string(hide_password=False), sample_migrations)
        assert line.startswith("migrations: DATABASE_URL's database can't be used: ")
        assert reason in line
        assert "wrong" not in line


def test_a_role_without_create_is_one_line(postgresql: PostgreSQL, sample_migrations: Path) -> None:
    """A role without permission to create tables causes one line with the reason."""
    url = make_url(postgresql.empty())
    role = f"{url.database}_role"
    with engine_on(url.render_as_string(hide_password=False)) as engine, engine.begin() as connection:
        connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
    postgresql.run(f"CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")
    try:
        as_role = url.set(username=role, password=SECRET)
        line = refused(as_role.render_as_string(hide_password=False), sample_migrations)
    finally:
        postgresql.run(f"DROP ROLE {role}")

    reason = "permission denied for schema public"
    assert line == f"migrations: the role of DATABASE_URL may not change the schema: {reason}"
