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
from gevent.pool import Pool  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from {{cookiecutter.package_name}}.settings import load_or_exit, tcp_address  # noqa: E402
from {{cookiecutter.package_name}}.wsgi import app  # noqa: E402

GRACE = 25  # seconds a request in flight may take after SIGTERM


def main() -> None:
    """Serve until SIGTERM or SIGINT, then answer what is in flight."""
    # Only a pool is waited for at the end.
    server = WSGIServer(tcp_address(load_or_exit()), app, spawn=Pool(1000))
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.stop, GRACE)
    server.serve_forever(stop_timeout=GRACE)


if __name__ == "__main__":
    main()
