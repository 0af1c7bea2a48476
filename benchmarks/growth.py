"""Milliseconds of a page of 20 rows as the table grows: by key in ours, by OFFSET with a count in bare."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from .project import Bench, cells

SIZES = (1_000, 100_000, 1_000_000)


def table(bench: Bench) -> Iterator[list[str]]:
    """Return the rows of the table, its head first."""
    yield ["rows", "by key, first page", "by key, middle", "by OFFSET, first page", "by OFFSET, middle"]
    for rows in SIZES:
        yield [f"{rows:,}", *cells(row, bench, rows)]


def row(bench: Bench, rows: int) -> list[str]:
    """Return the milliseconds of each page of so many rows."""
    bench.fill(rows)
    bare, *_, ours = bench.contestants()
    cursor = base64.urlsafe_b64encode(f"a[{rows // 2}]".encode()).decode()
    key = ["/notes?limit=20", f"/notes?limit=20&cursor={cursor}"]
    offset = ["/pages", f"/pages?page={rows // 40}"]
    milliseconds = bench.measure(ours, "pages", pages=key, count=15)
    milliseconds += bench.measure(bare, "pages", pages=offset, count=15)
    return [f"{value:.1f}" for value in milliseconds]
