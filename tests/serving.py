"""Programs that serve until they are told to end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .conftest import clean_environment

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Serving:
    """A program in a session of its own, whose output goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def wait_until_it_answers(self, seconds: float) -> None:
        """Ask whether it is alive until it says so; fail when it ended, or at the deadline."""
        deadline = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                opener.open(f"{self.url}/livez", timeout=5).close()
                return
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)

    def end(self, number: int, *, everybody: bool = False) -> int:
        """Send a signal, to the whole group as a terminal does or to the program alone; return its status."""
        (os.killpg if everybody else os.kill)(self.process.pid, number)
        return self.process.wait(timeout=60)

    def is_anybody_left(self) -> bool:
        """Tell whether a process of the group is running."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


@contextmanager
def serving(
    *command: str | Path, cwd: Path, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Serving]:
    """Start a program on a free port, and at the end stop whatever is left of it."""
    bind = f"127.0.0.1:{free_port()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=clean_environment() | {"WEB_BIND": bind} | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    found = Serving(process, f"http://{bind}", log)
    try:
        yield found
    finally:
        if found.is_anybody_left():
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def ask(url: str, body: str | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Send a request, a POST when there is a body; return the status and the JSON of the answer."""
    request = urllib.request.Request(url, body.encode() if body else None, headers or {})  # noqa: S310
    with opener.open(request, timeout=10) as response:
        return response.status, json.load(response)
