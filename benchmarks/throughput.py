"""Requests per second and processor time per request, in interleaved blocks A B C C B A."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from .load import saturate
from .project import Bench, NotMeasured
from .servers import Service, serve

KINDS = ("read", "list", "insert")
BLOCK = 1.5  # seconds


@dataclass
class Blocks:
    """The measurements of a contestant, one for each block."""

    service: Service
    per_second: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # microseconds for each request
    failed: int = 0


def table(bench: Bench) -> Iterator[list[str]]:
    """Return the rows of the table, its head first."""
    ratios = [f"{kind}, {what} ÷ bare" for kind in KINDS for what in ("requests/s", "CPU")]
    yield ["", *ratios, "read, requests/s", "read, CPU µs", "failed"]
    for server in bench.servers or ["gthread"]:
        yield from rows(bench, server)


def rows(bench: Bench, server: str) -> Iterator[list[str]]:
    """Return a row for each contestant on a server; the control is bare a second time."""
    bare, *others = bench.contestants()
    with ExitStack() as stack:
        up: dict[str, Service] = {}
        for name, contestant in [("bare", bare), ("bare again", bare), *((c.name, c) for c in others)]:
            try:
                service = stack.enter_context(serve(bench, contestant, server))
                service.wait_for_first_200()
                for kind in KINDS:
                    contestant.path(kind)
                up[name] = service
            except (NotMeasured, OSError) as reason:
                yield [f"{name}, {server}", f"not measured: {reason}"]
        if "bare" in up:
            measured = {kind: measure(bench, up, kind) for kind in KINDS}
            for name in up:
                yield [f"{name}, {server}", *row(measured, name)]


def measure(bench: Bench, up: dict[str, Service], kind: str) -> dict[str, Blocks]:
    """Measure all contestants in turn, with requests of a kind."""
    bench.fill()
    blocks = {name: Blocks(service) for name, service in up.items()}
    for name in up:
        measure_block(bench, Blocks(up[name]), kind)  # Each worker fills its caches.
    for number in range(bench.rounds):
        for name in up if number % 2 == 0 else reversed(up):
            measure_block(bench, blocks[name], kind)
    return blocks


def measure_block(bench: Bench, blocks: Blocks, kind: str) -> None:
    """Add a block of one contestant."""
    service = blocks.service
    before = service.cpu()
    results = saturate(bench, service.contestant, service.port, kind, BLOCK)
    blocks.per_second.append(results.ok / BLOCK)
    blocks.cpu.append((service.cpu() - before) / max(results.ok, 1) * 1e6)
    blocks.failed += results.failed + results.refused


def row(measured: dict[str, dict[str, Blocks]], name: str) -> list[str]:
    """Return the cells of a contestant: medians of the ratios to bare in the same round."""
    found = []
    for blocks in measured.values():
        mine, bare = blocks[name], blocks["bare"]
        for ours, theirs in ((mine.per_second, bare.per_second), (mine.cpu, bare.cpu)):
            ratios = [a / b for a, b in zip(ours, theirs, strict=True) if b]
            found.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    read = measured["read"][name]
    numbers = [statistics.median(read.per_second), statistics.median(read.cpu)]
    return [
        *found,
        *(f"{number:.0f}" for number in numbers),
        str(sum(b[name].failed for b in measured.values())),
    ]
