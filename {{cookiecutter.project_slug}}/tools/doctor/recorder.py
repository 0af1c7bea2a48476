"""A record of an application's import, and of a request in each of two forked processes. It runs the code."""

import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from .findings import Finding
from .sources import Place

PATIENCE = 15.0  # seconds that a forked process may take for one request
PLAIN = {"NoneType", "bool", "float", "int", "str"}
SIZED = {"Counter", "DataFrame", "OrderedDict", "defaultdict", "deque", "dict", "list", "set"}
CONNECTS = {"socket.connect", "sqlite3.connect"}


class Recorder:
    """The events of an import, each with the line of the application that caused it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: dict[tuple[str, Place], str] = {}
        self.inherited: list[str] = []
        self.parent = os.getpid()

    def note(self, rule: str, message: str) -> None:
        """Record an event at the application's current line."""
        if os.getpid() == self.parent:
            self.events.setdefault((rule, self.place()), message)

    def place(self) -> Place:
        """Return the innermost line of the application's own code."""
        for frame in reversed(traceback.extract_stack()):
            path = Path(frame.filename)
            if path.is_relative_to(self.root) and not {".venv", "tools"} & set(path.parts):
                return Place(str(path.relative_to(self.root)), None, frame.lineno or 1, 1)
        return Place(".", None, 1, 1)

    def start(self) -> None:
        """Record connections and threads from now on."""
        sys.addaudithook(self.audit)
        start = threading.Thread.start

        def record(thread: threading.Thread) -> None:
            self.note("N401", f"thread started at import: `{thread.name}`")
            start(thread)

        threading.Thread.start = record  # type: ignore[assignment, method-assign]
        with suppress(ImportError):
            self.listen()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Record a connection opened in Python; C drivers are seen only through SQLAlchemy's events."""
        if event in CONNECTS:
            self.note("N101", f"connection opened at import: {event}")

    def listen(self) -> None:
        """Record connections opened by SQLAlchemy and those a forked process takes from its parent's
        pool."""
        from sqlalchemy import Engine, event
        from sqlalchemy.orm import Session
        from sqlalchemy.pool import Pool

        def connect(connection: object, record: Any) -> None:
            record.info["doctor.pid"] = os.getpid()
            self.note("N101", "connection of SQLAlchemy's pool opened at import")

        def execute(connection: Any, *arguments: object) -> None:
            if connection.info.get("doctor.pid", os.getpid()) != os.getpid():
                self.inherited.append("a connection that the parent opened")

        def begin(*arguments: object) -> None:
            self.note("N103", "session began a transaction at import")

        event.listen(Pool, "connect", connect)
        event.listen(Engine, "before_cursor_execute", execute)
        event.listen(Session, "after_begin", begin)


def record(target: str, url: str) -> list[Finding]:
    """Return the actions of an application `package.module:name` at import, and objects that cross a fork.

    A request that fails is a line on stderr. Without any finding it ends the process with 2.
    """
    sys.path.insert(1, str(Path.cwd()))
    recorder = Recorder(Path.cwd())
    recorder.start()
    before = open_files()
    app = load(target)
    module = Path(sys.modules[target.partition(":")[0]].__file__ or ".")
    here = Place(os.path.relpath(module), None, 1, 1)
    own = [module for module in sys.modules.values() if is_own(module, recorder.root)]
    findings = [finding(rule, message, place) for (rule, place), message in recorder.events.items()]
    findings += list(find_leftovers(open_files() - before, here))
    children = [run_child(app, url, own, recorder) for _ in range(2)]
    findings += list(compare(children, here))
    failures = [failure for child in children if (failure := child.get("failure"))]
    sys.stderr.writelines(f"doctor: GET {url} in a forked process: {failure}\n" for failure in failures)
    if failures and not findings:
        sys.exit(2)
    return list(dict.fromkeys(findings))


def load(target: str) -> Any:
    """Import an application, and call it if it is a factory."""
    module, _, name = target.partition(":")
    app = getattr(importlib.import_module(module), name or "app")
    return app if hasattr(app, "test_client") else app()


def is_own(module: ModuleType, root: Path) -> bool:
    """Return whether a module belongs to the application."""
    path = Path(getattr(module, "__file__", None) or "/")
    return path.is_relative_to(root) and not {".venv", "site-packages", "tools"} & set(path.parts)


def finding(rule: str, message: str, place: Place) -> Finding:
    """Return a finding that was recorded."""
    return Finding(rule, "error", message, message, place, (), None, (place.line, place.line), "")


def open_files() -> set[str]:
    """Return the open sockets and databases of this process."""
    names = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the folder is gone while it is read
        with suppress(OSError):
            names.add(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115 - a socket is no path
    return {
        name for name in names if name.startswith("socket:") or name.endswith((".db", ".sqlite", ".sqlite3"))
    }


def find_leftovers(opened: set[str], here: Place) -> Iterator[Finding]:
    """Yield leftovers of an import that every forked process would inherit."""
    for name in sorted(opened):
        yield finding("N101", f"open after the import, and inherited by each forked worker: {name}", here)
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            yield finding(
                "N401", f"alive after the import, and missing in each worker: `{thread.name}`", here
            )
    with suppress(ImportError, AttributeError):
        from flask.globals import _cv_app

        if _cv_app.get(None) is not None:
            yield finding("N302", "application context still pushed after the import", here)


def run_child(
    app: Any, url: str, own: list[ModuleType], recorder: Recorder, patience: float = PATIENCE
) -> dict[str, Any]:
    """Return the report of a forked process that serves one request, or that it hung."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            report = serve(app, url, own, recorder)
        except BaseException as error:
            report = {"failure": f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(report).encode())
        os._exit(0)
    os.close(writer)
    report = wait(child, reader, patience)
    os.close(reader)
    return report


def wait(child: int, reader: int, patience: float) -> dict[str, Any]:
    """Read the report of a child, and kill it if it takes too long."""
    os.set_blocking(reader, False)
    deadline, text = time.monotonic() + patience, b""
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            part = os.read(reader, 65536)
            text += part
            if not part:
                break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    report: dict[str, Any] = json.loads(text) if text else {"hung": True}
    return report


def serve(app: Any, url: str, own: list[ModuleType], recorder: Recorder) -> dict[str, Any]:
    """Serve one request, and return what it changed and used."""
    before = {name: value for module in own for name, value in globals_of(module)}
    status = app.test_client().get(url).status_code
    changed = [
        name for module in own for name, value in globals_of(module) if before.get(name, value) != value
    ]
    return {
        "failure": f"the status is {status}" if status >= 500 else "",
        "changed": changed,
        "inherited": recorder.inherited,
        "draws": dict(draws(own)),
    }


def globals_of(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield a description of each global that a request could change."""
    for name, value in list(vars(module).items()):
        # By its type: a Flask proxy raises for each attribute outside a request.
        kind = type(value).__name__
        if name.startswith("__") or kind not in SIZED | PLAIN:
            continue
        yield f"{module.__name__}.{name}", f"{kind} of {len(value)}" if kind in SIZED else f"{kind} {value!r}"


def draws(own: list[ModuleType]) -> Iterator[tuple[str, str]]:
    """Yield a number from each global random generator."""
    for module in own:
        for name, value in list(vars(module).items()):
            if type(value).__name__ in {"Generator", "Random", "RandomState"}:
                yield f"{module.__name__}.{name}", repr(value.random())


def compare(children: list[dict[str, Any]], here: Place) -> Iterator[Finding]:
    """Yield findings from the reports of two forked processes."""
    for report in children:
        if report.get("hung"):
            yield finding("N403", "a forked process hung while it served the request", here)
        for name in report.get("changed", ()):
            yield finding("N201", f"the request changed the global `{name}`", here)
        for name in report.get("inherited", ()):
            yield finding("N103", f"the request used {name}", here)
    first, second = (report.get("draws", {}) for report in children)
    for name, value in first.items():
        if second.get(name) == value:
            yield finding("N404", f"two forked processes drew the same number from `{name}`", here)
