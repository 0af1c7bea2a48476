"""What is counted is counted once, whoever counts, and stays when a process ends."""

from __future__ import annotations

import os
import resource
import sqlite3
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from {{cookiecutter.package_name}}.metrics import Metrics

from .servers.harness import wait_until

NOTES = ("GET", "/notes", "200")
COUNT = 'http_request_duration_seconds_count{method="GET",route="/notes",status="200"}'
BUCKET = 'http_request_duration_seconds_bucket{le="%s",method="GET",route="/notes",status="200"}'
IN_FLIGHT = "http_requests_in_flight"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that several processes count in."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def numbers(metrics: Metrics) -> dict[str, float]:
    """Return every number by its name and labels."""
    lines = metrics.text().decode().splitlines()
    return {
        name: float(value) for name, value in (li.rsplit(" ", 1) for li in lines if not li.startswith("#"))
    }


def answer(metrics: Metrics, seconds: float = 0.001) -> None:
    """Count a request."""
    metrics.begin_request()
    metrics.end_request(*NOTES, seconds)


def in_child(work: Callable[[], None]) -> None:
    """Do something in a child, and wait for its end."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_request_is_in_each_bucket_that_it_fits_in(folder: Path) -> None:
    metrics = Metrics()
    for seconds in (0.005, 0.006, 3.0, 100.0):
        answer(metrics, seconds)

    found = numbers(metrics)

    assert [found[BUCKET % bound] for bound in ("0.005", "0.01", "2.5", "5.0", "+Inf")] == [1, 2, 2, 3, 4]
    assert found[COUNT.replace("_count", "_sum")] == pytest.approx(103.011)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that take turns in the middle of a line."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_what_threads_count_adds_up() -> None:
    metrics = Metrics()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: answer(metrics), range(2000)))

    assert (numbers(metrics)[COUNT], numbers(metrics)[IN_FLIGHT]) == (2000, 0)


def test_a_child_counts_for_itself_and_leaves_what_it_has_counted(folder: Path) -> None:
    metrics = Metrics()
    answer(metrics)
    metrics.begin_request()

    def work() -> None:
        answer(metrics)
        metrics.begin_request()
        assert numbers(metrics)[IN_FLIGHT] == 2

    in_child(work)

    assert numbers(metrics)[COUNT] == 2
    assert len(list(folder.glob("totals_*"))) == 2, "both count in one file, at the same time"
    assert numbers(metrics)[IN_FLIGHT] == 1, "a request of the child that has ended is in flight"


def test_a_process_goes_on_in_the_file_of_one_that_has_ended(folder: Path) -> None:
    metrics = Metrics()
    for _ in range(5):
        in_child(lambda: answer(metrics))

    assert numbers(metrics)[COUNT] == 5
    assert len(list(folder.glob("totals_*"))) == 1


def test_a_counter_goes_on_where_a_process_that_has_ended_left_off(folder: Path) -> None:
    metrics = Metrics()
    assert numbers(metrics)["teardown_failures_total"] == 0

    for _ in range(3):
        in_child(lambda: metrics.count("teardown_failures"))
    metrics.count("teardown_failures")

    assert numbers(metrics)["teardown_failures_total"] == 4
    assert numbers(metrics)["uncommitted_work_total"] == 0


def test_a_folder_that_somebody_has_removed_is_made_anew(folder: Path) -> None:
    metrics = Metrics()
    folder.rmdir()

    answer(metrics)

    assert numbers(metrics)[COUNT] == 1
    in_child(lambda: answer(metrics))
    assert numbers(metrics)[COUNT] == 2


def test_a_request_is_answered_where_nothing_can_be_written(folder: Path) -> None:
    metrics = Metrics()
    folder.rmdir()
    folder.touch()

    answer(metrics)
    metrics.begin_request()

    assert (numbers(metrics)[COUNT], numbers(metrics)[IN_FLIGHT]) == (1, 1)


@pytest.mark.parametrize("room", [0, 8, 300])
def test_a_full_disk_fails_no_request_and_loses_no_count(folder: Path, room: int) -> None:
    metrics = Metrics()

    def post() -> None:
        metrics.begin_request()
        metrics.end_request("POST", "/notes", "201", 0.001)

    def work() -> None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        for _ in range(2):
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
            answer(metrics)
            post()
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            post()
            answer(metrics)
            metrics.count("teardown_failures")
        found = numbers(metrics)
        assert found[COUNT] == found[COUNT.replace("GET", "POST").replace("200", "201")] == 4

    in_child(work)


def test_a_record_that_was_cut_short_harms_no_other(folder: Path) -> None:
    in_child(lambda: answer(Metrics()))
    (file,) = folder.glob("totals_*")
    with file.open("ab") as end:
        end.write(file.read_bytes()[:60])

    metrics = Metrics()
    assert numbers(metrics)[COUNT] == 1
    metrics.end_request("POST", "/notes", "201", 0.001)
    answer(metrics)

    found = numbers(Metrics())
    assert found[COUNT] == 2
    assert found[COUNT.replace("GET", "POST").replace("200", "201")] == 1


def pool(metrics: Metrics) -> dict[str, float]:
    """Return the numbers of the pools."""
    found = numbers(metrics)
    return {name: found[f"db_pool_{name}"] for name in ("size", "used", "waiting")}


def engine_of(metrics: Metrics, **options: Any) -> Engine:
    """Return an engine whose pool is measured."""
    engine = create_engine("sqlite://", poolclass=metrics.pool_class(), **options)
    metrics.watch(engine)
    return engine


def test_only_connections_that_are_in_use_count_as_used() -> None:
    metrics = Metrics()
    is_away = False

    def connect() -> sqlite3.Connection:
        if is_away:
            raise sqlite3.OperationalError("the database is away")
        return sqlite3.connect(":memory:")

    engine = engine_of(metrics, creator=connect, pool_size=2)
    with engine.connect() as connection:
        used = pool(metrics)
        connection.invalidate()
    is_away = True
    for _ in range(3):  # The connection that the pool keeps, and those that it would open.
        with pytest.raises(OperationalError, match="is away"):
            engine.connect()

    assert used == {"size": 2, "used": 1, "waiting": 0}
    assert pool(metrics) == {"size": 2, "used": 0, "waiting": 0}


def test_who_waits_for_a_connection_is_counted_until_it_has_one_or_gives_up() -> None:
    metrics = Metrics()
    engine_of(metrics, pool_size=5)  # Another pool, which has connections enough.
    engine = engine_of(metrics, pool_size=1, max_overflow=1, pool_timeout=45)
    hasty = engine_of(metrics, pool_size=1, max_overflow=0, pool_timeout=0.01)

    with ThreadPoolExecutor() as threads, hasty.connect():
        with engine.connect(), engine.connect():
            waiting = threads.submit(lambda: engine.connect().close())
            wait_until(lambda: pool(metrics)["waiting"] == 1, "a thread waits")
            used = pool(metrics)["used"]
            with pytest.raises(PoolTimeoutError):
                hasty.connect()
        waiting.result()
        left = pool(metrics)

    assert used == 3
    assert left == {"size": 7, "used": 1, "waiting": 0}
    assert pool(metrics) == {"size": 7, "used": 0, "waiting": 0}


def test_a_pool_counts_on_after_its_connections_were_disposed_of() -> None:
    metrics = Metrics()
    engine = engine_of(metrics, pool_size=1, max_overflow=0)
    other = engine_of(metrics, pool_size=1, max_overflow=0)

    other.dispose()

    with engine.connect(), other.connect():
        assert pool(metrics) == {"size": 2, "used": 2, "waiting": 0}


def test_who_is_beaten_to_the_last_connection_and_gives_up_has_waited_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = Metrics()
    engine = engine_of(metrics, pool_size=1, max_overflow=0, pool_timeout=0.01)
    full: Any = engine.pool

    def lose() -> bool:
        full._overflow = full._max_overflow
        return False

    monkeypatch.setattr(full, "_inc_overflow", lose)

    with pytest.raises(PoolTimeoutError):
        engine.connect()

    assert numbers(metrics)["db_pool_used"] == 0


@pytest.mark.usefixtures("hasty_threads")
def test_connections_that_threads_fight_for_add_up() -> None:
    metrics = Metrics()
    engine = engine_of(metrics, pool_size=1, max_overflow=1, pool_timeout=45)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: engine.connect().close(), range(400)))

    assert pool(metrics) == {"size": 1, "used": 0, "waiting": 0}
