"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a repeated request gets the first response.

The response is stored in the view's transaction, so a commit stores both or neither. Responses with status
400 or above are not stored and roll the transaction back, so a repeat runs again.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flask import Response, request
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..database.models import IdempotencyKey
from ..database.session import commit_together, refuse_commit
from .errors import RETRY_AFTER, Problem

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
LONGEST_KEY = 255  # characters
LONGEST_ANSWER = 64 * 1024  # bytes
# In addition to those that the operation names: all other headers are made for each response.
STORED_HEADERS = ("Content-Type", "Location", "ETag")
DRAFT = "https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/"
_OF_QUOTED = r'(?:[ !#-\[\]-~]|\\["\\])'
# A comma joins two headers, and a semicolon starts a parameter of a structured header.
_OF_BARE = r"[!#-+\--:<-\[\]-~]"
_QUOTED, _BARE = re.compile(f'"({_OF_QUOTED}*)"', re.ASCII), re.compile(f"{_OF_BARE}+", re.ASCII)
_LENGTH = "{1," + str(LONGEST_KEY) + "}"
PATTERN = f'^(?:"{_OF_QUOTED}{_LENGTH}"|{_OF_BARE}{_LENGTH})$'  # for the document


@dataclass(frozen=True)
class KeyedRequest:
    """A request with a key: the key, and digests of its user and of the request."""

    key: str
    scope: str
    fingerprint: str

    @property
    def lock(self) -> int:
        """The number of the request's advisory lock on PostgreSQL."""
        digest = bytes.fromhex(_digest(self.scope.encode(), self.key.encode()))
        return int.from_bytes(digest[:8], "big", signed=True)


def read_key(scope: Iterable[str], headers: dict[str, str], *, required: bool) -> KeyedRequest | None:
    """Return the key of the request, or None if it has none. Call it before a form is parsed.

    `scope` identifies the user. `headers` are those that the view reads: a different value makes a different
    request. Raises `Problem` if the key is malformed, or missing although required.
    """
    given = request.headers.get(HEADER)
    if given is None:
        if required:
            raise _problem(400, "is missing", "Send an Idempotency-Key that is new for each operation.")
        return None
    parts = [request.method.encode(), request.path.encode(), request.query_string, request.get_data()]
    parts += [part.encode() for pair in sorted(headers.items()) for part in pair]
    return KeyedRequest(_parse(given), _digest(*(part.encode() for part in scope)), _digest(*parts))


def run_once(keyed: KeyedRequest | None, headers: Iterable[str], run: Callable[[], Response]) -> Response:
    """Run a view and store its response in one transaction, or return the stored response.

    Without a key, the view runs in the same way, but nothing is stored. Raises `Problem` if the key belongs
    to a different request, or to one that is still running.
    """
    with commit_together() as session:
        if keyed and (stored := _find(session, keyed)):
            return stored
        response = run()
        if response.status_code >= 400:
            refuse_commit()
            return response
        _refuse_unstorable(response)
        if keyed:
            _store(session, keyed, response, {*STORED_HEADERS, *headers})
        return response


def _find(session: Session, keyed: KeyedRequest) -> Response | None:
    """Return the stored response, or block other requests with this key until this one has finished."""
    # On SQLite a request has the database to itself from its first statement: a repeat waits, and then finds
    # the response. On PostgreSQL each repeat would wait at the unique constraint and hold a thread.
    is_postgresql = session.get_bind(IdempotencyKey).dialect.name == "postgresql"
    if is_postgresql and not session.scalar(select(func.pg_try_advisory_xact_lock(keyed.lock))):
        raise _running()
    key = IdempotencyKey
    row = session.scalar(select(key).where(key.scope == keyed.scope, key.key == keyed.key))
    if row is None:
        return None
    if row.fingerprint != keyed.fingerprint:
        raise _problem(422, "is already used", "Another request had this Idempotency-Key: send a new one.")
    headers = [(name, value) for name, value in row.headers]
    return Response(row.body, row.status, [*headers, (REPLAYED, "true")])


def _store(session: Session, keyed: KeyedRequest, response: Response, names: set[str]) -> None:
    stored = {name.lower() for name in names}
    session.flush()  # Otherwise a conflict of the view's rows would look like one of the key.
    answer: dict[str, Any] = {
        "status": response.status_code,
        "headers": [pair for pair in response.headers if pair[0].lower() in stored],
        "body": response.get_data(),
    }
    try:
        session.execute(insert(IdempotencyKey).values(**vars(keyed), **answer))
    except IntegrityError:
        # The view has rolled back in between, which released the lock.
        raise _running() from None


def _refuse_unstorable(response: Response) -> None:
    """Raise `RuntimeError`, even for requests without a key, so that a test without one finds it."""
    if not response.is_sequence or response.direct_passthrough:
        raise RuntimeError(f"{request.endpoint} answers with a stream, which can't be stored: {_REMOVE}")
    if (size := len(response.get_data())) > LONGEST_ANSWER:
        problem = f"{size} bytes, of which {LONGEST_ANSWER} can be stored"
        raise RuntimeError(f"{request.endpoint} answers with {problem}: answer with less, or {_REMOVE}")


_REMOVE = "remove operation(idempotent=…)"


def _parse(given: str) -> str:
    """Return the key from a structured header, or from a bare token, which most clients send."""
    if quoted := _QUOTED.fullmatch(given.strip(" \t")):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif _BARE.fullmatch(given.strip(" \t")):
        key = given.strip(" \t")
    else:
        raise _malformed('must be one string of printable ASCII in quotes, such as "8e03978e"')
    if not 1 <= len(key) <= LONGEST_KEY:
        raise _malformed(f"has {len(key)} characters, it must have 1 to {LONGEST_KEY}")
    return key


def _malformed(detail: str) -> Problem:
    return _problem(400, "is malformed", f"The Idempotency-Key {detail}.")


def _running() -> Problem:
    detail = "The first request with this Idempotency-Key still runs: send this one again later."
    return _problem(409, "belongs to a request that runs", detail, headers={"Retry-After": str(RETRY_AFTER)})


def _problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> Problem:
    return Problem(status, detail, headers=headers, type=DRAFT, title=f"Idempotency-Key {title}")


def _digest(*parts: bytes) -> str:
    state = hashlib.sha256()
    for part in parts:
        state.update(b"%d:" % len(part) + part)
    return state.hexdigest()
