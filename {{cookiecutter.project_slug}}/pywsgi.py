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
from gevent.pywsgi import WSGIHandler, WSGIServer  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from {{cookiecutter.package_name}} import logs  # noqa: E402
from {{cookiecutter.package_name}}.keepalive import closing  # noqa: E402
from {{cookiecutter.package_name}}.settings import load_or_exit, tcp_address  # noqa: E402
from {{cookiecutter.package_name}}.wsgi import app  # noqa: E402

GRACE = 25  # seconds a request in flight may take after SIGTERM


def main() -> None:
    """Serve until SIGTERM or SIGINT, then answer what is in flight."""
    settings = load_or_exit()
    servers = [serve(address) for address in (settings.web_bind, settings.metrics_bind) if address]
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, lambda: gevent.joinall([gevent.spawn(s.stop, GRACE) for s in servers]))
    for server in servers[1:]:
        server.start()
    servers[0].serve_forever(stop_timeout=GRACE)


def serve(address: str) -> WSGIServer:
    """Return a server of the application; each request has its line in the log from the application."""
    return WSGIServer(
        tcp_address(address),
        app,
        spawn=Pool(1000),  # Only a pool is waited for at the end.
        handler_class=closing(WSGIHandler),
        log=None,
        error_log=logs.of_pywsgi(),
    )


if __name__ == "__main__":
    main()
