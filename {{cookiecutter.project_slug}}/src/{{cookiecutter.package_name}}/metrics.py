"""Numbers for Prometheus, of all processes together, at an address of their own (METRICS_BIND).

Each process writes into files of a folder that the server's first process makes and that
PROMETHEUS_MULTIPROC_DIR names; whichever process is asked adds them up. Source: prometheus_client,
"Multiprocess Mode". What is true only of this moment has a file of its own for each process: the
library's gauges would cost ten times as much, and those of processes that have ended would stay.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import typing as t
from array import array
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import Engine, QueuePool, event

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

PRESENT = {
    "http_requests_in_flight": "Requests that are being answered",
    "db_pool_size": "Connections that the pools keep",
    "db_pool_used": "Connections that are in use",
    "db_pool_waiting": "Threads that wait for a connection",
}
IN_FLIGHT, POOL_SIZE, POOL_USED, POOL_WAITING = range(len(PRESENT))


class Metrics:
    """What is counted."""

    def __init__(self) -> None:
        self.folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self.registry = CollectorRegistry()
        named: t.Any = {"registry": self.registry}
        # Its count is the number of requests: a counter beside it would say the same.
        self.durations = Histogram(
            "http_request_duration_seconds",
            "Seconds until the last byte was handed over",
            ["method", "route", "status"],
            buckets=SECONDS,
            **named,
        )
        self.uncommitted = Counter("uncommitted_work_total", "Requests that forgot to commit", **named)
        self.teardown_failures = Counter("teardown_failures_total", "Clean-ups that failed", **named)
        self.present = Present(self.folder)
        self._children: dict[tuple[str, str, str], Histogram] = {}

    def begin_request(self) -> None:
        """Note that a request has come."""
        self.present.add(IN_FLIGHT, 1)

    def end_request(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count a request that has ended. To look up its labels costs more than to count."""
        self.present.add(IN_FLIGHT, -1)
        key = method, route, status
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self.durations.labels(*key)
        child.observe(seconds)

    def pool_class(self) -> type[QueuePool]:
        """Return a pool that says how many wait for a connection, and how many are in use."""
        present = self.present

        class MeasuredPool(QueuePool):
            __module__ = QueuePool.__module__  # Its logger is named after it.

            def connect(self) -> t.Any:
                present.add(POOL_WAITING, 1)
                try:
                    connection = super().connect()
                finally:
                    present.add(POOL_WAITING, -1)
                present.add(POOL_USED, 1)
                return connection

        return MeasuredPool

    def watch(self, engine: Engine) -> None:
        """Note what the engine's pool may keep, and when a connection goes back to it."""
        if isinstance(engine.pool, QueuePool):
            self.present.first[POOL_SIZE] += engine.pool.size()
            event.listen(engine, "checkin", lambda *_: self.present.add(POOL_USED, -1))

    def text(self) -> bytes:
        """Return the numbers of all processes in Prometheus' format."""
        registry = self.registry
        if self.folder:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self.folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry) + generate_latest(self.present)


class Present(Collector):
    """Numbers of this moment: each process writes its own, in a file that the others read."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder
        self.first = [0] * len(PRESENT)
        self.lock = threading.Lock()
        self.process = 0

    def add(self, number: int, amount: int) -> None:
        """Change one of this process's numbers."""
        with self.lock:
            if self.process != os.getpid():
                self._begin()
            self.numbers[number] += amount

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Add up the numbers of every process that lives."""
        found = list(self._of_each())
        for number, (name, meaning) in enumerate(PRESENT.items()):
            yield GaugeMetricFamily(name, meaning, value=sum(numbers[number] for numbers in found))

    def _begin(self) -> None:
        numbers = array("q", self.first)
        if self.folder:
            # Whoever adds up sees the whole file or none.
            new = Path(self.folder) / f"new_{os.getpid()}"
            new.write_bytes(numbers.tobytes())
            with new.open("r+b") as file:
                self.numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
            new.rename(new.with_name(f"present_{os.getpid()}"))
        else:
            self.numbers = memoryview(numbers)
        self.process = os.getpid()

    def _of_each(self) -> Iterable[t.Sequence[int]]:
        if not self.folder:
            yield self.numbers if self.process else self.first
            return
        for file in Path(self.folder).glob("present_*"):
            with contextlib.suppress(FileNotFoundError):  # Another process has removed it.
                if _lives(int(file.name.partition("_")[2])):
                    yield memoryview(file.read_bytes()).cast("q")
                else:
                    file.unlink()


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
