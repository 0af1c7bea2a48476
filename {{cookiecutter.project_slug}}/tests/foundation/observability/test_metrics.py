"""Every request is counted once, in any process and thread, and counts outlive their process."""

from __future__ import annotations

import importlib
import logging
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DisconnectionError, OperationalError

from ..databases import PROJECT
from ..processes import wait_until
from ..servers import Project

PACKAGE = "{{cookiecutter.package_name}}"
ROOM = f"{PACKAGE}.foundation.observability"
SAMPLES = ("GET", "/samples", "200")
COUNT = 'http_request_duration_seconds_count{method="GET",route="/samples",status="200"}'
BUCKET = 'http_request_duration_seconds_bucket{le="%s",method="GET",route="/samples",status="200"}'
IN_FLIGHT = "http_requests_in_flight"


def test_alerts_and_dashboard_use_the_metrics_that_exist() -> None:
    """The alerts and the dashboard use only existing metrics, and together all of them."""
    module = importlib.import_module(f"{ROOM}.metrics")
    metrics = [module.DURATION, module.QUEUE, module.IN_FLIGHT, module.POOL_SIZE, module.POOL_USED]
    metrics += module.COUNTERS.values()
    families = [family for metric in metrics for family in metric.describe()]
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    names = {each.name: {f"{each.name}{suffix}" for suffix in suffixes[each.type]} for each in families}

    text = "".join(path.read_text() for path in (PROJECT / "deploy" / "prometheus").iterdir())
    used = set(re.findall(r"([a-z_]+)\{job=", text))

    assert used <= set().union(*names.values())
    assert [name for name, exported in names.items() if not used & exported] == []


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder for the counts of several processes; without it, a process counts in memory."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    return tmp_path / "metrics"


def loaded() -> list[str]:
    """Return the names of the loaded modules that keep metrics."""
    ours = (f"{ROOM}.metrics", f"{ROOM}.metric_files")
    return [name for name in sys.modules if name in ours or name.partition(".")[0] == "prometheus_client"]


@pytest.fixture
def metrics(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The metrics of a process that has counted nothing: the modules are reloaded, as in a new process."""
    if "folder" in request.fixturenames:
        request.getfixturevalue("folder")
    others = {name: sys.modules.pop(name) for name in loaded()}
    package = vars(importlib.import_module(ROOM))
    package.pop("metric_files", None)  # It would be found there.
    yield importlib.import_module(f"{ROOM}.metrics").Metrics()
    for name in loaded():
        del sys.modules[name]
    sys.modules.update(others)
    package.pop("metric_files")


def text() -> bytes:
    """Return the response to a scrape."""
    files: Any = sys.modules[f"{ROOM}.metric_files"]
    return bytes(files.text())


def parsed(metrics: Any) -> dict[str, float]:
    """Return every value by its name and labels."""
    lines = text().decode().splitlines()
    return {
        name: float(value) for name, value in (li.rsplit(" ", 1) for li in lines if not li.startswith("#"))
    }


def answer(metrics: Any, seconds: float = 0.001) -> None:
    """Count a request."""
    metrics.begin_request()
    metrics.end_request(*SAMPLES, seconds)


def fork(work: Callable[[], None]) -> int:
    """Run something in a child, which exits with 1 if that fails."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def in_child(work: Callable[[], None]) -> None:
    """Run something in a child, and wait until it has exited."""
    assert os.waitpid(fork(work), 0)[1] == 0


def test_a_request_is_in_each_bucket_it_fits_in(folder: Path, metrics: Any) -> None:
    """Buckets are cumulative, and include their upper bound."""
    for seconds in (0.005, 0.006, 3.0, 100.0):
        answer(metrics, seconds)

    found = parsed(metrics)

    assert [found[BUCKET % bound] for bound in ("0.005", "0.01", "2.5", "5.0", "+Inf")] == [1, 2, 2, 3, 4]
    assert found[COUNT.replace("_count", "_sum")] == pytest.approx(103.011)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that switch in the middle of a line."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_counts_of_threads_add_up(metrics: Any) -> None:
    """No count of a thread is lost, in memory."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: answer(metrics), range(2000)))

    assert (parsed(metrics)[COUNT], parsed(metrics)[IN_FLIGHT]) == (2000, 0)


@pytest.mark.usefixtures("hasty_threads")
def test_counts_of_threads_add_up_in_files(folder: Path, metrics: Any) -> None:
    """No count of a thread is lost, in a file."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: answer(metrics), range(2000)))

    assert (parsed(metrics)[COUNT], parsed(metrics)[IN_FLIGHT]) == (2000, 0)


def test_a_child_has_its_own_slot_and_leaves_its_counts(folder: Path, metrics: Any) -> None:
    """A child never counts in its parent's files; its counts outlive it, but its gauges do not."""
    answer(metrics)
    metrics.begin_request()

    def work() -> None:
        answer(metrics)
        metrics.begin_request()
        assert parsed(metrics)[IN_FLIGHT] == 2

    in_child(work)

    assert parsed(metrics)[COUNT] == 2
    assert parsed(metrics)[IN_FLIGHT] == 1, "a request of the ended child is in flight"
    assert {file.name for file in folder.glob("counter_*")} == {"counter_0.db", "counter_1.db"}


def test_a_child_that_ran_no_fork_hook_has_its_own_slot(folder: Path, metrics: Any) -> None:
    """A server that forks in C may run no Python hooks: only the process id identifies a child."""
    files: Any = sys.modules[f"{ROOM}.metric_files"]
    parents = copy(files._slot)
    parents.file = os.dup(parents.file)

    def work() -> None:
        files._slot = parents  # As the hook found it.
        answer(metrics)

    in_child(work)

    assert parsed(metrics)[COUNT] == 1
    assert (folder / "histogram_1.db").exists()


def test_a_process_continues_in_the_files_of_an_ended_one(folder: Path, metrics: Any) -> None:
    """There are never more sets of files than concurrent processes."""
    for _ in range(5):
        in_child(lambda: answer(metrics))

    assert parsed(metrics)[COUNT] == 5
    assert {file.name for file in folder.glob("counter_*")} == {"counter_0.db", "counter_1.db"}


def test_a_process_does_not_continue_the_gauges_of_another(folder: Path, metrics: Any) -> None:
    """A process that takes a slot starts with gauges of 0, even if no scrape has removed the old ones."""
    in_child(metrics.begin_request)

    def work() -> None:
        metrics.begin_request()
        assert parsed(metrics)[IN_FLIGHT] == 1

    in_child(work)


def test_a_counter_continues_after_the_end_of_a_process(folder: Path, metrics: Any) -> None:
    """A counter starts at 0, and includes those of exited processes."""
    assert parsed(metrics)["teardown_failures_total"] == 0

    for _ in range(3):
        in_child(lambda: metrics.count("teardown_failures"))
    metrics.count("teardown_failures")

    assert parsed(metrics)["teardown_failures_total"] == 4
    assert parsed(metrics)["uncommitted_work_total"] == 0


def test_a_child_keeps_no_slot_of_an_ended_parent(folder: Path, metrics: Any) -> None:
    """A child that counts nothing does not keep its parent's gauges."""
    (reads, writes), (waits, ends) = os.pipe(), os.pipe()

    def parent() -> None:
        metrics.begin_request()
        os.write(writes, fork(lambda: child()).to_bytes(8, "big"))
        os.kill(os.getpid(), signal.SIGKILL)

    def child() -> None:
        os.close(ends)
        os.read(waits, 1)

    os.waitpid(fork(parent), 0)
    grandchild = int.from_bytes(os.read(reads, 8), "big")
    os.kill(grandchild, 0)

    wait_until(lambda: parsed(metrics)[IN_FLIGHT] == 0, "the child has left the slot")
    os.close(ends)


def test_a_removed_folder_is_made_again(folder: Path, metrics: Any) -> None:
    """A process whose slot was removed serves without counting, and does not touch the next one's files."""
    shutil.rmtree(folder)

    answer(metrics)

    assert COUNT not in parsed(metrics)
    in_child(lambda: answer(metrics))
    answer(metrics)
    assert parsed(metrics)[COUNT] == 1


def test_an_unusable_folder_fails_no_request_and_is_logged_once(
    tmp_path: Path, folder: Path, metrics: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A file instead of the folder fails no request, and is logged once."""
    shutil.rmtree(folder)
    folder.touch()

    def work() -> None:
        for _ in range(3):
            answer(metrics)
        metrics.count("teardown_failures")
        text()
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert "File exists" in record.getMessage()

    in_child(work)


@pytest.mark.parametrize("room", [0, 8, 70_000])
def test_a_full_disk_fails_no_request_and_loses_no_count(folder: Path, metrics: Any, room: int) -> None:
    """The disk has space for no file of a new process, for part of one, or for part of the labels."""

    def work() -> None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
        for number in range(50):
            metrics.begin_request()
            metrics.end_request("GET", f"/{number}", "200", 0.001)
            metrics.count("teardown_failures")
        assert len(parsed(metrics)) < 50 * 14
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        for number in range(50):
            metrics.begin_request()
            metrics.end_request("GET", f"/{number}", "200", 0.001)
            metrics.count("teardown_failures")
        found = parsed(metrics)
        assert {found[COUNT.replace("samples", str(number))] for number in range(50)} == {2}
        assert (found[IN_FLIGHT], found["teardown_failures_total"]) == (0, 100)

    in_child(work)


def test_a_full_disk_fails_no_request_that_defines_a_metric(folder: Path, metrics: Any) -> None:
    """A feature's own metric cannot fail a request either."""
    asked = sys.modules["prometheus_client"].Counter("asked", "Questions", ["by"])

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        asked.labels("a client").inc()

    in_child(work)


def test_files_have_all_their_blocks(folder: Path, metrics: Any) -> None:
    """Files are fully allocated: on a full disk, a sparse page would kill the process with SIGBUS."""
    sizes = set()
    for number in range(60):
        metrics.end_request("GET", f"/{number}", "200", 0.001)
        sizes.add((folder / "histogram_0.db").stat().st_size)

    found = [file.stat() for file in folder.glob("*.db")]

    assert len(sizes) > 1, "the file has never grown"
    assert all(file.st_blocks * 512 >= file.st_size for file in found)


def test_an_incomplete_record_does_not_harm_others(folder: Path, metrics: Any) -> None:
    """The partial record of a killed process does not affect others."""
    in_child(lambda: answer(metrics))
    file = folder / "histogram_1.db"
    content = file.read_bytes()
    used = int.from_bytes(content[:4], sys.byteorder)
    file.write_bytes(content[:used] + content[8:68] + content[used + 60 :])

    def work() -> None:
        metrics.end_request("POST", "/samples", "201", 0.001)
        answer(metrics)

    in_child(work)

    found = parsed(metrics)
    assert found[COUNT] == 2
    assert found[COUNT.replace("GET", "POST").replace("200", "201")] == 1


@pytest.mark.usefixtures("hasty_threads")
def test_a_child_counts_though_a_thread_counted_at_the_fork(folder: Path, metrics: Any) -> None:
    """A child can count, even if another thread held the lock during the fork."""
    over = Event()

    def count() -> None:
        number = 0
        while not over.is_set():
            metrics.end_request("GET", f"/{(number := number + 1) % 50}", "200", 0.001)

    thread = Thread(target=count)
    thread.start()
    children = [fork(lambda: answer(metrics)) for _ in range(50)]
    over.set()
    thread.join()
    try:
        wait_until(lambda: parsed(metrics).get(COUNT) == 50, "every child has counted")
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_without_metrics_the_library_is_not_imported(database_url: str, tmp_path: Path) -> None:
    """A service without metrics does not import the library."""
    code = f"import sys, {PACKAGE}.wsgi; sys.exit('prometheus_client' in sys.modules)"
    given = {"DATABASE_URL": database_url, "SECRET_KEY": "a key for tests that is long enough"}
    source = Project(tmp_path / "project").folder / "src"

    for bind, loaded in (("", 0), ("127.0.0.1:9100", 1)):
        environment = os.environ | given | ({"METRICS_BIND": bind} if bind else {})
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=source, env=environment, check=False)
        assert done.returncode == loaded


def pool(metrics: Any) -> tuple[float, float]:
    """Return the numbers of open and used connections of the pools after a request."""
    answer(metrics)
    found = parsed(metrics)
    return found["db_pool_size"], found["db_pool_used"]


def engine_of(metrics: Any, **options: Any) -> Engine:
    """Return an engine whose connections are counted."""
    engine = create_engine("sqlite://", poolclass=QueuePool, **options)
    metrics.watch(engine)
    return engine


def test_only_connections_in_use_are_counted(metrics: Any) -> None:
    """A connection that failed to open, was invalidated or left its pool is no longer counted."""
    is_away = False

    def connect() -> sqlite3.Connection:
        if is_away:
            raise sqlite3.OperationalError("the database is away")
        return sqlite3.connect(":memory:")

    engine = engine_of(metrics, creator=connect, pool_size=2)
    with engine.connect() as connection:
        used = pool(metrics)
        connection.invalidate()
    with engine.connect() as connection:
        connection.detach()
        assert pool(metrics) == (2, 0)
    is_away = True
    for _ in range(3):  # The pooled connection, and those that it would open.
        with pytest.raises(OperationalError, match="is away"):
            engine.connect()

    assert used == (2, 1)
    assert pool(metrics) == (2, 0)


def test_a_connection_that_is_opened_again_is_counted_once(metrics: Any) -> None:
    """A connection that the pool reopens, after a listener found it dead, is counted once."""
    engine = engine_of(metrics, pool_size=1)
    dead = [False, True]

    @event.listens_for(engine, "checkout")
    def find_dead(*_: object) -> None:
        if dead.pop():
            raise DisconnectionError("found dead")

    with engine.connect():
        assert pool(metrics) == (1, 1)
    assert pool(metrics) == (1, 0)


def test_a_child_counts_no_connection_of_its_parent(folder: Path, metrics: Any) -> None:
    """A child that drops a connection used by its parent does not count it as returned."""
    engine = engine_of(metrics, pool_size=1)

    def work() -> None:
        connection.close()
        assert pool(metrics)[1] == 1, "it is still the parent's"

    with engine.connect() as connection:
        in_child(work)


def test_the_pool_size_is_that_of_every_process(folder: Path, metrics: Any) -> None:
    """A serving process adds its pools' connections, and removes them at its end."""
    engine_of(metrics, pool_size=1)
    engine_of(metrics, pool_size=2)
    assert pool(metrics)[0] == 3

    def work() -> None:
        assert pool(metrics)[0] == 6

    in_child(work)

    assert pool(metrics)[0] == 3


def test_a_pool_counts_on_after_a_dispose(metrics: Any) -> None:
    """The pool that replaces a disposed one is counted, too."""
    engine = engine_of(metrics, pool_size=1, max_overflow=0)

    with engine.connect():
        engine.dispose()
        with engine.connect():
            assert pool(metrics) == (1, 2)

    assert pool(metrics) == (1, 0)


@pytest.mark.usefixtures("hasty_threads")
def test_connections_that_threads_compete_for_add_up(metrics: Any) -> None:
    """No connection stays counted after many threads have used the pool."""
    engine = engine_of(metrics, pool_size=1, max_overflow=1, pool_timeout=45)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: engine.connect().close(), range(400)))

    assert pool(metrics) == (1, 0)
