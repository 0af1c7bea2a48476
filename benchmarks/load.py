"""Load on a service: from a client in C if there is a compiler, otherwise in Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .project import Bench, Contestant, NotMeasured

SOURCE = Path(__file__).with_name("load.c")
IN_PYTHON = Path(__file__).with_name("client.py")
CONNECTIONS = 16  # of a closed loop: more than there are threads
GIVE_UP = 5  # seconds
PROBES = 5  # a second, of /livez beside an open loop


@dataclass(frozen=True)
class Results:
    """Requests by their result, and the seconds of those that were answered with a 2xx."""

    ok: int
    in_time: int  # within a second
    refused: int  # with a 503
    given_up: int
    failed: int
    p50: float
    p99: float
    probes: int
    probes_in_time: int


def client_command(bench: Bench) -> list[str | Path]:
    """Return the program of the client, which is compiled once."""
    program = bench.scratch / "load"
    compiler = shutil.which("cc")
    if not compiler:
        return [sys.executable, IN_PYTHON]
    if not program.exists():
        subprocess.run([compiler, "-O2", "-o", program, SOURCE], check=True, capture_output=True)
    return [program]


def start_load(
    bench: Bench, contestant: Contestant, port: int, kind: str, seconds: float, rate: float = 0
) -> subprocess.Popen[str]:
    """Start a client that sends so many requests per second, or without a rate as many as are answered."""
    probes = PROBES if rate else 0
    numbers = [port, seconds, rate, CONNECTIONS, GIVE_UP, probes]
    body = contestant.body if kind == "insert" else ""
    requests = [request_text(contestant, kind, body), request_text(contestant, "livez") if probes else ""]
    command = [*client_command(bench), *map(str, numbers), *requests]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def results_of(client: subprocess.Popen[str]) -> Results:
    """Wait for the end of a client and return its results."""
    with client:
        output, _ = client.communicate()
    if client.returncode:
        raise NotMeasured(f"the client has ended with {client.returncode}")
    return Results(**json.loads(output))


def saturate(bench: Bench, contestant: Contestant, port: int, kind: str, seconds: float) -> Results:
    """Send as many requests as are answered, for some seconds."""
    return results_of(start_load(bench, contestant, port, kind, seconds))


def request_text(contestant: Contestant, kind: str, body: str = "") -> str:
    """Return a request as it is sent."""
    lines = [
        f"{'POST' if body else 'GET'} {contestant.path(kind)} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: close",
    ]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
    return "\r\n".join([*lines, "", body])


def two_cores() -> tuple[int, int] | None:
    """Return a core for the server and one for the client, if there are two."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else None
