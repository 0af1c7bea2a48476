"""Test processes: programs in their own sessions, with logs and timeouts, always terminated.

The template's own tests load this file, too: it needs only pytest, and is independent of any project.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any, Self

import pytest

PATIENCE = 45.0  # seconds until a test gives up on a condition; longer than any server's grace period

# Prefixes of variables that would change a service, its tests or their tools.
SETTINGS = (
    "APP_ENV",
    "COOKIECUTTER_",
    "DATABASE_",
    "FORBID_SKIPS",
    "FORWARDED_ALLOW_IPS",
    "GIT_",
    "GUNICORN_",
    "LOG_",
    "MAKE",
    "METRICS_",
    "MFLAGS",
    "OTEL_",
    "PROMETHEUS_",
    "PROOF_SCALE",
    "PYTEST_",
    "PYTHON",
    "QUEUE_LIMIT",
    "SECRET_KEY",
    "SENTRY_",
    "SERVER",
    "TEST_",
    "TRUSTED_HOSTS",
    "UNCOMMITTED_WORK",
    "UWSGI_",
    "VIRTUAL_ENV",
    "WEB_",
)
_reservations: deque[socket.socket] = deque()


def wait_until(condition: Callable[[], Any], description: str, patience: float = PATIENCE) -> Any:
    """Return the value of the condition once it is true, or fail with its description."""
    deadline = time.monotonic() + patience
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{description}: not within {patience} seconds")
        time.sleep(0.02)
    return result


def free_port() -> int:
    """Return an unused port of the loopback address, which no other test process gets for a while.

    Two servers that got the same port would answer each other's requests. The same port of UDP, which no
    server uses, reserves it across processes until a hundred others have been reserved.
    """
    while True:
        with socket.create_server(("127.0.0.1", 0)) as found:
            port: int = found.getsockname()[1]
        reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            reservation.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
            continue
        _reservations.append(reservation)
        if len(_reservations) > 100:
            _reservations.popleft().close()
        return port


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of services, tests and tools."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}


def run(
    *command: str | Path,
    cwd: Path,
    timeout: float = 600,
    status: int | None = 0,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end in a clean environment; check its exit code, where None means any but 0."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=clean_environment() | dict(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, SIGKILL)
            process.wait()
    good = process.returncode == status if status is not None else process.returncode != 0
    assert good, f"{command} ended with {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(command, process.returncode, out, err)


class Program:
    """A program in its own session, with its output in a log; it is killed at the end of a `with` block."""

    def __init__(
        self,
        *command: str | Path,
        cwd: Path,
        log: Path,
        environment: Mapping[str, str],
        descriptors: Sequence[int] = (),
    ) -> None:
        self.environment = environment
        self.log_file = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=descriptors,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for_log(self, text: str) -> None:
        """Wait until the log contains a text: uWSGI writes it a moment later, in another thread."""
        wait_until(lambda: text in self.log, f"the log has {text!r}")

    def signal(self, number: Signals) -> None:
        """Send a signal to the first process."""
        self.process.send_signal(number)

    def signal_all(self, number: Signals) -> None:
        """Send a signal to each process, like a terminal."""
        os.killpg(self.process.pid, number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait until the first process exits, and return its exit code."""
        return self.process.wait(patience)

    def is_running(self) -> bool:
        """Return whether any process started here is left."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def processes(self) -> list[int]:
        """Return the ids of the processes, the first one first (Linux)."""
        found = []
        # A glob would access each process's file, and fail for an exiting one.
        for process in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
            with suppress(OSError):  # The process has exited since.
                stat = Path("/proc", process, "stat").read_text()
                state, _, _, session, *_ = stat.rpartition(")")[2].split()
                if int(session) == self.process.pid and state != "Z":
                    found.append(int(process))
        return sorted(found, key=lambda process: (process != self.process.pid, process))

    def kill(self) -> None:
        """Kill all remaining processes started here."""
        with suppress(ProcessLookupError):
            self.signal_all(SIGKILL)
        self.process.wait(PATIENCE)


@dataclass(frozen=True)
class Answer:
    """The response of a server."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class WebServer(Program):
    """An HTTP server at a port of the loopback address."""

    def __init__(
        self,
        *command: str | Path,
        cwd: Path,
        log: Path,
        environment: Mapping[str, str],
        port: int,
        descriptors: Sequence[int] = (),
    ) -> None:
        super().__init__(*command, cwd=cwd, log=log, environment=environment, descriptors=descriptors)
        self.port = port
        self.patience = PATIENCE

    def wait_until_ready(self, patience: float = PATIENCE) -> None:
        """Wait for a 200; an open port is not enough, because gunicorn binds before the service exists."""

        def is_ready() -> bool:
            end = self.process.poll()
            assert end is None, f"{self.process.args!r} ended with {end}:\n{self.log}"
            return self.is_serving()

        wait_until(is_ready, "the server serves", patience)

    def is_serving(self) -> bool:
        """Return whether requests are answered."""
        try:
            return self.get("/livez").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def is_listening(self) -> bool:
        """Return whether the port accepts connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def get(self, path: str) -> Answer:
        """Send a GET on a new connection."""
        return self.send("GET", path)

    def post(self, path: str, body: object) -> Answer:
        """Send JSON."""
        return self.send("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def patch(self, path: str, body: object, etag: str) -> Answer:
        """Send JSON as a change of the resource with this ETag."""
        headers = {"Content-Type": "application/json", "If-Match": etag}
        return self.send("PATCH", path, json.dumps(body).encode(), headers)

    def send(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request on a new connection; an iterable body is sent in chunks."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience)) as connection:
            try:
                connection.request(method, path, body, dict(headers or {}))  # type: ignore[arg-type]
                response = connection.getresponse()
                return Answer(response.status, response.headers, response.read())
            except (OSError, http.client.HTTPException) as error:
                error.add_note(f"The log:\n{self.log}")
                raise

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """Open a connection to send raw bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=self.patience) as connection:
            yield connection


def serve(*command: str | Path, cwd: Path, log: Path, env: Mapping[str, str] | None = None) -> WebServer:
    """Start a web server at a free port, in a clean environment with WEB_BIND.

    It refuses no request: on a busy machine any request may wait long.
    """
    port = free_port()
    own = {"WEB_BIND": f"127.0.0.1:{port}", "QUEUE_LIMIT": "0"}
    environment = clean_environment() | own | dict(env or {})
    return WebServer(*command, cwd=cwd, log=log, environment=environment, port=port)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail skipped tests if nothing may be missing, as in CI."""
    report = yield
    if report.skipped and os.environ.get("FORBID_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"FORBID_SKIPS is set, and this was skipped: {report.longrepr}"
    return report
