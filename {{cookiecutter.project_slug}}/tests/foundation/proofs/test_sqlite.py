"""SQLite with several processes loses no update, and no client sees "database is locked".

By default the driver begins a transaction too late: two requests read the same row, both write, and one
update is lost without an error. If it begins in time, a transaction that reads before it writes is rejected
immediately. A write to a removed file is acknowledged and lost.
"""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from ..databases import SQLite
from ..fixtures import SECRET
from ..servers import FLASK, KINDS, PYWSGI, Answer, Kind, Project, Server, scaled, serving, wait_until
from .conftest import Start

CLIENTS = 8


@pytest.fixture(scope="module", params=KINDS, ids=str)
def server(
    request: pytest.FixtureRequest, sqlite: SQLite, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Ways to serve, in turn, each on its own file."""
    project = Project(tmp_path_factory.mktemp("project"))
    settings = {"DATABASE_URL": sqlite.sampled(), "SECRET_KEY": SECRET, "WEB_CONCURRENCY": "3"}
    with serving(project, request.param, settings) as server:
        yield server


def test_concurrent_writers_all_succeed(server: Server) -> None:
    """Concurrent writers all succeed, and each sample is stored once."""
    texts = [f"one of many: {number}" for number in range(CLIENTS * scaled(10))]

    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda text: server.post("/samples", {"text": text}), texts))

    assert {answer.status for answer in answers} == {201}, server.log
    assert sorted(
        ask(server, "SELECT text FROM foundation_samples WHERE text LIKE 'one of many%'")
    ) == sorted(texts)


def test_every_change_that_was_acknowledged_counts_once(server: Server) -> None:
    """Every acknowledged change counts exactly once."""
    path = server.post("/samples", {"text": "0"}).headers["Location"]

    with ThreadPoolExecutor(CLIENTS) as clients:
        for done in [clients.submit(add_one, server, path) for _ in range(CLIENTS * scaled(2))]:
            done.result()

    sample = server.get(path).json
    assert (sample["text"], sample["version"]) == (str(CLIENTS * scaled(2)), CLIENTS * scaled(2) + 1)


def add_one(server: Server, path: str) -> None:
    """Increment the number in a sample, and retry if another client was faster."""
    while True:
        sample = server.get(path)
        answer = server.patch(path, {"text": str(int(sample.json["text"]) + 1)}, sample.headers["ETag"])
        if answer.status == 200:
            return
        assert answer.status == 412, (answer, server.log)


def test_a_lock_of_another_process_costs_only_writers_a_503(server: Server) -> None:
    """A lock that another process holds costs writers a 503, and readers and probes nothing."""
    assert server.post("/samples", {"text": "before"}).status == 201

    with ThreadPoolExecutor() as clients, closing(sqlite3.connect(file_of(server))) as another:
        another.execute("BEGIN EXCLUSIVE")
        # The write is refused after SQLite has waited as long as the engine allows; the lock is held until
        # then.
        refused = clients.submit(server.post, "/samples", {"text": "refused"})
        reads = [server.get(path).status for path in ("/samples", "/readyz", "/livez")]
        assert_to_be_tried_again(refused.result(), server)

    assert reads == [200, 200, 200], server.log
    assert server.post("/samples", {"text": "after"}).status == 201
    kept = ask(
        server, "SELECT text FROM foundation_samples WHERE text IN ('before', 'refused', 'after') ORDER BY id"
    )
    assert kept == ["before", "after"]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits processes that run")
def test_a_full_disk_costs_writers_a_503_and_no_stored_data(
    kind: Kind, launch: Start, sqlite: SQLite
) -> None:
    """On a full disk only writers get a 503, and no stored data is damaged."""
    # A database with short files, so that writes need space.
    server = launch(kind, DATABASE_URL=sqlite.sampled(), SECRET_KEY=SECRET)
    server.wait_until_ready()
    texts = [str(number).ljust(9000) for number in range(40)]
    # A worker that is being forked would escape the limit.
    count = 1 if kind in {PYWSGI, FLASK} else 2
    wait_until(lambda: len(server.processes()) == count, "every worker is there")

    # As on a full disk, the kernel refuses to extend any file beyond this.
    limit_files(server, 256 * 1024)
    answers = [server.post("/samples", {"text": text}) for text in texts]
    reads = [server.get(path).status for path in ("/samples", "/readyz", "/livez")]
    limit_files(server, resource.RLIM_INFINITY)

    kept = [text for text, answer in zip(texts, answers, strict=True) if answer.status == 201]
    assert texts[-1] not in kept
    for answer in answers:
        if answer.status != 201:
            assert_to_be_tried_again(answer, server)
    assert reads == [200, 200, 200], server.log
    assert server.post("/samples", {"text": "there is room again"}).status == 201
    assert ask(server, "SELECT text FROM foundation_samples") == [*kept, "there is room again"]
    assert ask(server, "PRAGMA integrity_check") == ["ok"]


def limit_files(server: Server, size: int) -> None:
    """Prevent every process of the server from extending a file beyond so many bytes."""
    for process in server.processes():
        _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (size, hard))


def test_nothing_is_written_to_a_file_that_was_removed(server: Server) -> None:
    """A write to a removed file gets a 503 instead of a 201, and the service uses the restored file."""
    for _ in range(CLIENTS):
        assert server.post("/samples", {"text": "kept"}).status == 201
    file, backup = file_of(server), file_of(server).with_suffix(".backup")
    ask(server, f"VACUUM INTO '{backup}'")
    for path in (file, *file.parent.glob(f"{file.name}-*")):
        path.unlink()

    for _ in range(CLIENTS):
        assert_to_be_tried_again(server.post("/samples", {"text": "lost"}), server)
    assert_to_be_tried_again(server.get("/samples"), server)
    assert server.get("/livez").status == 200
    assert server.get("/readyz").json["missing"] == ["database"]

    backup.rename(file)
    wait_until(lambda: server.get("/readyz").status == 200, "the service finds the file")
    for _ in range(CLIENTS):
        assert server.post("/samples", {"text": "kept"}).status == 201
    assert set(ask(server, "SELECT count(*) FROM foundation_samples WHERE text = 'kept'")) == {2 * CLIENTS}
    assert not ask(server, "SELECT text FROM foundation_samples WHERE text = 'lost'")


def file_of(server: Server) -> Path:
    """Return the file of the server's database."""
    return Path(make_url(server.environment["DATABASE_URL"]).database or "")


def ask(server: Server, statement: str) -> list[Any]:
    """Return the first column of the rows that another process reads."""
    with closing(sqlite3.connect(file_of(server))) as connection:
        return [row[0] for row in connection.execute(statement)]


def assert_to_be_tried_again(answer: Answer, server: Server) -> None:
    """Check for a 503 with Retry-After that does not reveal the cause."""
    assert answer.status == 503, (answer, server.log)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"]
    assert b"locked" not in answer.body
