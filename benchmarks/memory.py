"""Private memory of a gunicorn worker that has served requests, after a collection (Linux)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from .load import saturate
from .project import Bench, Contestant, NotMeasured, cells
from .servers import serve

WORKERS = 4
SECONDS = 1.5  # of each kind of request
QUESTIONS = 400  # at most, until each worker has collected


def table(bench: Bench) -> Iterator[list[str]]:
    """Return the rows of the table, its head first."""
    yield ["", "private MiB of one more worker", "requests per worker"]
    for contestant in bench.contestants():
        yield [contestant.name, *cells(row, bench, contestant)]


def row(bench: Bench, contestant: Contestant) -> list[str]:
    """Measure the workers of a contestant."""
    with serve(bench, contestant, workers=WORKERS, wrapper="collecting") as service:
        service.wait_for_first_200()
        kinds = ("read", "list", "insert")
        sent = sum(saturate(bench, contestant, service.port, kind, SECONDS).ok for kind in kinds)
        workers: set[int] = set()
        for _ in range(QUESTIONS):
            workers.add(int(service.get("/collect").body))
            if len(workers) == WORKERS:
                break
        else:
            raise NotMeasured(f"{len(workers)} of {WORKERS} workers have answered")
        return [f"{statistics.median(map(private, workers)):.1f}", f"{sent // WORKERS}"]


def private(process: int) -> float:
    """Return the MiB that a process shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
