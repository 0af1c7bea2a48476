"""Is the service alive, and is it able to work? Two questions, two answers."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from flask import Blueprint, Response
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from .db import db
from .errors import problem

log = logging.getLogger(__name__)

bp = Blueprint("health", __name__)

MIGRATIONS = Path(__file__).parents[2] / "migrations"


@bp.get("/livez")
def livez() -> dict[str, str]:
    """Answer for as long as requests are served: a restart mends no database, so none is asked."""
    return {"status": "alive"}


@bp.get("/readyz")
def readyz() -> dict[str, str] | Response:
    """Answer 200 when the database is there and its schema is the one of this code, or a newer one.

    While a new version is rolled out, the old one still serves on a schema that it does not know: were
    it to say that it is not ready, nobody would be until the new one is.
    """
    try:
        found = _revisions(db.session().connection())
    except SQLAlchemyError as error:
        log.warning("not ready: the database cannot be reached: %s", error)
        return problem(503, "The database cannot be reached.", missing=["database"])
    if found != heads() and found <= known():
        return problem(
            503,
            f"The schema is at {_names(found)}, this code needs {_names(heads())}: run the migrations.",
            missing=["schema"],
        )
    return {"status": "ready"}


@functools.cache
def heads() -> frozenset[str]:
    """Return the newest revision of the schema that this code knows."""
    # Alembic is imported when it is asked for: it would be a quarter of the time to boot.
    from alembic.script import ScriptDirectory

    return frozenset(ScriptDirectory(str(MIGRATIONS)).get_heads())


@functools.cache
def known() -> frozenset[str]:
    """Return every revision of the schema that this code knows."""
    from alembic.script import ScriptDirectory

    return frozenset(script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions())


def _names(revisions: frozenset[str]) -> str:
    return ", ".join(sorted(revisions)) or "nothing"


def _revisions(connection: Connection) -> frozenset[str]:
    if not inspect(connection).has_table("alembic_version"):
        return frozenset()
    return frozenset(connection.scalars(text("SELECT version_num FROM alembic_version")))
