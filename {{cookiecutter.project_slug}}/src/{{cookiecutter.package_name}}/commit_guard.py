"""A request that succeeds has committed what it wrote; a request that failed commits nothing.

Both mistakes lose or keep data without any error: a forgotten commit answers 201 and stores
nothing, a commit after an error stores work that was refused. The first one fails in
development and tests and is logged in production (UNCOMMITTED_WORK); the second is always refused.
A stream goes on after the request's session has ended: it is looked at once more behind its last part.
"""

from __future__ import annotations

import logging
import re
import typing as t
from collections.abc import Iterable

from flask import Flask, Response, after_this_request, current_app, g, has_app_context, request
from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction

from .db import db, engines_of
from .middleware import break_off

log = logging.getLogger(__name__)

_NO_CODE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_WRITES = re.compile(
    r"(?:insert|update|delete|merge|replace|truncate|copy|call|do)\b"
    r"|with\b.*\b(?:insert into|delete from|merge into|(?<!for )(?<!key )update \S+.*? set)\b",
    re.IGNORECASE,
)


class UncommittedWork(AssertionError):
    """A request succeeded, and something it wrote would have been thrown away."""


class CommitAfterFailure(RuntimeError):
    """Something committed the session of a request that had failed already."""


def init_app(app: Flask, on_uncommitted_work: str) -> None:
    """Watch every engine of the application; `off` leaves only the refusal of late commits."""
    # The same listener is registered once, however many applications a test builds.
    event.listen(db.session, "before_commit", _refuse_after_failure)
    app.before_request(_watch_status)
    if on_uncommitted_work == "off":
        return
    _watch_writes(engines_of(app))

    raises = on_uncommitted_work == "raise"

    # Registered first, so they run last: what another function of the kind wrote counts too.

    @app.after_request
    def refuse_uncommitted(response: Response) -> Response:
        if response.status_code < 400:
            g.answer = f"{request.method} {request.path} answers {response.status_code}"
            if forgotten := _forgotten():
                if raises or response.is_streamed:
                    # The session ends before a stream begins: what that commits would lack this work.
                    fail_request()
                if raises:
                    raise forgotten
                log.error(forgotten)
        return response

    @app.teardown_request
    def refuse_uncommitted_stream(error: BaseException | None) -> None:
        # A stream may write after the functions above; its context ends once more behind its last part.
        if error is None and (forgotten := _forgotten()):
            if raises:
                break_off(forgotten)
            else:
                log.error(forgotten)


def fail_request() -> None:
    """Roll the request's session back, and refuse every later commit of it."""
    g.request_failed = f"{request.method} {request.path}"
    roll_back()


def roll_back() -> None:
    """Roll the context's session back, if there is one."""
    if db.session.registry.has():
        db.session.rollback()


def _watch_status() -> None:
    # These functions run before those of after_request: none of them can commit what was refused.
    @after_this_request
    def fail_if_refused(response: Response) -> Response:
        if response.status_code >= 400:
            fail_request()
        return response


def _refuse_after_failure(session: Session) -> None:
    if has_app_context() and "request_failed" in g:
        raise CommitAfterFailure(
            f"{g.request_failed} has failed, its session must not be committed any more."
            " What has to be stored all the same needs a session of its own: Session(db.engine)."
        )


def _watch_writes(engines: Iterable[Engine]) -> None:
    for engine in engines:
        event.listen(engine, "after_cursor_execute", _note_write)
        event.listen(engine, "commit", _forget_writes)
        event.listen(engine, "rollback", _forget_writes)
    event.listen(db.session, "after_transaction_end", _forget_at_the_end)


def _note_write(
    connection: Connection, cursor: object, sql: str, parameters: object, context: t.Any, many: bool
) -> None:
    if context is None or not has_app_context() or not connection.in_transaction():
        return
    written_as_text = context.compiled is None or context.is_text
    if context.isinsert or context.isupdate or context.isdelete or (written_as_text and _writes(sql)):
        g.setdefault("uncommitted", {})[connection] = sql


def _writes(sql: str) -> bool:
    code = " ".join(_NO_CODE.sub(" ", sql).split())
    return _WRITES.match(code) is not None


def _forget_writes(connection: Connection) -> None:
    if has_app_context() and "uncommitted" in g:
        g.uncommitted.pop(connection, None)


def _forget_at_the_end(session: Session, transaction: SessionTransaction) -> None:
    # The end of a SAVEPOINT has a parent, and commits nothing.
    if transaction.parent is None and has_app_context():
        g.pop("uncommitted", None)


def _forgotten() -> UncommittedWork | None:
    if "answer" not in g or not (left := _left_uncommitted()):
        return None
    if metrics := current_app.extensions.get("metrics"):
        metrics.count("uncommitted_work")
    return UncommittedWork(
        f"{g.pop('answer')} and has not committed: {'; '.join(left)}."
        " Write inside `with transaction() as session:`."
    )


def _left_uncommitted() -> list[str]:
    left = [" ".join(sql.split())[:100] for sql in g.get("uncommitted", {}).values()]
    if db.session.registry.has():
        session = db.session()
        left += [f"new {row!r}" for row in session.new]
        left += [f"deleted {row!r}" for row in session.deleted]
        left += [f"changed {row!r}" for row in session.dirty if session.is_modified(row)]
    return left
