"""Round trips to PostgreSQL, and statements that it parses repeatedly."""

from __future__ import annotations

from collections.abc import Iterator

from .project import Bench, Contestant, cells

MIXED = 40  # requests, of which a quarter inserts


def table(bench: Bench) -> Iterator[list[str]]:
    """Return the rows of the table, its head first."""
    yield ["round trips per request", "read", "list", "insert", "mixed 3:1", "parsed per mixed request"]
    for contestant in bench.contestants():
        yield [contestant.name, *cells(row, bench, contestant)]


def row(bench: Bench, contestant: Contestant) -> list[str]:
    """Count the round trips of each kind of request."""
    for kind in ("read", "list", "insert"):
        contestant.path(kind)
    return [f"{count:.2f}" for count in bench.measure(contestant, "roundtrips", count=MIXED)]
