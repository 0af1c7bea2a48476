"""gevent's own server, one process: `make serve SERVER=pywsgi`. Put a proxy in front of it.

It knows no timeout for a request or an idle connection.
"""

from __future__ import annotations

from gevent import monkey

# Before every other import: psycopg chooses how it waits when it is imported.
monkey.patch_all()

import signal  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from {{cookiecutter.package_name}}.settings import load_or_exit  # noqa: E402
from {{cookiecutter.package_name}}.wsgi import app  # noqa: E402

GRACE = 25  # seconds a request in flight may take after SIGTERM


def main() -> None:
    """Serve until SIGTERM or SIGINT, then answer what is in flight."""
    bind = load_or_exit().web_bind
    host, _, port = bind.rpartition(":")
    server = WSGIServer((host.strip("[]"), int(port)), app)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.stop, GRACE)
    server.serve_forever()


if __name__ == "__main__":
    main()
