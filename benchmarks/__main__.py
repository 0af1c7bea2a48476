"""Generate the default project, measure it, and print tables in Markdown: `python -m benchmarks TABLE...`."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from .project import Bench, NotMeasured, database, generate, scratch_folder
from .servers import SERVERS

TABLES = ("instructions", "roundtrips", "throughput", "memory", "boot", "overload", "growth")


def main() -> None:
    """Print the named tables, or all."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument(
        "--servers", nargs="+", default=[], choices=SERVERS, help="of throughput and overload"
    )
    parser.add_argument("--processes", type=int, default=3, help="of instructions")
    parser.add_argument("--rounds", type=int, default=4, help="of throughput and boot")
    parser.add_argument("--seconds", type=float, default=20, help="that an overload lasts")
    given = parser.parse_args()
    if unknown := set(given.tables) - set(TABLES):
        parser.error(f"there is no table {', '.join(sorted(unknown))}")
    peers = os.environ.get("BENCH_PEERS")
    # The default would kill this process without its clean-ups.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with scratch_folder() as folder:
        project = generate(folder)
        try:
            with database(project) as url:
                bench = Bench(
                    project,
                    folder,
                    url,
                    Path(peers).resolve() if peers else None,
                    processes=given.processes,
                    rounds=given.rounds,
                    seconds=given.seconds,
                    servers=tuple(given.servers),
                )
                for name in given.tables or TABLES:
                    print_table(name, bench)
        except NotMeasured as reason:
            sys.exit(f"benchmarks: {reason}")


def print_table(name: str, bench: Bench) -> None:
    """Print a table row by row, with the load average before and after."""
    begun, load = time.monotonic(), os.getloadavg()[0]
    sys.stdout.write(f"\n## {name}\n\n")
    bench.fill()
    rows: Iterable[list[str]] = importlib.import_module(f".{name}", __package__).table(bench)
    for number, row in enumerate(rows):
        sys.stdout.write(f"| {' | '.join(row)} |\n")
        if not number:
            sys.stdout.write(f"|---|{'--:|' * (len(row) - 1)}\n")
        sys.stdout.flush()
    took = time.monotonic() - begun
    sys.stdout.write(
        f"\n{took:.0f} seconds; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after.\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
