"""Prometheus metrics, aggregated over all worker processes and served at METRICS_BIND."""

import logging
import os
import threading
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import Engine, QueuePool, event
from werkzeug import Response

from ..edge.context import uwsgi_connection
from . import metric_files

log = logging.getLogger(__name__)

DURATION = Histogram(
    "http_request_duration_seconds",
    "Seconds from the request to the last byte of the response",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
QUEUE = Histogram(
    "http_request_queue_seconds",
    "Seconds from the last bytes of a request to the start of its processing, without probes",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
IN_FLIGHT = Gauge("http_requests_in_flight", "Requests in flight", multiprocess_mode="livesum")
POOL_SIZE = Gauge("db_pool_size", "Connections the pools keep", multiprocess_mode="livesum")
POOL_USED = Gauge("db_pool_used", "Connections in use", multiprocess_mode="livesum")
COUNTERS = {
    "uncommitted_work": Counter("uncommitted_work", "Requests that did not commit what they wrote"),
    "refused_requests": Counter("refused_requests", "Requests refused because they had waited too long"),
    "teardown_failures": Counter("teardown_failures", "Teardown functions that failed"),
}

_counting = threading.Lock()


class Metrics:
    """The service's own metrics."""

    def __init__(self) -> None:
        self.pool_size = 0
        self.process = 0
        self.is_problem_logged = False

    def begin_request(self) -> None:
        """Count a request as in flight."""
        with _counting:
            if self.process != os.getpid():
                self.process = os.getpid()
                POOL_SIZE.set(self.pool_size)
            IN_FLIGHT.inc()
        if metric_files.problem and not self.is_problem_logged:
            self.is_problem_logged = True
            log.error("the metrics are incomplete: %s", metric_files.problem)

    def end_request(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count a finished request."""
        with _counting:
            IN_FLIGHT.dec()
            DURATION.labels(method, route, status).observe(seconds)

    def observe_wait(self, seconds: float) -> None:
        """Record a request's waiting time."""
        with _counting:
            QUEUE.observe(seconds)

    def count(self, counter: str) -> None:
        """Increment a counter of COUNTERS."""
        with _counting:
            COUNTERS[counter].inc()

    def watch(self, engine: Engine) -> None:
        """Count the open connections of the engine's pool, and those in use."""
        self.pool_size += engine.pool.size() if isinstance(engine.pool, QueuePool) else 0
        event.listen(engine, "checkout", _take_connection)
        event.listen(engine, "checkin", _return_connection)
        event.listen(engine, "detach", _return_connection)


def _take_connection(connection: object, record: Any, proxy: object) -> None:
    # Another listener may make the pool reopen the connection, which repeats this event.
    if record.record_info.get("counted_in") != os.getpid():
        record.record_info["counted_in"] = os.getpid()
        with _counting:
            POOL_USED.inc()


def _return_connection(connection: object, record: Any) -> None:
    # A failed connection was never counted, nor was a parent's connection in this process.
    if record.record_info.pop("counted_in", None) == os.getpid():
        with _counting:
            POOL_USED.dec()


def _start_child() -> None:
    metric_files.leave_slot()
    _counting.release()


# A child forked while another thread counts would wait forever for that thread's locks.
os.register_at_fork(before=_counting.acquire, after_in_parent=_counting.release, after_in_child=_start_child)


class OwnPort:
    """Serve only /metrics at the port of METRICS_BIND."""

    def __init__(self, wsgi_app: WSGIApplication, port: str) -> None:
        self.wsgi_app, self.port = wsgi_app, port

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # At a unix socket gunicorn takes the port from the Host header; behind uwsgi_pass it is nginx's.
        if environ.get("SERVER_PORT") != self.port or not _is_at(environ, int(self.port)):
            return self.wsgi_app(environ, start_response)
        if environ["PATH_INFO"] != "/metrics":
            return Response(status=404)(environ, start_response)
        return Response(metric_files.text(), content_type=CONTENT_TYPE_PLAIN_0_0_4)(environ, start_response)


def _is_at(environ: WSGIEnvironment, port: int) -> bool:
    if "uwsgi.version" in environ:
        with uwsgi_connection() as connection:
            return bool(connection.getsockname()[1] == port)
    # gevent has one server per address; the address of a unix socket is not a tuple.
    return "gunicorn.socket" not in environ or environ["gunicorn.socket"].getsockname()[1:2] == (port,)
