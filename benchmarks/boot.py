"""Time from the gunicorn command to the first 200, with four workers, in interleaved rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from .project import Bench, Contestant, NotMeasured
from .servers import serve


def table(bench: Bench) -> Iterator[list[str]]:
    """Return the rows of the table, its head first."""
    yield ["4 workers", "first 200 ÷ bare", "seconds", "CPU seconds"]
    contestants = bench.contestants()
    rows = {contestant.name: (contestant, False) for contestant in contestants}
    rows["ours, as shipped"] = contestants[-1], True
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    reasons: dict[str, str] = {}
    for number in range(1 + 2 * bench.rounds):
        for name in list(rows) if number % 2 else reversed(rows):
            if name not in reasons:
                try:
                    found[name].append(start(bench, *rows[name]))
                except (NotMeasured, OSError) as reason:
                    reasons[name] = f"not measured: {reason}"
    for name, times in found.items():
        yield [name, *([reasons[name]] if name in reasons else row(times, found["bare"]))]


def start(bench: Bench, contestant: Contestant, shipped: bool) -> tuple[float, float]:
    """Return the seconds until the first 200, and the processor time in seconds."""
    begun = time.monotonic()
    with serve(bench, contestant, workers=4, shipped=shipped) as service:
        return service.wait_for_first_200() - begun, service.cpu()


def row(times: list[tuple[float, float]], bare: list[tuple[float, float]]) -> list[str]:
    """Return the cells of a contestant; its first round is ignored, because it compiles."""
    ratios = [mine[0] / theirs[0] for mine, theirs in zip(times[1:], bare[1:], strict=False)]
    seconds, cpu = (statistics.median(column) for column in zip(*times[1:], strict=True))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return [f"{statistics.median(ratios):.2f} ({spread})", f"{seconds:.2f}", f"{cpu:.2f}"]
