"""Probes: liveness without the database; readiness with warm-ups, the database and its schema."""

import functools
import logging
from pathlib import Path

from flask import Blueprint, Response
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from ..configuration import ServiceSettings, current_settings
from ..database.engine import has_deadline
from ..database.session import db
from ..loading import warm_up
from ..observability.requests import LIVEZ, READYZ
from .errors import problem

log = logging.getLogger(__name__)

bp = Blueprint("health", __name__)

UNREADABLE = "The revision of the schema cannot be read: grant the role SELECT on alembic_version."
MIGRATIONS = Path(__file__).parents[4] / "migrations"


@bp.get(LIVEZ)
def livez() -> dict[str, str]:
    """Return 200 while requests are served. The database is not checked: a restart cannot repair it."""
    return {"status": "alive"}


@bp.get(READYZ)
def readyz() -> dict[str, str] | Response:
    """Return 200 after the warm-ups, if the database has this code's schema or a newer one.

    During a rolling update the old version runs on a schema that it does not know. If that made it unready,
    no process would be ready until the new version is.
    """
    if cold := warm_up():
        return problem(503, f"This process still loads {', '.join(cold)}.", missing=cold)
    try:
        found = _revisions(db.session().connection())
    except SQLAlchemyError as error:
        if isinstance(error, ProgrammingError):
            log.warning("not ready: the revision of the schema cannot be read: %s", error)
            return problem(503, UNREADABLE, missing=["schema"])
        log.warning("not ready: the database cannot be reached: %s", error)
        return problem(503, "The database cannot be reached.", missing=["database"])
    _look_for_deadline()
    newest, known = revisions_in(MIGRATIONS)
    if found != newest and found <= known:
        detail = f"The schema is at {_names(found)}, this code needs {_names(newest)}: run the migrations."
        return problem(503, detail, missing=["schema"])
    return {"status": "ready"}


@functools.cache  # Once per process.
def _look_for_deadline() -> None:
    if current_settings(ServiceSettings).database_pool == "external" and not has_deadline(db.session()):
        log.warning("statement_timeout is 0: ALTER ROLE … SET statement_timeout = '2s'")


@functools.cache
def revisions_in(migrations: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Return the head revisions of the schema, and all revisions known to this code."""
    # Imported lazily: importing Alembic takes a quarter of the startup time.
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(migrations))
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return frozenset(scripts.get_heads()), known


def _names(revisions: frozenset[str]) -> str:
    return ", ".join(sorted(revisions)) or "nothing"


def _revisions(connection: Connection) -> frozenset[str]:
    # Alembic's own MigrationContext would log two lines per probe.
    if not inspect(connection).has_table("alembic_version"):
        return frozenset()
    return frozenset(connection.scalars(text("SELECT version_num FROM alembic_version")))
