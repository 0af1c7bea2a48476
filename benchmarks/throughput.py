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

    per_second: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # microseconds for each request
    failed: int = 0


def table(bench: Bench) -> Iterator[list[str]]:
    """Return the rows of the table, its head first."""
    yield ["", "requests/s ÷ bare", "requests/s", "CPU ÷ bare", "CPU µs", "failed"]
    for server in bench.servers or ["gthread"]:
        yield from rows(bench, server)


def rows(bench: Bench, server: str) -> Iterator[list[str]]:
    """Return a row for each contestant and kind of request; the control is bare a second time."""
    bare, *others = bench.contestants()
    with ExitStack() as stack:
        up: dict[str, Service] = {}
        for name, contestant in [("bare", bare), ("bare again", bare), *((c.name, c) for c in others)]:
            try:
                up[name] = stack.enter_context(serve(bench, contestant, server))
                up[name].wait_for_first_200()
            except (NotMeasured, OSError) as reason:
                up.pop(name, None)
                yield [f"{server}: {name}", f"not measured: {reason}"]
        for kind in KINDS if "bare" in up else ():
            able = {name: service for name, service in up.items() if kind in service.contestant.paths}
            blocks = measure(bench, able, kind)
            for name in able:
                yield [f"{server}, {kind}: {name}", *row(blocks[name], blocks["bare"])]
            for name in up.keys() - able.keys():
                yield [f"{server}, {kind}: {name}", f"not measured: declares no path to {kind}"]


def measure(bench: Bench, up: dict[str, Service], kind: str) -> dict[str, Blocks]:
    """Measure all contestants in turn, with requests of a kind."""
    bench.fill()
    for service in up.values():
        add_block(Blocks(), bench, service, kind)  # Each worker fills its caches.
    blocks = {name: Blocks() for name in up}
    for number in range(bench.rounds):
        for name in up if number % 2 == 0 else reversed(up):
            add_block(blocks[name], bench, up[name], kind)
    return blocks


def add_block(blocks: Blocks, bench: Bench, service: Service, kind: str) -> None:
    """Measure one block."""
    before = service.cpu()
    results = saturate(bench, service.contestant, service.port, kind, BLOCK)
    blocks.per_second.append(results.ok / BLOCK)
    blocks.cpu.append((service.cpu() - before) / max(results.ok, 1) * 1e6)
    blocks.failed += results.failed + results.given_up + results.refused


def row(blocks: Blocks, bare: Blocks) -> list[str]:
    """Return the cells of a contestant: medians, and the ratios to bare in the same round."""
    found = []
    for mine, theirs in ((blocks.per_second, bare.per_second), (blocks.cpu, bare.cpu)):
        ratios = [a / b for a, b in zip(mine, theirs, strict=True) if b] or [float("nan")]
        found.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        found.append(f"{statistics.median(mine):.0f}")
    return [*found, str(blocks.failed)]
