"""Start a real server on a copy of the project, wait until it serves, talk to it, signal it, end it."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..databases import PROJECT

PATIENCE = 45.0  # seconds until a condition that should hold is given up; more than any grace of a server

SCALE = int(os.environ.get("PROOF_SCALE", "1"))

PACKAGE = "src/{{cookiecutter.package_name}}"
SOURCES = (
    "bin",
    "src",
    "migrations",
    "gunicorn.conf.py",
    "uwsgi.ini",
    "pywsgi.py",
    "devserver.py",
    "pyproject.toml",
)


def wait_until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Return what the condition comes to once it holds, or fail saying what was waited for."""
    deadline = time.monotonic() + patience
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {patience} seconds")
        time.sleep(0.02)
    return result


def scaled(count: int) -> int:
    """Return how often to do something: as often as given, and ten times that in `make prove`."""
    return count * SCALE


class Project:
    """A copy of the project that a test may change: the files that are served, without tests and tools.

    What is compiled already comes along: compiling it anew would be a third of each start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for name in SOURCES:
            if (PROJECT / name).is_dir():
                shutil.copytree(PROJECT / name, folder / name)
            elif (PROJECT / name).exists():
                shutil.copy(PROJECT / name, folder / name)
        (folder / ".venv").symlink_to(sys.prefix)

    def append(self, path: str, text: str) -> None:
        """Add text at the end of a file."""
        with (self.folder / path).open("a") as file:
            file.write(text)

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        text = (self.folder / path).read_text()
        assert old in text, f"{path} has no {old!r}"
        (self.folder / path).write_text(text.replace(old, new))

    def recycle(self, kind: Kind, count: int) -> None:
        """Replace each worker after so many requests."""
        if kind is UWSGI:
            self.replace("uwsgi.ini", "max-requests = 10000", f"max-requests = {count}")
            self.replace("uwsgi.ini", "max-requests-delta = 2000", "min-worker-lifetime = 1")
        else:
            self.append("gunicorn.conf.py", f"\nmax_requests = {count}\nmax_requests_jitter = 0\n")

    def provoke(self, module: str) -> None:
        """Serve what a module of `provocations` adds to the application, at the end of wsgi.py."""
        shutil.copy(Path(__file__).with_name("provocations") / f"{module}.py", self.folder / "src")
        self.append(f"{PACKAGE}/wsgi.py", f"\nimport {module}  # noqa\n{module}.add_to(app)\n")


@dataclass(frozen=True, eq=False)
class Kind:
    """A way to serve: its name, its command, and the settings that choose it."""

    name: str
    command: tuple[str, ...]
    settings: Mapping[str, str]
    needs: str

    def __str__(self) -> str:
        return self.name

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.needs) is not None


def _gunicorn(worker: str) -> Kind:
    return Kind(f"gunicorn-{worker}", ("gunicorn",), {"WEB_WORKER_CLASS": worker}, "gunicorn")


UWSGI = Kind("uwsgi", ("uwsgi", "uwsgi.ini"), {}, "pyuwsgi")
PYWSGI = Kind("pywsgi", ("python", "pywsgi.py"), {}, "gevent")
FLASK = Kind("flask", ("python", "devserver.py"), {}, "werkzeug")
GUNICORN = [_gunicorn(worker) for worker in ("gthread", "sync", "gevent", "gevent_pywsgi")]
# `make test` takes the usual ways, `make prove` all of them.
if SCALE == 1:
    GUNICORN = GUNICORN[:1]
GUNICORN = [kind for kind in GUNICORN if kind.is_installed]
WITH_WORKERS = [kind for kind in (*GUNICORN, UWSGI) if kind.is_installed]
KINDS = [kind for kind in (*WITH_WORKERS, PYWSGI, *([FLASK] if SCALE > 1 else [])) if kind.is_installed]


def activated(kind: Kind, listener: socket.socket) -> Kind:
    """Return the way to serve that systemd has: the socket is open already, and is descriptor 3."""
    activation = (
        f"import os, sys; os.dup2({listener.fileno()}, 3);"
        " os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
        " os.execvp(sys.argv[1], sys.argv[1:])"
    )
    command = (sys.executable, "-c", activation, *kind.command)
    return replace(kind, command=command, settings={**kind.settings, "WEB_BIND": "fd://3"})


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A server process in a session of its own, with its log."""

    def __init__(
        self,
        project: Project,
        kind: Kind,
        environment: Mapping[str, str],
        listener: socket.socket | None = None,
    ) -> None:
        self.kind = kind
        wanted = environment.get("WEB_BIND", "").rpartition(":")[2]
        self.port = listener.getsockname()[1] if listener else int(wanted or free_port())
        self.log_file = project.folder / f"{kind}-{self.port}.log"
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(project.folder),
            "TMPDIR": str(project.folder),
            "PYTHONUNBUFFERED": "1",
            "WEB_BIND": f"127.0.0.1:{self.port}",
            # A proof that needs a second process asks for it: each loads the service, a third of a second.
            "WEB_CONCURRENCY": "1",
            **kind.settings,
            **environment,
        }
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                kind.command,
                cwd=project.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[listener.fileno()] if listener else [],
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for_log(self, text: str) -> None:
        """Wait until the log has a text: uWSGI writes it a moment later, by a thread of its own."""
        wait_until(lambda: text in self.log, f"the log has {text!r}")

    def wait_until_ready(self) -> None:
        """Wait for a 200; an open port is no readiness, gunicorn binds before the service exists."""

        def is_ready() -> bool:
            assert self.process.poll() is None, (
                f"{self.kind} ended with {self.process.returncode}:\n{self.log}"
            )
            return self.is_serving()

        wait_until(is_ready, f"{self.kind} serves")

    def is_serving(self) -> bool:
        """Say whether requests are answered."""
        try:
            return self.get("/livez").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str) -> Answer:
        """Send a GET on a connection of its own."""
        return self.send("GET", path)

    def post(self, path: str, body: object) -> Answer:
        """Send JSON."""
        return self.send("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def patch(self, path: str, body: object, etag: str) -> Answer:
        """Send JSON as a change of what had this ETag."""
        headers = {"Content-Type": "application/json", "If-Match": etag}
        return self.send("PATCH", path, json.dumps(body).encode(), headers)

    def send(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request on a connection of its own; an iterable body goes out in chunks."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            try:
                connection.request(method, path, body, dict(headers or {}))  # type: ignore[arg-type]
                response = connection.getresponse()
                return Answer(response.status, response.headers, response.read())
            except (OSError, http.client.HTTPException) as error:
                error.add_note(f"The log of {self.kind}:\n{self.log}")
                raise

    def texts(self) -> list[str]:
        """Return the texts of all notes, newest first."""
        found: list[str] = []
        path = "/notes?limit=100"
        while path:
            page = self.get(path).json
            found += [note["text"] for note in page["items"]]
            path = page["next"]
        return found

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """Open a connection to send bytes by hand."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            yield connection

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's first process."""
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for the end of the server and return its exit status."""
        return self.process.wait(patience)

    def processes(self) -> list[int]:
        """Return the ids of the server's processes, its first one at the head (Linux)."""
        found = []
        # A glob would ask each process whether its file is there, and fail for one that is just ending.
        for process in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
            with suppress(OSError):  # A process that has ended meanwhile.
                stat = Path("/proc", process, "stat").read_text()
                state, _, _, session, *_ = stat.rpartition(")")[2].split()
                if int(session) == self.process.pid and state != "Z":
                    found.append(int(process))
        return sorted(found, key=lambda process: (process != self.process.pid, process))

    def is_listening(self) -> bool:
        """Say whether somebody accepts connections at the server's port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End whatever is left of the processes that were started here."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@contextmanager
def serving(project: Project, kind: Kind, settings: Mapping[str, str]) -> Iterator[Server]:
    """Start a server, wait until it serves, and end it whatever happens."""
    server = Server(project, kind, settings)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.kill()


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
