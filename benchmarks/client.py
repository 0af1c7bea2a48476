"""The load of load.c where no C compiler is: the same arguments, the same JSON."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any


class Client:
    """Requests, each on its own connection, and their results."""

    def __init__(self, port: int, give_up: float) -> None:
        self.port, self.give_up = port, give_up
        self.counts: Counter[str] = Counter()
        self.answers: list[float] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a request and wait for nothing."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def exchange(self, request: str) -> tuple[str, float]:
        """Send a request, and return the status and the seconds."""
        begun = time.monotonic()
        text = request.replace("{id}", str(random.randint(1, 1000)))  # noqa: S311
        try:
            async with asyncio.timeout(self.give_up):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(text.encode())
                    status = (await reader.read())[9:12].decode()
                finally:
                    writer.close()
        except TimeoutError:
            status = "given_up"
        except OSError:
            status = "failed"
        return status, time.monotonic() - begun

    async def request(self, request: str) -> None:
        """Send a request and count its result."""
        status, took = await self.exchange(request)
        if status.startswith("2"):
            self.answers.append(took)
        else:
            self.counts["refused" if status == "503" else status if status == "given_up" else "failed"] += 1

    async def probe(self, request: str) -> None:
        """Send a probe and count its result."""
        status, took = await self.exchange(request)
        self.counts["probes"] += 1
        self.counts["probes_in_time"] += status == "200" and took < 1


async def load(arguments: list[str]) -> dict[str, float]:
    """Send requests for some seconds, and return the results."""
    seconds, rate, connections, give_up, probes = map(float, arguments[1:6])
    client = Client(int(arguments[0]), give_up)
    begun = last = next_probe = time.monotonic()
    due = 0.0
    while (now := time.monotonic()) - begun < seconds:
        due += (now - last) * rate if rate else connections - len(client.tasks) - due
        last = now
        while due >= 1:
            due -= 1
            client.begin(client.request(arguments[6]))
        while probes and now >= next_probe:
            next_probe += 1 / probes
            client.begin(client.probe(arguments[7]))
        await asyncio.sleep(0.002 if rate else 0)
    if rate and client.tasks:
        await asyncio.wait(client.tasks)
    for task in client.tasks:
        task.cancel()
    answers = sorted(client.answers) or [0.0]
    names = ("refused", "given_up", "failed", "probes", "probes_in_time")
    return {name: client.counts[name] for name in names} | {
        "ok": len(client.answers),
        "in_time": sum(took < 1 for took in client.answers),
        "p50": answers[len(answers) // 2],
        "p99": answers[len(answers) * 99 // 100],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(load(sys.argv[1:]))) + "\n")
