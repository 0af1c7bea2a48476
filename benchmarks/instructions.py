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
    # A few bytes more in the environment move what Python's caches depend on, and the count by up to 2 %.
    counted = [
        count_instructions(command, REQUESTS, cwd=bench.project, env=environment | {"PADDING": "x" * size})
        for size in range(0, 1000 * bench.processes, 1000)
    ]
    return [f"{statistics.median(processes):.0f}" for processes in zip(*counted, strict=True)]
