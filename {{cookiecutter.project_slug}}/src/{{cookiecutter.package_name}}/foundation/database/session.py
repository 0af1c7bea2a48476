"""One session for each application context, committed by `transaction()` and always closed."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from flask import Flask, has_app_context
from flask.globals import app_ctx
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from .base import Base

log = logging.getLogger(__name__)


class Database(SQLAlchemy):
    """Flask-SQLAlchemy without its own end of the session, which may raise."""

    def _teardown_session(self, exc: BaseException | None) -> None:
        """Do nothing: `Service.do_teardown_appcontext` ends the session, first and last."""


db = Database(
    metadata=Base.metadata,
    session_options={
        # Objects stay readable after the commit; `transaction()` expires them before the next one.
        "expire_on_commit": False,
        # The context, not its id(): at the same address another request would get a leaked session.
        "scopefunc": cast(Any, app_ctx)._get_current_object,
    },
)


def engines_of(app: Flask) -> list[Engine]:
    """Return every engine of the application, binds included."""
    with app.app_context():
        return list(db.engines.values())


def end_session() -> None:
    """Roll back, return the connection, remove the session. Never raises."""
    if not db.session.registry.has():
        return
    session = db.session()
    try:
        session.close()
    except Exception:
        # The connection died since its last statement. It must not go back to the pool.
        log.warning("the session did not close, its connection is dropped", exc_info=True)
        try:
            session.invalidate()
        except Exception:
            log.exception("the session could not be invalidated")
    finally:
        # scoped_session.remove() leaves the entry in place when close() raises.
        db.session.registry.clear()


def refuse_commit() -> None:
    """Let the `transaction()` that runs, if one does, roll back at its end: its request has failed."""
    if has_app_context() and db.session.registry.has() and "transaction" in db.session().info:
        db.session().info["transaction"] = "refused"


@contextmanager
def transaction(**options: Any) -> Generator[Session]:
    """Commit what the block did; roll it back if it raises or calls `problem()`; inside another one, join it.

    Options are the connection's execution options. Raises `RuntimeError` if the transaction has begun.
    """
    session: Session = db.session()
    if session.info.get("transaction"):
        if options:
            raise RuntimeError("an outer transaction() has begun, its options cannot change any more")
        yield session
        return
    if options and session.in_transaction():
        raise RuntimeError("the session has begun a transaction, its options cannot change any more")
    session.info["transaction"] = "begun"
    try:
        if options:
            session.connection(execution_options=options)
        # Rows that were read before may have changed since: even SELECT ... FOR UPDATE would show the old
        # values. Changes made before belong to this transaction, and expiring would discard them.
        session.flush()
        session.expire_all()
        yield session
        if session.info["transaction"] == "refused":
            session.rollback()
        else:
            session.commit()
    except BaseException:
        session.rollback()
        raise
    finally:
        session.info.pop("transaction", None)
