"""Twice the load that a service can handle: how many requests and probes are answered in time."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from statistics import mean

from .load import GIVE_UP, Results, results_of, saturate, start_load, two_cores
from .project import Bench, Contestant, cells
from .servers import SERVERS, Service, pinned, serve

PEAK = 3.0  # seconds in which the peak is measured, before and after
RECOVERED = 0.25  # seconds of an answer after an overload
LONGEST = 60.0  # seconds until a recovery is given up


def table(bench: Bench) -> Iterator[list[str]]:
    """Return the rows of the table, its head first. The control is the naive stack under gthread."""
    yield [
        f"twice the peak for {bench.seconds:g} s",
        "peak/s, before and after",
        "200s within 1 s ÷ peak",
        "refused ÷ sent",
        "given up ÷ sent",
        "failed",
        "livez under 1 s",
        "p50 / p99 of 200s, s",
        "recovery, s",
    ]
    _, naive, *_, ours = contestants = bench.contestants()
    runs = [(naive, "gthread")]
    runs += [
        (contestant, server)
        for server in bench.servers or SERVERS
        for contestant in (*contestants[2:-1], ours)
    ]
    for contestant, server in runs:
        found = cells(row, bench, contestant, server)
        yield [f"{contestant.name}, {server}", *found]


def row(bench: Bench, contestant: Contestant, server: str) -> list[str]:
    """Overload a contestant on a server, each of server and client on one core."""
    server_core, client_core = two_cores() or (None, None)
    with serve(bench, contestant, server, core=server_core) as service, pinned(client_core):
        service.wait_for_first_200()
        saturate(bench, contestant, service.port, "read", 1)
        before = saturate(bench, contestant, service.port, "read", PEAK).ok / PEAK
        client = start_load(bench, contestant, service.port, "read", bench.seconds, 2 * before)
        try:
            time.sleep(bench.seconds)
            recovery = wait_for_recovery(service)
            results = results_of(client)
        finally:
            client.kill()
        after = saturate(bench, contestant, service.port, "read", PEAK).ok / PEAK
    return row_of(results, before, after, bench.seconds, recovery)


def row_of(results: Results, before: float, after: float, seconds: float, recovery: float) -> list[str]:
    """Return the cells of a run."""
    answerable = mean([before, after]) * seconds
    sent = max(1, results.ok + results.refused + results.given_up + results.failed)
    return [
        f"{before:.0f} {after:.0f}",
        f"{results.in_time / answerable:.2f}",
        f"{results.refused / sent:.2f}",
        f"{results.given_up / sent:.2f}",
        f"{results.failed}",
        f"{results.probes_in_time}/{results.probes}",
        f"{results.p50:.2f} / {results.p99:.2f}",
        f"{recovery:.1f}" if recovery < LONGEST else f"more than {LONGEST:g}",
    ]


def wait_for_recovery(service: Service) -> float:
    """Return the seconds until a request is answered as fast as before."""
    path = service.contestant.path("read").format(id=1)
    service.patience = GIVE_UP
    begun = time.monotonic()
    while (asked := time.monotonic()) - begun < LONGEST:
        try:
            if service.get(path).status == 200 and time.monotonic() - asked < RECOVERED:
                return asked - begun
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    return LONGEST
