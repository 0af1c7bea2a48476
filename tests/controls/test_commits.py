"""Lost commits of the naive service, and an unrequested one, without an error for any client."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from ..foundation.servers import Server, wait_until
from .conftest import Start, gunicorn


@pytest.fixture
def start(launch: Start, tmp_path: Path) -> Start:
    def start(options: str) -> Server:
        url = f"sqlite:///{tmp_path}/notes.db?timeout=0.5"
        server = launch(gunicorn(options, module="naive_commits"), DATABASE_URL=url)
        server.wait_until_ready()
        return server

    return start


def test_sqlite_loses_updates_that_were_acknowledged(start: Start) -> None:
    """SQLite loses updates that were acknowledged."""
    server = start("--workers 3 --preload")
    acknowledged = 0

    def is_one_lost() -> bool:
        nonlocal acknowledged
        with ThreadPoolExecutor(6) as clients:
            answers = list(clients.map(lambda _: server.send("POST", "/count"), range(60)))
        acknowledged += [answer.status for answer in answers].count(200)
        return int(server.get("/count").body) < acknowledged

    wait_until(is_one_lost, "an update is lost")


def test_sqlite_fails_requests_while_another_process_writes(start: Start, tmp_path: Path) -> None:
    """SQLite fails readers and writers with a 500 while another process writes."""
    server = start("--workers 1")

    with closing(sqlite3.connect(tmp_path / "notes.db")) as another:
        another.execute("BEGIN EXCLUSIVE")
        statuses = [server.send("POST", "/notes", b"one").status, server.get("/notes").status]

    assert statuses == [500, 500]
    assert server.log.count("sqlite3.OperationalError: database is locked") == 2


def test_with_wal_a_write_to_a_removed_file_is_lost(start: Start, tmp_path: Path) -> None:
    """With a write-ahead log, a write to a removed file is acknowledged and lost."""
    with closing(sqlite3.connect(tmp_path / "notes.db")) as file:
        file.execute("PRAGMA journal_mode=WAL")
    server = start("--workers 1")
    assert server.send("POST", "/notes", b"kept").status == 201

    (tmp_path / "notes.db").unlink()

    assert server.send("POST", "/notes", b"lost").status == 201
    assert not (tmp_path / "notes.db").exists()


def test_a_stream_loses_its_commit_and_is_answered_whole(start: Start) -> None:
    """A stream loses its commit, and its client gets all of it with a 200, without a traceback."""
    server = start("--workers 1")

    answer = server.send("POST", "/stream")

    assert (answer.status, answer.body) == (200, b"begun and committed")
    assert server.get("/notes").json["texts"] == []
    assert "Traceback" not in server.log


def test_a_leaked_session_is_committed_by_another_request(start: Start) -> None:
    """A session leaked by a failed clean-up is committed by another request."""
    server = start("--workers 1")
    assert server.send("POST", "/refuse").status == 500
    assert server.get("/leaked").body == b"1"

    def is_refused_row_stored() -> bool:
        server.send("POST", "/refuse")
        server.send("POST", "/notes", b"good")
        return "refused" in server.get("/notes").json["texts"]

    # Sessions are stored under their context's address: sooner or later a request gets the same one.
    wait_until(is_refused_row_stored, "a row that was refused is stored")
