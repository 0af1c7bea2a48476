"""Flask's own server, for development: `make serve SERVER=flask`. It ends like the others do."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from werkzeug.serving import WSGIRequestHandler, make_server

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from {{cookiecutter.package_name}}.settings import load_or_exit, tcp_address
from {{cookiecutter.package_name}}.wsgi import app


class QuietHandler(WSGIRequestHandler):
    """Write no line for a request: the application does (edge.py)."""

    def log_request(self, *args: object) -> None:
        pass

    def version_string(self) -> str:
        return "web"


def main() -> None:
    """Serve until SIGTERM or SIGINT, then answer what is in flight."""
    server = make_server(
        *tcp_address(load_or_exit().web_bind), app, threaded=True, request_handler=QuietHandler
    )
    # `flask run` marks its threads as daemons, and a stop cuts their requests off.
    server.daemon_threads = False  # type: ignore[attr-defined]
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the loop that the signal has interrupted, so another thread calls it.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    server.log_startup()
    server.serve_forever()


if __name__ == "__main__":
    main()
