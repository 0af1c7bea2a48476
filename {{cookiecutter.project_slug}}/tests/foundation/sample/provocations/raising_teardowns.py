"""Failing clean-ups, registered in every possible way."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, abort, appcontext_tearing_down, g, request_tearing_down
from flask.ctx import AppContext
from sqlalchemy import text
from sqlalchemy.orm import Session

from {{cookiecutter.package_name}}.foundation.database import db, transaction

from ..samples import FoundationSample, add_sample


def add_to(app: Flask) -> None:
    """Serve requests after which one clean-up fails, or all of them, and report what they leak."""
    bp = Blueprint("leaving", __name__)

    @bp.post("/leave/<way>")
    def leave(way: str) -> str:
        g.way = way
        with transaction() as session:
            add_sample(session, "kept")
        # The session keeps reading: its connection is in use when the clean-ups start.
        db.session.get(FoundationSample, 1)
        if way == "dead_connection":
            kill_connection()
        return "left"

    @bp.post("/refuse/<way>")
    def refuse(way: str) -> str:
        g.way = way
        add_sample(db.session(), "refused")
        abort(409)

    def fail(way: str) -> None:
        if g.get("way") in {way, "every"}:
            raise RuntimeError(f"the clean-up of {way} failed")

    bp.teardown_request(lambda error: fail("blueprint"))
    app.teardown_request(lambda error: fail("request"))
    app.teardown_appcontext(lambda error: fail("context"))
    request_tearing_down.connect(lambda sender, exc: fail("request_signal"), app, weak=False)
    appcontext_tearing_down.connect(lambda sender, exc: fail("context_signal"), app, weak=False)
    app.register_blueprint(bp)

    @app.get("/state")
    def state() -> dict[str, int]:
        gc.collect()
        kinds: list[type] = [type(thing) for thing in gc.get_objects()]
        pool: Any = db.engine.pool
        return {
            "contexts": kinds.count(AppContext) - 1,  # This request's own.
            "sessions": sum(issubclass(kind, Session) for kind in kinds),
            "connections": pool.checkedout(),
        }

    @app.get("/memory")
    def memory() -> str:
        gc.collect()
        pages = Path("/proc/self/statm").read_text().split()[1]
        return str(int(pages) * os.sysconf("SC_PAGE_SIZE"))


def kill_connection() -> None:
    """Break the session's connection unnoticed, as far as its kind of database allows."""
    if db.engine.dialect.name == "postgresql":
        backend = db.session.scalar(text("SELECT pg_backend_pid()"))
        with db.engine.connect() as another:
            another.execute(text("SELECT pg_terminate_backend(:backend, 10000)"), {"backend": backend})
    else:
        driver: Any = db.session.connection().connection.dbapi_connection
        driver.close()
