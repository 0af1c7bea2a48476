"""Threads, which a fork does not copy, and locks and random generators, which it does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ..foundation.servers import Kind, wait_until
from .conftest import Start, gunicorn, uwsgi

GUNICORN = gunicorn("--workers 3 --preload --threads 2", module="naive_threads")
UWSGI = uwsgi("--processes 3 --enable-threads", module="naive_threads")


@pytest.mark.parametrize("kind", [GUNICORN, UWSGI], ids=str)
def test_a_thread_started_before_the_fork_runs_in_no_worker(kind: Kind, launch: Start) -> None:
    """A thread started before the fork runs in no worker."""
    server = launch(kind)
    server.wait_until_ready()

    with ThreadPoolExecutor(8) as pool:
        ticks = list(pool.map(lambda _: server.get("/ticks").body, range(100)))

    assert len(set(ticks)) <= 3, "one for each worker, as it was when that was forked"


def test_a_lock_of_the_log_held_at_the_fork_hangs_uwsgi(launch: Start) -> None:
    """A lock of the log that is held at the fork hangs a request under uWSGI."""
    server = launch(UWSGI)
    server.wait_until_ready()
    server.patience = 2.0  # It is never answered.

    with pytest.raises(TimeoutError):
        server.get("/log")


def test_workers_draw_the_same_random_numbers(launch: Start) -> None:
    """Workers draw the same random numbers."""
    server = launch(GUNICORN)
    server.wait_until_ready()
    numbers: dict[str, float] = {}

    def has_each_answered() -> bool:
        with ThreadPoolExecutor(8) as pool:
            for answer in pool.map(lambda _: server.get("/number"), range(30)):
                numbers.update(answer.json)
        return len(numbers) == 3

    wait_until(has_each_answered, "each worker draws one")

    assert len(set(numbers.values())) == 1
