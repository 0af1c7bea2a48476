"""The server of `make dev`: reloads on changes, shows failures in Werkzeug's debugger, logs SQL with `--sql`.

The first process holds the socket, and starts a serving child, which it restarts after each change of a file.
Werkzeug's own reloader (3.1.9) misses new files, and exits if the code cannot be imported.
"""

from __future__ import annotations

import itertools
import logging
import os
import reprlib
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import dotenv_values
from sqlalchemy import event
from werkzeug.debug import DebuggedApplication
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from ..configuration import ConfigurationError, ServiceSettings, exit_with, is_loopback, listen, tcp_address
from ..database.session import engines_of
from .development import QuietHandler
from .project import load_app, load_settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

ROOT = Path(__file__).parents[4]
WATCHED = ("src", "migrations")
INTERVAL = 0.3  # seconds between two scans of the files
Files = dict[str, tuple[int, int]]  # modification time and size of each
SQL = logging.getLogger("sql")
SHORT = reprlib.Repr()
SHORT.maxdict = SHORT.maxlist = SHORT.maxtuple = 20
SHORT.maxstring = SHORT.maxother = 200


def supervise() -> None:
    """Serve until SIGTERM or SIGINT. Exits with 78 if the initial configuration is invalid."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Python keeps a shell's SIG_IGN.
    bind = _bind(_environment())
    with listen(bind) as listener, suppress(KeyboardInterrupt):
        sys.stderr.write(f"dev: http://{bind.rpartition(':')[0]}:{listener.getsockname()[1]}\n")
        for number in itertools.count():
            files = _files()
            command = [sys.executable, "-m", f"{__package__}.reloader", *sys.argv[1:]]
            command.append(f"--descriptor={listener.fileno()}")
            child = subprocess.Popen(command, env=_environment(), pass_fds=[listener.fileno()])  # noqa: S603
            try:
                _wait_for_change(files, child, first=number == 0)
            finally:
                child.kill()
                child.wait()


def _environment() -> dict[str, str]:
    """Return the environment, completed from .env; a child reads the file again."""
    found = dotenv_values(ROOT / ".env")
    return {name: value for name, value in found.items() if value is not None} | dict(os.environ)


def _bind(environment: dict[str, str]) -> str:
    bind = environment.get("WEB_BIND") or ServiceSettings.model_fields["web_bind"].default
    if not is_loopback(tcp_address(bind)[0]):
        problem = f"WEB_BIND is {bind}, where others could reach the debugger: set WEB_BIND=127.0.0.1:8000"
        exit_with(ConfigurationError(problem))
    return bind


def _files() -> Files:
    """Return the files whose changes require a reload."""
    walks = (os.walk(ROOT / folder) for folder in WATCHED)
    modules = (f"{folder}/{name}" for folder, _, names in itertools.chain(*walks) for name in names)
    found = {}
    for path in [f"{ROOT}/.env", *(path for path in modules if path.endswith(".py"))]:
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116  # pathlib would take twice as long.
            found[path] = status.st_mtime_ns, status.st_size
    return found


def _wait_for_change(files: Files, child: subprocess.Popen[bytes], *, first: bool) -> None:
    ended = None
    while (found := _files()) == files:
        if ended is None and (ended := child.poll()) is not None:
            if first and ended == os.EX_CONFIG:
                sys.exit(ended)
            sys.stderr.write(f"dev: the service ended with {ended}, waiting for a change\n")
        time.sleep(INTERVAL)
    while found != files:  # An editor or git may still be writing others.
        files = found
        time.sleep(INTERVAL / 3)
        found = _files()
    sys.stderr.write("dev: a file has changed, loading the service again\n")


def serve(descriptor: int) -> None:
    """Serve on the first process's socket until that process exits."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches both processes, and needs no traceback.
    settings = load_settings()
    if settings.app_env == "production":
        problem = "APP_ENV is production, and `make dev` would expose the debugger: set APP_ENV=development"
        exit_with(ConfigurationError(problem))
    application, title = _load()
    address = tcp_address(settings.web_bind)
    server = make_server(*address, application, threaded=True, request_handler=QuietHandler, fd=descriptor)
    parent = os.getppid()

    def end_with_parent() -> None:
        if os.getppid() != parent:
            os._exit(0)

    server.service_actions = end_with_parent  # type: ignore[method-assign]
    sys.stderr.write(f"{title}\n")
    server.serve_forever()


def _load() -> tuple[WSGIApplication, str]:
    """Return the service in the debugger, or a page with the traceback; and a line for the terminal."""
    try:
        app = load_app()
    except Exception:
        failure = traceback.format_exc()
        return Response(failure, 500), f"{failure}dev: the service cannot be loaded, waiting for a change"
    app.debug = True
    if "--sql" in sys.argv:
        SQL.setLevel("INFO")
        for engine in engines_of(app):
            event.listen(engine, "before_cursor_execute", _log_statement)
    debugged = DebuggedApplication(app, evalex=True, pin_logging=False)
    return debugged, f"dev: serving, Ctrl-C ends it; the PIN of the debugger is {debugged.pin}"


def _log_statement(connection: Any, cursor: Any, statement: str, parameters: Any, *about: Any) -> None:
    SQL.info("%s%s", " ".join(statement.split()), f"  {SHORT.repr(parameters)}" if parameters else "")


if __name__ == "__main__":
    inherited = [argument for argument in sys.argv if argument.startswith("--descriptor=")]
    if inherited:
        serve(int(inherited[0].partition("=")[2]))
    else:
        supervise()
