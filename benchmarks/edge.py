"""Count what the outermost layer of the service costs each request, in instructions.

Instructions are counted by valgrind's callgrind, and repeat within 1 % where seconds do not. The request is
for a view that does nothing: 1 % of what a request for notes costs would be half of the layer. What metrics
add to the use of a connection is counted beside it, once for each request.

    python benchmarks/edge.py [PROJECT]

PROJECT is a generated project with its .venv; without one, the default project is generated and installed.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "notes_service"
FEW, MANY = 100, 1100  # requests; the first ones fill caches, and are in both processes


# -- in the process that is measured: what the project's own Python runs -----------------------------


def requests(layers: str) -> Callable[[], None]:
    """Return what sends one request through the layers that are named, to a view that does nothing."""
    app = importlib.import_module(f"{PACKAGE}.app").create_app()
    app.add_url_rule("/nothing", view_func=dict)
    edge = app.wsgi_app.wsgi_app
    edge = getattr(edge, "wsgi_app", edge) if "metrics" in layers else edge
    if layers == "nothing":
        app.wsgi_app.wsgi_app = edge.wsgi_app
    elif "line" not in layers:
        edge.write_line = None

    def send() -> None:
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/nothing",
            "QUERY_STRING": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "127.0.0.1:8000",
            "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "HTTP_ACCEPT": "*/*",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
        }
        response = app.wsgi_app(environ, lambda *given: None)
        for _ in response:
            pass
        response.close()

    return send


def connections(pool: str) -> Callable[[], None]:
    """Return what takes a connection out of the service's pool and gives it back."""
    app = importlib.import_module(f"{PACKAGE}.app").create_app()
    (engine,) = importlib.import_module(f"{PACKAGE}.foundation.database.session").engines_of(app)

    def use() -> None:
        engine.connect().close()

    return use


def repeat(what: str, count: int) -> None:
    """Do something so many times."""
    kind, _, layers = what.partition(":")
    once = (requests if kind == "requests" else connections)(layers)
    # It would run now and then, after a number of objects that has nothing to do with the layer.
    gc.collect()
    gc.disable()
    for _ in range(count):
        once()


# -- in the process that measures --------------------------------------------------------------------


def main() -> None:
    """Print a table of instructions per request."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("project", nargs="?", type=Path, help="a generated project with its .venv")
    parser.add_argument("--repeat", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.repeat:
        repeat(given.repeat[0], int(given.repeat[1]))
        return
    valgrind = shutil.which("valgrind")
    if not valgrind:
        sys.exit("edge: valgrind is needed; on Debian and Ubuntu: apt install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        project = given.project.resolve() if given.project else generate(Path(folder))
        if not (project / ".venv" / "bin" / "python").exists():
            sys.exit(f"edge: {project} has no .venv, run `make install` there")

        # What Python compiles in the first process would be counted there, and in no other.
        python = str(project / ".venv/bin/python")
        subprocess.run([python, "-m", "compileall", "-q", "src"], cwd=project, check=True)

        def cost(what: str) -> float:
            few, many = (instructions(valgrind, project, what, count) for count in (FEW, MANY))
            return (many - few) / (MANY - FEW) / 1000

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


def generate(folder: Path) -> Path:
    """Generate the default project and install it."""
    from cookiecutter.main import cookiecutter

    project = Path(
        cookiecutter(
            str(ROOT),
            no_input=True,
            default_config={"replay_dir": str(folder / "replay")},
            output_dir=str(folder),
        )
    )
    subprocess.run(["make", "install"], cwd=project, check=True, stdout=subprocess.DEVNULL)
    return project


def instructions(valgrind: str, project: Path, what: str, count: int) -> int:
    """Count the instructions of a process that does something so many times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "metrics").mkdir()
        # No other variable is handed on: nothing but the number differs between two processes.
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": "src",
            "PYTHONHASHSEED": "0",
            "DATABASE_URL": f"sqlite:///{folder}/notes.db",
            "SECRET_KEY": "a key for measurements, long enough",
        }
        if what.endswith(("metrics", "measured")):
            environment |= {"PROMETHEUS_MULTIPROC_DIR": f"{folder}/metrics", "METRICS_BIND": "127.0.0.1:9100"}
        sqlite3.connect(folder / "notes.db").close()
        counted = folder / "counted"
        command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={counted}"]
        command += [str(project / ".venv/bin/python"), str(Path(__file__).resolve()), "--repeat", what]
        done = subprocess.run(
            [*command, str(count)], cwd=project, env=environment, stderr=subprocess.PIPE, check=False
        )
        if done.returncode:
            sys.stderr.buffer.write(done.stderr)
            sys.exit(f"edge: status {done.returncode} of {' '.join(command)}")
        found = re.search(r"^(?:summary|totals): (\d+)", counted.read_text(), re.MULTILINE)
    if not found:
        sys.exit("edge: callgrind has counted nothing")
    return int(found[1])


if __name__ == "__main__":
    main()
