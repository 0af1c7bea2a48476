"""Thousand instructions for each request, without a server and without garbage collection."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from .callgrind import count_instructions
from .project import Bench, Contestant, cells

KINDS = ("read", "list", "404 route", "404 row", "livez", "insert")
REQUESTS = 20  # in each part


def table(bench: Bench) -> Iterator[list[str]]:
    """Return the rows of the table, its head first."""
    yield ["thousand instructions per request", *KINDS]
    for contestant in bench.contestants():
        yield [contestant.name, *cells(row, bench, contestant)]


def row(bench: Bench, contestant: Contestant) -> list[str]:
    """Count the instructions of each kind of request."""
    for kind in ("read", "list", "livez", "insert"):
        contestant.path(kind)
    command = bench.command(contestant, "instructions", kinds=KINDS, count=REQUESTS)
    environment = bench.environment(contestant)
    # Python's caches depend on addresses, which moves the whole of a process by up to 2 %.
    seeds = [{"PYTHONHASHSEED": str(seed)} for seed in range(bench.processes)]
    counted = [
        count_instructions(command, REQUESTS, cwd=bench.project, env=environment | seed) for seed in seeds
    ]
    return [f"{statistics.median(processes):.0f}" for processes in zip(*counted, strict=True)]
