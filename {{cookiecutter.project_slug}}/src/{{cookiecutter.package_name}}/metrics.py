"""Numbers for Prometheus, of all processes together, at an address of their own (METRICS_BIND).

Each process writes into files of a folder that the server's first process makes and that
PROMETHEUS_MULTIPROC_DIR names; whichever process is asked adds them up. The files are our own, mapped into
memory: those of prometheus_client cost a request three to ten times as much, are one more for each process
there has been, and end a process that cannot enlarge them. Numbers that are defined with that library are
told, too. Source: prometheus_client, "Multiprocess Mode".
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import logging
import math
import mmap
import os
import struct
import threading
import typing as t
import weakref
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from sqlalchemy import Engine, QueuePool

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

COUNTERS = {
    "uncommitted_work": "Requests that forgot to commit",
    "teardown_failures": "Clean-ups that failed",
}
PRESENT = {
    "http_requests_in_flight": "Requests that are being answered",
    "db_pool_size": "Connections that the pools keep",
    "db_pool_used": "Connections that are in use, or just being opened",
    "db_pool_waiting": "Threads that wait until a connection is given back",
}
# The first number of a process is that of its requests; each pool has three that follow one another.
IN_FLIGHT = 0
UNLIMITED = 2**62

# Of a request its method, route and status; of a counter its name.
Labels = tuple[str, ...]


class Metrics:
    """What is counted."""

    def __init__(self) -> None:
        self.folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self.present = Present(self.folder)
        self.totals = Totals(self.folder)
        self.lock = threading.Lock()
        self.is_begun = False
        _everywhere.add(self)

    def begin_request(self) -> None:
        """Note that a request has come."""
        self.add(IN_FLIGHT, 1)

    def end_request(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count a request that has ended."""
        self.lock.acquire()
        try:
            if not self.is_begun:
                self._begin()
            self.present.numbers[IN_FLIGHT] -= 1
            self.totals.observe((method, route, status), seconds)
        finally:
            self.lock.release()

    def add(self, place: int, amount: int) -> None:
        """Change a number of this moment."""
        # A request comes here three times: `with` would cost twice as much.
        self.lock.acquire()
        try:
            if not self.is_begun:
                self._begin()
            self.present.numbers[place] += amount
        finally:
            self.lock.release()

    def count(self, counter: str) -> None:
        """Add one to a counter, which COUNTERS names."""
        with self.lock:
            if not self.is_begun:
                self._begin()
            self.totals.count(counter)

    def _begin(self) -> None:
        """Count in files of this process: it is new, or the child of one that has files."""
        self.is_begun = True
        for numbers in (self.present, self.totals):
            try:
                if self.folder:
                    Path(self.folder).mkdir(exist_ok=True)  # Somebody may have cleaned up.
                numbers.begin()
            except OSError as error:
                # No request may fail because it cannot be counted.
                log.error("the numbers of this process are told only when it is asked itself: %s", error)

    def pool_class(self) -> type[QueuePool]:
        """Return a pool that says how many want a connection: those that have one, and those that wait."""
        want = self.add

        class MeasuredPool(QueuePool):
            __module__ = QueuePool.__module__  # Its logger is named after it.
            place: int

            # Each connection that is used comes here: super() would cost as much as the counting.
            def connect(self) -> t.Any:
                want(self.place, 1)
                return QueuePool.connect(self)

            def _do_get(self) -> t.Any:
                try:
                    return QueuePool._do_get(self)
                except BaseException as error:
                    # None has been had that could come back. The method calls itself, and counts once.
                    if not hasattr(error, "is_counted"):
                        error.is_counted = True  # type: ignore[attr-defined]
                        want(self.place, -1)
                    raise

            def _do_return_conn(self, record: t.Any) -> None:
                want(self.place, -1)
                QueuePool._do_return_conn(self, record)

            def recreate(self) -> QueuePool:
                other = super().recreate()
                other.place = self.place  # type: ignore[attr-defined]
                return other

        return MeasuredPool

    def watch(self, engine: Engine) -> None:
        """Note what the engine's pool may keep, and how many connections it may have at once."""
        pool = engine.pool
        if isinstance(pool, QueuePool):
            most = UNLIMITED if pool._max_overflow < 0 else pool.size() + pool._max_overflow
            pool.place = self.present.add_pool(pool.size(), most)  # type: ignore[attr-defined]

    def text(self) -> bytes:
        """Return the numbers of all processes in Prometheus' format."""
        others = REGISTRY
        if self.folder:
            others = CollectorRegistry()
            if Path(self.folder).is_dir():
                MultiProcessCollector(others, self.folder)  # type: ignore[no-untyped-call]
        return generate_latest(self.totals) + generate_latest(self.present) + generate_latest(others)


# A child must not count in its parent's files.
_everywhere: weakref.WeakSet[Metrics] = weakref.WeakSet()


def _leave_files() -> None:
    for metrics in _everywhere:
        metrics.is_begun, metrics.lock = False, threading.Lock()


os.register_at_fork(after_in_child=_leave_files)


class Present(Collector):
    """Numbers of this moment: each process writes its own, in a file that the others read."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder
        self.first = array("q", [0])
        self.numbers: array[int] | memoryview[int] = self.first

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Add up the numbers of every process that lives."""
        in_flight = kept = used = waiting = 0
        for numbers in self._of_each():
            in_flight += numbers[IN_FLIGHT]
            for size, most, wanted in zip(numbers[1::3], numbers[2::3], numbers[3::3], strict=True):
                kept += size
                used += min(wanted, most)
                waiting += max(wanted - most, 0)
        for (name, meaning), value in zip(PRESENT.items(), (in_flight, kept, used, waiting), strict=True):
            yield GaugeMetricFamily(name, meaning, value=value)

    def add_pool(self, size: int, most: int) -> int:
        """Make room for a pool that keeps so many connections and has so many at most; say where."""
        self.first.extend([size, most, 0])
        return len(self.first) - 1

    def begin(self) -> None:
        """Make the file of this process."""
        self.numbers = array("q", self.first)
        if self.folder:
            # Whoever adds up sees the whole file or none.
            new = Path(self.folder) / f"new_{os.getpid()}"
            new.write_bytes(self.numbers.tobytes())
            with new.open("r+b") as file:
                self.numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
            new.rename(new.with_name(f"present_{os.getpid()}"))

    def _of_each(self) -> Iterator[t.Sequence[int]]:
        if isinstance(self.numbers, array):  # In no file.
            yield self.numbers
        for file in Path(self.folder).glob("present_*") if self.folder else ():
            with contextlib.suppress(FileNotFoundError):  # Another process has removed it.
                if _lives(int(file.name.partition("_")[2])):
                    yield memoryview(file.read_bytes()).cast("q")
                else:
                    file.unlink()


class Totals(Collector):
    """What has been since the start: how long requests of each method, route and status took, and counters.

    A file is a row of records, one for each set of labels: how long its head is, the head (labels and bounds
    as JSON), and doubles: the sum of all seconds, and for each bound and for what is beyond them how many
    requests took so long. Of a counter only the first is used. A process locks its file for as long as it
    lives, and goes on where one that has ended left off: what was counted stays, and there are never more
    files than processes at once.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = folder
        self._forget()

    def _forget(self) -> None:
        self.file = -1
        self.end = 0
        self.places: dict[Labels, int] = {}
        self.known: dict[Labels, memoryview[float]] = {}
        # What is in no file.
        self.own: dict[Labels, memoryview[float]] = {}

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count a request."""
        numbers = self.known.get(labels) or self._add(labels)
        numbers[0] += seconds
        numbers[1 + bisect_left(SECONDS, seconds)] += 1

    def count(self, counter: str) -> None:
        """Add one to a counter."""
        numbers = self.known.get((counter,)) or self._add((counter,))
        numbers[0] += 1

    def collect(self) -> Iterator[Metric]:
        """Add up the counts of every process there has been."""
        sums: defaultdict[Labels, float] = defaultdict(float)
        buckets: defaultdict[Labels, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
        for record in self._of_all():
            sums[record.labels] += record.numbers[0]
            for bound, count in zip((*record.bounds, math.inf), record.numbers[1:], strict=True):
                buckets[record.labels][bound] += count
        # Its count is the number of requests: a counter beside it would say the same.
        family = HistogramMetricFamily(
            "http_request_duration_seconds",
            "Seconds until the last byte was handed over",
            labels=["method", "route", "status"],
        )
        for labels, counts in sorted(buckets.items()):
            if len(labels) > 1:
                bounds = sorted(counts)
                up_to = itertools.accumulate(counts[bound] for bound in bounds)
                names = [floatToGoString(bound) for bound in bounds]  # type: ignore[no-untyped-call]
                family.add_metric(labels, list(zip(names, up_to, strict=True)), sums[labels])
        yield family
        for name, meaning in COUNTERS.items():
            yield CounterMetricFamily(name, meaning, value=sums[name,])

    def begin(self) -> None:
        """Count in a file that no other process counts in."""
        self._forget()
        if self.folder:
            self.file = _open_unused(Path(self.folder))
            for record in _records(os.pread(self.file, os.fstat(self.file).st_size, 0)):
                self.end = record.place + record.numbers.nbytes
                if record.bounds == SECONDS:  # Otherwise it is of other code.
                    self.places[record.labels] = record.place
            self._map()

    def _add(self, labels: Labels) -> memoryview[float]:
        numbers = array("d", [0] * (1 + len(SECONDS) + 1))
        try:
            if self.file >= 0:
                self._write(labels, numbers)
        except OSError as error:
            log.error("%s is counted where nobody sees it: %s", " ".join(labels), error)
        if labels not in self.known:
            self.known[labels] = self.own.setdefault(labels, memoryview(numbers))
        return self.known[labels]

    def _write(self, labels: Labels, numbers: array[float]) -> None:
        head = json.dumps([labels, SECONDS]).encode()
        head += b" " * (-len(head) % 8)
        record = struct.pack("q", len(head)) + head + numbers.tobytes()
        os.ftruncate(self.file, self.end)  # A write that failed may have left a part.
        if os.write(self.file, record) < len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.places[labels] = self.end + 8 + len(head)
        self.end += len(record)
        self._map()

    def _map(self) -> None:
        if self.places:
            whole = memoryview(mmap.mmap(self.file, self.end))
            size = 8 * (1 + len(SECONDS) + 1)
            self.known = {labels: whole[at : at + size].cast("d") for labels, at in self.places.items()}

    def _of_all(self) -> Iterator[Record]:
        for labels, numbers in self.own.copy().items():
            yield Record(labels, SECONDS, 0, numbers)
        if self.folder:
            for file in Path(self.folder).glob("totals_*"):
                yield from _records(file.read_bytes())


class Record(t.NamedTuple):
    """What a file has for one set of labels, and at which byte its numbers are."""

    labels: Labels
    bounds: tuple[float, ...]
    place: int
    numbers: memoryview[float]


def _records(data: bytes) -> Iterator[Record]:
    """Read what a file holds; its last record may be a part of one, which is left out."""
    end = 0
    while end + 8 <= len(data):
        place = end + 8 + struct.unpack_from("q", data, end)[0]
        if place > len(data):
            return
        labels, bounds = json.loads(data[end + 8 : place])
        end = place + 8 * (1 + len(bounds) + 1)
        if end <= len(data):
            yield Record(tuple(labels), tuple(bounds), place, memoryview(data)[place:end].cast("d"))


def _open_unused(folder: Path) -> int:
    """Open and lock the first file that no living process has; it stays open until the process ends."""
    for number in itertools.count():
        file = os.open(folder / f"totals_{number}", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            return file
    raise AssertionError


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # As somebody else's.
    return True


class OwnPort:
    """Answer with the numbers whoever asks at the port of METRICS_BIND, and nobody else."""

    def __init__(self, wsgi_app: WSGIApplication, metrics: Metrics, port: str) -> None:
        self.wsgi_app, self.metrics, self.port = wsgi_app, metrics, port

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # The server knows at which of its sockets a request came; no header can say otherwise.
        if environ.get("SERVER_PORT") != self.port:
            return self.wsgi_app(environ, start_response)
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return [b""]
        text = self.metrics.text()
        start_response(
            "200 OK", [("Content-Type", CONTENT_TYPE_PLAIN_0_0_4), ("Content-Length", str(len(text)))]
        )
        return [text]
