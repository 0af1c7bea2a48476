"""A thread started before the fork blocks no request, and workers draw different random numbers.

A fork does not copy threads, so their work stops. But it copies the locks that they hold, so the next thread
to acquire one hangs, and it copies the state of random number generators.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ..servers import WITH_WORKERS, Kind, Project, wait_until
from .conftest import Start


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_fork_leaves_no_lock_held_and_no_random_numbers_shared(
    kind: Kind, start: Start, project: Project
) -> None:
    """A thread from before the fork hangs no request, and workers draw different random numbers."""
    project.provoke("early_thread")
    # Another thread could get the freed identity of the lock's owner, and with it the lock.
    server = start(kind, WEB_THREADS="1", WEB_CONCURRENCY="2")

    assert server.get("/log").status == 200
    warned = "Thread-1 (write) was started while the service was loaded, and runs in no worker" in server.log
    assert warned is (kind.needs == "gunicorn" and "gevent" not in kind.name)

    draws: list[dict[str, float]] = []

    def have_both_drawn() -> bool:
        with ThreadPoolExecutor(8) as pool:
            draws.extend(pool.map(lambda _: server.get("/draw").json, range(20)))
        return len({draw["worker"] for draw in draws}) == 2

    wait_until(have_both_drawn, "both workers draw")
    assert len({draw["number"] for draw in draws}) == len(draws), "workers draw the same numbers"
