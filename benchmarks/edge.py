"""Count what the outermost layer of the service costs each request, in instructions.

The request is for a view that does nothing: 1 % of what a request for notes costs would be half of the layer.
What metrics add to the use of a connection is counted beside it, once for each request.

    python -m benchmarks.edge [PROJECT]

PROJECT is a generated project with its .venv; without one, the default project is generated and installed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .callgrind import count_instructions, run_parts
from .project import PACKAGE, ROOT, SECRET, generate, scratch_folder
from .wsgi import answer

COUNT = 200  # requests in each part


# -- in the process that is measured: what the project's own Python runs -----------------------------


def requests(layers: str) -> Callable[[], object]:
    """Return what sends one request through the layers that are named, to a view that does nothing."""
    app = importlib.import_module(f"{PACKAGE}.app").create_app()
    app.add_url_rule("/nothing", view_func=dict)
    edge = app.wsgi_app.wsgi_app
    edge = getattr(edge, "wsgi_app", edge) if "metrics" in layers else edge
    if layers == "nothing":
        app.wsgi_app.wsgi_app = edge.wsgi_app
    elif "line" not in layers:
        edge.write_line = None

    return lambda: answer(app.wsgi_app, "GET", "/nothing")


def connections(pool: str) -> Callable[[], None]:
    """Return what takes a connection out of the service's pool and gives it back."""
    app = importlib.import_module(f"{PACKAGE}.app").create_app()
    (engine,) = importlib.import_module(f"{PACKAGE}.foundation.database.session").engines_of(app)

    def use() -> None:
        engine.connect().close()

    return use


def repeat(what: str) -> None:
    """Do something in parts."""
    kind, _, layers = what.partition(":")
    run_parts((requests if kind == "requests" else connections)(layers), COUNT)


# -- in the process that measures --------------------------------------------------------------------


def main() -> None:
    """Print a table of instructions per request."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("project", nargs="?", type=Path, help="a generated project with its .venv")
    parser.add_argument("--repeat", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.repeat:
        repeat(given.repeat)
        return
    with scratch_folder() as folder:
        project = given.project.resolve() if given.project else generate(folder)
        if not (project / ".venv" / "bin" / "python").exists():
            sys.exit(f"edge: {project} has no .venv, run `make install` there")

        def cost(what: str) -> float:
            return count(project, what)

        below = cost("requests:nothing")
        headers = cost("requests:id") - below
        line = cost("requests:line") - below
        numbers = cost("requests:line and metrics") - below
        pool = cost("connections:measured") - cost("connections:plain")
    table = {
        "request id and security headers": headers,
        "and a line in the log": line,
        "and metrics": numbers,
        "and those of the pool": numbers + pool,
    }
    sys.stdout.write("| | thousand instructions per request |\n|---|--:|\n")
    for name, thousands in table.items():
        sys.stdout.write(f"| {name} | {thousands:.1f} |\n")


def count(project: Path, what: str) -> float:
    """Return thousand instructions of what a process does in parts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "metrics").mkdir()
        # No other variable is handed on: nothing but the layers differs between two processes.
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": f"src{os.pathsep}{ROOT}",
            "PYTHONHASHSEED": "0",
            "DATABASE_URL": f"sqlite:///{folder}/notes.db",
            "SECRET_KEY": SECRET,
        }
        if what.endswith(("metrics", "measured")):
            environment |= {"PROMETHEUS_MULTIPROC_DIR": f"{folder}/metrics", "METRICS_BIND": "127.0.0.1:9100"}
        sqlite3.connect(folder / "notes.db").close()
        command = [str(project / ".venv/bin/python"), "-m", "benchmarks.edge", "--repeat", what]
        (thousands,) = count_instructions(command, COUNT, cwd=project, env=environment)
    return thousands


if __name__ == "__main__":
    main()
