"""One session per application context, committed by `transaction()` and always closed.

State: `Session.info` has `transaction` (begun, refused) inside that function, and `together` (begun, written,
lost, refused) inside `commit_together()`.
"""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from flask import Flask, has_app_context
from flask.globals import app_ctx
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, SessionTransaction

from .base import Base

log = logging.getLogger(__name__)

IDEMPOTENT = "operation(idempotent=…) is one transaction, which commits with the answer"
LOST = "a rollback has undone an earlier transaction() of it: write both in one, or raise Problem"


class Database(SQLAlchemy):
    """Flask-SQLAlchemy without its own session teardown, which may raise."""

    def init_app(self, app: Flask) -> None:
        """Register the application. `Service.do_teardown_appcontext` closes the session, first and last."""
        super().init_app(app)
        app.teardown_appcontext_funcs.remove(self._teardown_session)


db = Database(
    metadata=Base.metadata,
    session_options={
        # Objects stay readable after a commit; the next `transaction()` expires them.
        "expire_on_commit": False,
        # The context, not its id(): an id may be reused, and another request would get a leaked session.
        "scopefunc": cast(Any, app_ctx)._get_current_object,
    },
)


def engines_of(app: Flask) -> list[Engine]:
    """Return every engine of the application, including binds."""
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
        # The connection has died since its last statement, and must not return to the pool.
        log.warning("the session did not close, its connection is dropped", exc_info=True)
        try:
            session.invalidate()
        except Exception:
            log.exception("the session could not be invalidated")
    finally:
        # scoped_session.remove() keeps the entry if close() raises.
        db.session.registry.clear()


def refuse_commit() -> None:
    """Mark the running transaction, if any, for rollback, because its request has failed."""
    if has_app_context() and db.session.registry.has():
        info = db.session().info
        info.update(dict.fromkeys({"transaction", "together"} & info.keys(), "refused"))


@contextmanager
def transaction(**options: Any) -> Generator[Session]:
    """Commit the block's work; roll back if it raises or calls `problem()`; join an enclosing transaction.

    Inside `commit_together()` the commit comes at the end of that block. Options are the connection's
    execution options; they raise `RuntimeError` if the transaction has already begun.
    """
    session: Session = db.session()
    if session.info.get("transaction"):
        if options:
            raise RuntimeError("an outer transaction() has begun, its options cannot change any more")
        yield session
        return
    if options and "together" in session.info:
        raise RuntimeError(f"{IDEMPOTENT}: remove the options of transaction(), or idempotent")
    if options and session.in_transaction():
        raise RuntimeError("the session has begun a transaction, its options cannot change any more")
    session.info["transaction"] = "begun"
    try:
        if options:
            session.connection(execution_options=options)
        # Rows read before may have changed since: even SELECT ... FOR UPDATE would show the old values.
        # Earlier unflushed changes belong to this transaction, and expiring would discard them.
        session.flush()
        session.expire_all()
        yield session
        if session.info["transaction"] == "refused":
            session.rollback()
        elif "together" in session.info:
            session.flush()
            if session.info["together"] == "begun":
                session.info["together"] = "written"
        else:
            session.commit()
    except BaseException:
        session.rollback()
        raise
    finally:
        session.info.pop("transaction", None)


@contextmanager
def commit_together() -> Generator[Session]:
    """Commit the work of every `transaction()` in the block at its end, or nothing if one was rolled back.

    Raises `RuntimeError` for anything that cannot be one transaction: options, a commit inside the block, or
    a rollback after a finished `transaction()`.
    """
    session: Session = db.session()
    if {"transaction", "together"} & session.info.keys():
        raise RuntimeError(f"{IDEMPOTENT}: call the function that both views need, and no view")
    session.info["together"] = "begun"
    try:
        yield session
        if session.info["together"] == "lost" or db.session() is not session:
            raise RuntimeError(f"{IDEMPOTENT}: {LOST}")
        if session.info.pop("together") == "refused":
            session.rollback()
        else:
            session.commit()
    except BaseException:
        session.info.pop("together", None)
        session.rollback()
        raise


@event.listens_for(db.session, "before_commit")
def _refuse_early_commit(session: Session) -> None:
    # Releasing a SAVEPOINT fires this event, too.
    if "together" in session.info and not session.in_nested_transaction():
        raise RuntimeError(f"{IDEMPOTENT}: remove session.commit(), and write inside transaction()")


@event.listens_for(db.session, "after_transaction_end")
def _note_loss(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None and session.info.get("together") == "written":
        session.info["together"] = "lost"
