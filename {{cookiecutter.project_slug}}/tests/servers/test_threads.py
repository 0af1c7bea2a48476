"""A thread started before the fork keeps no request waiting, and workers draw different random numbers.

A fork copies no thread: what one was to do, nobody does. But it copies the locks that the thread held, and
who asks for one waits for ever; and it copies what random numbers are made of.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import Start
from .harness import WITH_WORKERS, Kind, Project, wait_until


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_thread_from_before_the_fork_keeps_nobody_waiting_and_no_worker_draws_anothers_numbers(
    kind: Kind, start: Start, project: Project
) -> None:
    project.provoke("early_thread")
    # A further thread may be taken for the one that has the lock: what told them apart, the fork has freed.
    server = start(kind, WEB_THREADS="1", WEB_CONCURRENCY="2")

    assert server.get("/log").status == 200
    warned = "Thread-1 (write) was started while the service was loaded, and runs in no worker" in server.log
    assert warned is (kind.name in {"gunicorn-gthread", "gunicorn-sync"})

    draws: list[dict[str, float]] = []

    def have_both_drawn() -> bool:
        with ThreadPoolExecutor(8) as pool:
            draws.extend(pool.map(lambda _: server.get("/draw").json, range(20)))
        return len({draw["worker"] for draw in draws}) == 2

    wait_until(have_both_drawn, "both workers draw")
    assert len({draw["number"] for draw in draws}) == len(draws), "workers draw the same numbers"
