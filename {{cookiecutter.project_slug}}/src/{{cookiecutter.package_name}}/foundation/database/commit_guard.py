"""The commit guard: a successful request has committed its writes, and a failed one commits nothing.

A forgotten commit returns 201 and stores nothing: it fails in development and tests, and is logged in
production (UNCOMMITTED_WORK). A commit after an error would store rejected work: it is always refused.
"""

import logging
import re
from typing import Any

from flask import Flask, Response, current_app, g, has_app_context, request
from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

from ..edge.context import break_off
from .session import db, engines_of

log = logging.getLogger(__name__)

_NO_CODE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_WRITES = re.compile(
    r"(?:insert|update|delete|merge|replace|truncate|copy|call|do)\b"
    r"|with\b.*\b(?:insert into|delete from|merge into|(?<!for )(?<!key )update \S+.*? set)\b",
    re.IGNORECASE,
)
_NAME = r'(?:\w+\.)?"?(\w+)'
_MAKES_TEMPORARY = re.compile(
    rf"create (?:local |global )?temp(?:orary)? table (?:if not exists )?{_NAME}", re.IGNORECASE
)
_TARGET = re.compile(rf"(?:insert into|update|delete from|merge into|truncate|copy) {_NAME}", re.IGNORECASE)


class UncommittedWork(AssertionError):
    """A request succeeded, but some of its writes would have been discarded."""


class CommitAfterFailure(RuntimeError):
    """The session of a failed request was about to be committed."""


class FailureAfterCommit(AssertionError):
    """A request failed, but some of its writes were committed."""


def init_app(app: Flask, on_uncommitted_work: str) -> None:
    """Refuse late commits; unless the policy is `off`, watch every engine for writes without a commit."""
    # SQLAlchemy registers the same listener only once, even if a test builds several applications.
    event.listen(db.session, "before_commit", _refuse_after_failure)
    app.extensions["commit_guard"] = on_uncommitted_work
    if on_uncommitted_work != "off":
        for engine in engines_of(app):
            event.listen(engine, "after_cursor_execute", _note_write)
            event.listen(engine, "savepoint", _begin_savepoint)
            event.listen(engine, "release_savepoint", _release_savepoint)
            event.listen(engine, "rollback_savepoint", _forget_savepoint)
            event.listen(engine, "commit", _note_commit)
            event.listen(engine, "rollback", _forget_writes)
        event.listen(db.session, "after_commit", _note_session_commit)
        event.listen(db.session, "after_transaction_end", _forget_at_the_end)


def check_response(response: Response) -> None:
    """Check, after every after_request function, that a success lost nothing and a failure stored nothing.

    Raises `UncommittedWork` or `FailureAfterCommit` where the policy is `raise`.
    """
    policy = current_app.extensions["commit_guard"]
    if policy == "off":
        return
    if response.status_code >= 400:
        _check_failure(response, policy)
        return
    g.success_status = response.status_code
    if forgotten := _forgotten():
        if policy == "raise" or response.is_streamed:
            fail_request()  # A stream cannot commit this work: the session is closed before.
        if policy == "raise":
            raise forgotten
        log.error(forgotten)


def _check_failure(response: Response, policy: str) -> None:
    # problem() and Problem roll back the enclosing transaction(); after it, the commit was intended.
    if "committed" not in g or "problem" in g:
        return
    message = f"{request.endpoint} answers {response.status_code} and has committed: {g.committed[:100]}."
    error = FailureAfterCommit(f"{message} Raise Problem, or return problem(), inside the transaction().")
    if policy == "raise":
        raise error
    log.error(error)


def check_stream() -> None:
    """Check, at the end of the request's context, for work that a stream wrote after the first check."""
    if forgotten := _forgotten():
        report = break_off if current_app.extensions["commit_guard"] == "raise" else log.error
        report(forgotten)


def fail_request() -> None:
    """Roll back the request's session, and refuse later commits."""
    g.request_failed = f"{request.method} {request.path}"
    roll_back()


def roll_back() -> None:
    """Roll back the context's session, if any."""
    if db.session.registry.has():
        db.session.rollback()


def _refuse_after_failure(session: Session) -> None:
    if has_app_context() and "request_failed" in g:
        message = f"{g.request_failed} has failed, its session must not be committed any more."
        raise CommitAfterFailure(f"{message} To store anything despite that, use Session(db.engine).")


def end_read() -> None:
    """End a read-only transaction, so that `transaction()` can begin one with options."""
    if db.session.registry.has() and not _unfinished():
        db.session.rollback()


def _note_write(
    connection: Connection, cursor: object, sql: str, parameters: object, context: Any, many: bool
) -> None:
    if context is None or not has_app_context() or not connection.in_transaction():
        return
    is_text = context.compiled is None or context.is_text
    if is_text or context.isddl:
        sql = " ".join(_NO_CODE.sub(" ", sql).split())
        if made := _MAKES_TEMPORARY.match(sql):
            connection.info.setdefault("temporary", set()).add(made[1])
    writes = context.isinsert or context.isupdate or context.isdelete
    if (writes or (is_text and _WRITES.match(sql))) and not _is_temporary(connection, sql):
        g.setdefault("uncommitted", {}).setdefault(connection, []).append(sql)


def _is_temporary(connection: Connection, sql: str) -> bool:
    """Return whether a statement writes to a temporary table, which lives only as long as its connection."""
    tables = connection.info.get("temporary")
    return bool(tables and (target := _TARGET.match(sql)) and target[1] in tables)


def _begin_savepoint(connection: Connection, name: str | None) -> None:
    if has_app_context():
        count = len(g.get("uncommitted", {}).get(connection, ()))
        g.setdefault("savepoints", {}).setdefault(connection, []).append(count)


def _release_savepoint(connection: Connection, name: str, context: object) -> int:
    """Pop the innermost SAVEPOINT, and return the number of writes before it."""
    begun: list[int] = g.get("savepoints", {}).get(connection, []) if has_app_context() else []
    return begun.pop() if begun else 0


def _forget_savepoint(connection: Connection, name: str, context: object) -> None:
    count = _release_savepoint(connection, name, context)
    if has_app_context() and (written := g.get("uncommitted", {}).get(connection)):
        del written[count:]
        if not written:
            del g.uncommitted[connection]


def _note_commit(connection: Connection) -> None:
    if written := _forget_writes(connection):
        g.committed = written[-1]


def _forget_writes(connection: Connection) -> list[str]:
    """Clear and return the recorded writes of a connection."""
    if not has_app_context():
        return []
    g.get("savepoints", {}).pop(connection, None)
    written: list[str] = g.get("uncommitted", {}).pop(connection, [])
    return written


def _note_session_commit(session: Session) -> None:
    # A test that rolls everything back commits the session, but never its connection.
    if has_app_context() and not session.in_nested_transaction() and g.get("uncommitted"):
        g.committed = next(iter(g.uncommitted.values()))[-1]


def _forget_at_the_end(session: Session, transaction: SessionTransaction) -> None:
    # A SAVEPOINT has a parent; releasing it commits nothing.
    if transaction.parent is None and has_app_context():
        g.pop("uncommitted", None)


def _unfinished() -> list[str]:
    """Return the uncommitted writes of the request."""
    written = g.get("uncommitted") or {}
    left = [" ".join(sql.split())[:100] for several in written.values() for sql in several]
    # The session's public sets are built on each access, and most requests have changed nothing.
    registry = db.session.registry
    if registry.has() and not (session := registry())._is_clean():
        left += [f"new {row!r}" for row in session.new]
        left += [f"deleted {row!r}" for row in session.deleted]
        left += [f"changed {row!r}" for row in session.dirty if session.is_modified(row)]
    return left


def _forgotten() -> UncommittedWork | None:
    """Return an error that names the uncommitted writes of the request, once."""
    if not (left := _unfinished()) or "success_status" not in g:
        return None
    if metrics := current_app.extensions.get("metrics"):
        metrics.count("uncommitted_work")
    answer = f"{request.method} {request.path} answers {g.pop('success_status')}"
    message = f"{answer} and has not committed: {'; '.join(left)}."
    return UncommittedWork(f"{message} Write inside `with transaction() as session:`.")
