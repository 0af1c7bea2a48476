"""A substitute for load.c without a C compiler: the same arguments, the same JSON."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter


async def exchange(port: int, request: str, give_up: float) -> str:
    """Send a request on its own connection, and return the status or the reason why there is none."""
    try:
        async with asyncio.timeout(give_up):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request.replace("{id}", str(random.randint(1, 1000))).encode())  # noqa: S311
                return (await reader.read())[9:12].decode()
            finally:
                writer.close()
    except TimeoutError:
        return "given_up"
    except OSError:
        return "failed"


async def load(arguments: list[str]) -> dict[str, float]:
    """Send requests for some seconds, and return the results."""
    seconds, rate, connections, give_up, probes = map(float, arguments[1:6])
    counts: Counter[str] = Counter()
    answers: list[float] = []

    async def send(request: str, is_probe: bool) -> None:
        begun = time.monotonic()
        status = await exchange(int(arguments[0]), request, give_up)
        took, is_ok = time.monotonic() - begun, status.startswith("2")
        if is_probe:
            counts.update(probes=1, probes_in_time=is_ok and took < 1)
        elif is_ok:
            answers.append(took)
        else:
            counts["refused" if status == "503" else status if status == "given_up" else "failed"] += 1

    begun = last = next_probe = time.monotonic()
    due = 0.0
    async with asyncio.TaskGroup() as group:
        tasks: set[asyncio.Task[None]] = set()
        while (now := time.monotonic()) - begun < seconds:
            tasks = {task for task in tasks if not task.done()}
            due = due + (now - last) * rate if rate else connections - len(tasks)
            last = now
            tasks |= {group.create_task(send(arguments[6], False)) for _ in range(int(due))}
            due -= int(due)
            while probes and now >= next_probe:
                next_probe += 1 / probes
                tasks.add(group.create_task(send(arguments[7], True)))
            await asyncio.sleep(0.002)
        for task in tasks if not rate else ():
            task.cancel()
    answers.sort()
    names = ("refused", "given_up", "failed", "probes", "probes_in_time")
    return {name: counts[name] for name in names} | {
        "ok": len(answers),
        "in_time": sum(took < 1 for took in answers),
        "p50": answers[len(answers) // 2] if answers else 0,
        "p99": answers[len(answers) * 99 // 100] if answers else 0,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(load(sys.argv[1:]))) + "\n")
