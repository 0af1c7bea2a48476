"""Real servers on copies of the project: startup, readiness, requests, signals and shutdown."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from .databases import PROJECT, SAMPLE
from .processes import PATIENCE, Answer, WebServer, free_port, run, serve, wait_until

# Proofs import everything about servers from here.
__all__ = [
    "FLASK",
    "GTHREAD",
    "GUNICORN",
    "KINDS",
    "MODULE",
    "PACKAGE",
    "PATIENCE",
    "PYWSGI",
    "UWSGI",
    "WITH_WORKERS",
    "Answer",
    "Kind",
    "Project",
    "Server",
    "activated",
    "free_port",
    "scale",
    "scaled",
    "serving",
    "start_service",
    "wait_until",
]

MODULE = "{{cookiecutter.package_name}}"
PACKAGE = f"src/{MODULE}"
# The template's parts of the project; the sample service replaces the owner's.
SOURCES = (
    "bin",
    f"{PACKAGE}/__init__.py",
    f"{PACKAGE}/wsgi.py",
    f"{PACKAGE}/foundation",
    "migrations/autogenerate.py",
    "migrations/row_ids.py",
    "migrations/env.py",
    "migrations/script.py.mako",
    "gunicorn.conf.py",
    "uwsgi.ini",
    "pyproject.toml",
)


def scale() -> int:
    """Return PROOF_SCALE, the factor for repetitions: 1 by default, and 10 in `make prove`.

    With a factor above 1, the proofs run on every installed server, not just the usual ones.
    """
    return int(os.environ.get("PROOF_SCALE", "1"))


def scaled(count: int) -> int:
    """Return the number of repetitions at the scale of this run."""
    return count * scale()


class Project:
    """A copy of the template's served files, with the sample service; a test may change it.

    Compiled modules are copied, too: compiling them would be a third of each startup.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "migrations").mkdir()
        shutil.copytree(SAMPLE, folder / PACKAGE, ignore=shutil.ignore_patterns("__init__.py", "migrations"))
        shutil.copytree(SAMPLE / "migrations", folder / "migrations" / "versions")
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
        """Replace text that must exist."""
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
        """Add a module of `provocations` to the application, at the end of wsgi.py."""
        self.append(f"{PACKAGE}/wsgi.py", f"\nfrom .provocations import {module}\n{module}.add_to(app)\n")


@dataclass(frozen=True, eq=False)
class Kind:
    """A way to serve: its command, its settings, and the module that it needs.

    `make prove` runs the proofs on all of them, and any other run on the usual ones.
    """

    name: str
    command: tuple[str, ...]
    settings: Mapping[str, str]
    needs: str
    usual: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.needs) is not None


def _gunicorn(worker: str, *, usual: bool = False) -> Kind:
    return Kind(f"gunicorn-{worker}", ("gunicorn",), {"WEB_WORKER_CLASS": worker}, "gunicorn", usual)


def _installed(*kinds: Kind) -> list[Kind]:
    return [kind for kind in kinds if kind.is_installed]


UWSGI = Kind("uwsgi", ("uwsgi", "uwsgi.ini"), {}, "pyuwsgi")
PYWSGI = Kind("pywsgi", ("python", "-m", f"{MODULE}.foundation.serving.pywsgi"), {}, "gevent")
FLASK = Kind(
    "flask", ("python", "-m", f"{MODULE}.foundation.serving.development"), {}, "werkzeug", usual=False
)
GUNICORN = _installed(
    _gunicorn("gthread", usual=True),
    _gunicorn("gthread_patient"),
    _gunicorn("sync"),
    _gunicorn("gevent"),
    _gunicorn("gevent_pywsgi"),
)
# gunicorn's thread workers, its own first.
GTHREAD = [kind for kind in GUNICORN if "gthread" in kind.name]
WITH_WORKERS = _installed(*GUNICORN, UWSGI)
KINDS = _installed(*WITH_WORKERS, PYWSGI, FLASK)


def activated(kind: Kind, listener: socket.socket) -> Kind:
    """Return the way to serve under systemd: the socket is already open as descriptor 3."""
    activation = (
        f"import os, sys; os.dup2({listener.fileno()}, 3);"
        " os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
        " os.execvp(sys.argv[1], sys.argv[1:])"
    )
    command = (sys.executable, "-c", activation, *kind.command)
    return replace(kind, command=command, settings={**kind.settings, "WEB_BIND": "fd://3"})


def _port(settings: Mapping[str, str], listener: socket.socket | None) -> int:
    if listener is None:
        return int(settings.get("WEB_BIND", "").rpartition(":")[2] or free_port())
    return int(listener.getsockname()[1]) if listener.family is socket.AF_INET else 0


class Folder(Protocol):
    """A folder from which to serve."""

    folder: Path


class Server(WebServer):
    """A server in a project's folder, with exactly the given settings."""

    def __init__(
        self,
        project: Folder,
        kind: Kind,
        settings: Mapping[str, str],
        listener: socket.socket | None = None,
    ) -> None:
        self.kind = kind
        self.folder = project.folder
        port = _port(settings, listener)
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(project.folder),
            "TMPDIR": str(project.folder),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(project.folder / "src"),
            "WEB_BIND": f"127.0.0.1:{port}",
            # A proof that needs a second process sets this: each takes a third of a second to load the
            # service.
            "WEB_CONCURRENCY": "1",
            # On a busy machine requests may wait long. The overload proofs set a limit.
            "QUEUE_LIMIT": "0",
            **kind.settings,
            **settings,
        }
        super().__init__(
            *kind.command,
            cwd=project.folder,
            log=project.folder / f"{kind}-{port}.log",
            environment=environment,
            port=port,
            descriptors=[listener.fileno()] if listener else [],
        )

    def reload(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run bin/reload on this server, or with other arguments, and check its exit code."""
        given = arguments or (str(self.process.pid),)
        return run("bin/reload", *given, cwd=self.folder, env=self.environment, status=status)

    def texts(self) -> list[str]:
        """Return the texts of all samples, newest first."""
        found: list[str] = []
        path = "/samples?limit=100"
        while path:
            page = self.get(path).json
            found += [sample["text"] for sample in page["items"]]
            path = page["next"]
        return found


@contextmanager
def serving(project: Folder, kind: Kind, settings: Mapping[str, str]) -> Iterator[Server]:
    """Start a server, wait until it serves, and always stop it."""
    with Server(project, kind, settings) as server:
        server.wait_until_ready()
        yield server


def start_service(log: Path, settings: Mapping[str, str]) -> WebServer:
    """Start the service itself, with the owner's code, on the server that `make serve` starts."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "PYTHONPATH": "src", "WEB_CONCURRENCY": "1", **settings}
    return serve(*KINDS[0].command, cwd=PROJECT, log=log, env=environment)
