"""Thousand instructions for each request, without a server and without garbage collection."""

from __future__ import annotations

from collections.abc import Iterator

from .callgrind import count_instructions
from .project import Bench, Contestant, cells

KINDS = ("read", "list", "404 route", "404 row", "livez", "insert")


def table(bench: Bench) -> Iterator[list[str]]:
    """Return the rows of the table, its head first."""
    yield ["thousand instructions per request", *KINDS]
    for contestant in bench.contestants():
        yield [contestant.name, *cells(row, bench, contestant)]


def row(bench: Bench, contestant: Contestant) -> list[str]:
    """Count the instructions of each kind of request."""
    for kind in ("read", "list", "livez", "insert"):
        contestant.path(kind)
    command = bench.command(contestant, "instructions", kinds=KINDS, count=bench.requests)
    environment = bench.environment(contestant)
    counted = count_instructions(command, bench.requests, cwd=bench.project, env=environment)
    return [f"{thousands:.0f}" for thousands in counted]
