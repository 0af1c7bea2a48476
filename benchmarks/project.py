"""The measured project, its database, and the applications for comparison."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONTESTANTS = ROOT / "benchmarks" / "contestants"
PROJECT, PACKAGE = "notes-service", "notes_service"
ROWS = 1000  # of the table of notes; requests read them by id
PATHS = {"read": "/notes/{id}", "list": "/notes?limit=20", "insert": "/notes", "livez": "/livez"}
BODY = json.dumps({"text": "n" * 100})
SECRET = "a key for measurements, long enough"  # noqa: S105


class NotMeasured(Exception):
    """The reason why a row or a table is missing, for the table."""


@dataclass(frozen=True)
class Contestant:
    """An application with the routes of the generated service."""

    name: str
    module: str  # whose `app` is the application
    python: Path
    paths: Mapping[str, str]
    body: str = BODY

    def path(self, kind: str) -> str:
        """Return the path of a kind of request."""
        if kind not in self.paths:
            raise NotMeasured(f"declares no path to {kind}")
        return self.paths[kind]


@dataclass(frozen=True)
class Bench:
    """A generated project with a database, and the options of a run."""

    project: Path
    scratch: Path
    database: str
    peers: Path | None = None
    processes: int = 3
    rounds: int = 4
    seconds: float = 20.0
    servers: tuple[str, ...] = ()

    @property
    def programs(self) -> Path:
        return self.project / ".venv" / "bin"

    def contestants(self) -> list[Contestant]:
        """Return bare, naive, the peers and ours, in the order of the tables."""
        python = self.programs / "python"
        bare, naive = (Contestant(name, name, python, PATHS) for name in ("bare", "naive"))
        ours = Contestant("ours", f"{PACKAGE}.wsgi", python, PATHS)
        return [bare, naive, *(peers_in(self.peers, python) if self.peers else []), ours]

    def environment(self, contestant: Contestant) -> dict[str, str]:
        """Return the environment of a contestant, without any of the user's variables."""
        folders = [ROOT, CONTESTANTS, *([self.peers] if self.peers else [])]
        return {
            "PATH": os.pathsep.join([str(contestant.python.parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "PYTHONHASHSEED": "0",
            "DATABASE_URL": self.database,
            "SECRET_KEY": SECRET,
            "APP_ENV": "production",
        }

    def command(self, contestant: Contestant, measurement: str, **options: Any) -> list[str | Path]:
        """Return the command that measures a contestant in a process, without a server."""
        job = {
            "module": contestant.module,
            "paths": dict(contestant.paths),
            "body": contestant.body,
            **options,
        }
        return [contestant.python, CONTESTANTS / "calls.py", measurement, json.dumps(job)]

    def measure(self, contestant: Contestant, measurement: str, **options: Any) -> list[float]:
        """Measure a contestant in a process, without a server."""
        command = self.command(contestant, measurement, **options)
        done = subprocess.run(
            command,
            cwd=self.project,
            env=self.environment(contestant),
            check=True,
            capture_output=True,
            text=True,
        )
        found: list[float] = json.loads(done.stdout.splitlines()[-1])
        return found

    def fill(self, rows: int = ROWS) -> None:
        """Replace the notes by so many rows."""
        self.measure(self.contestants()[0], "fill", rows=rows)


def peers_in(folder: Path, python: Path) -> list[Contestant]:
    """Return the modules of a folder as contestants; its .venv, if there is one, has their packages."""
    own = folder / ".venv" / "bin" / "python"
    found = []
    for file in sorted(folder.glob("*.py")):
        declared = literals(file)
        paths, body = declared.get("PATHS", PATHS), declared.get("BODY", BODY)
        found.append(Contestant(file.stem, file.stem, own if own.exists() else python, paths, body))
    return found


def literals(module: Path) -> dict[str, Any]:
    """Return the constants PATHS and BODY of a module that cannot be imported here."""
    assignments = [node for node in ast.parse(module.read_text()).body if isinstance(node, ast.Assign)]
    names = {ast.unparse(node.targets[0]): node.value for node in assignments}
    return {name: ast.literal_eval(names[name]) for name in ("PATHS", "BODY") if name in names}


def generate(folder: Path) -> Path:
    """Generate the default project in a folder and install it. Does not touch the user's files."""
    configuration = folder / "cookiecutter.yaml"
    configuration.write_text(f"replay_dir: {folder}/replay\n")
    options: list[str | Path] = ["--no-input", "--output-dir", folder, "--config-file", configuration]
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    project = folder / PROJECT
    # The template's own uv makes an environment in seconds, where pip takes minutes.
    tools = folder / "tools"
    tools.mkdir()
    if (uv := Path(sys.executable).with_name("uv")).exists():
        (tools / "uv").symlink_to(uv)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bin/install"], cwd=project, env=os.environ | {"PATH": path}, check=True, stdout=sys.stderr
    )
    # Python would compile in the first process of each kind, and be measured there.
    subprocess.run(
        [".venv/bin/python", "-m", "compileall", "-q", "src", CONTESTANTS], cwd=project, check=True
    )
    return project


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for a run. A PostgreSQL that root starts runs as another user, who must reach it."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def database(project: Path) -> Iterator[str]:
    """Make a migrated database, on the server of TEST_DATABASE_URL or on the embedded one.

    Another process drops it, and stops the server, when this one ends, however it ends.
    """
    command = [".venv/bin/python", "-W", "ignore", "-m", "tests.foundation.databases"]
    with subprocess.Popen(
        [*command, "sh", "-c", 'echo "$0"; exec cat'],
        cwd=project,
        env=os.environ | {"PYTHONPATH": "src"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process.
    ) as keeper:
        assert keeper.stdout
        if not (url := keeper.stdout.readline().strip()):
            raise NotMeasured("there is no PostgreSQL; set TEST_DATABASE_URL")
        environment = os.environ | {"PYTHONPATH": "src", "DATABASE_URL": url, "SECRET_KEY": SECRET}
        command = [".venv/bin/alembic", "upgrade", "head"]
        subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True)
        yield url


def cells(row: Callable[..., list[str]], *arguments: Any) -> list[str]:
    """Return the cells of a row, or the reason why it could not be measured."""
    try:
        return row(*arguments)
    except subprocess.CalledProcessError as error:
        output = error.stderr or error.output or b""
        text = output.decode(errors="replace") if isinstance(output, bytes) else output
        reason = (text.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
    except (NotMeasured, OSError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return [f"not measured: {reason}"]
