"""gevent's own server, one process: `make serve SERVER=pywsgi`. It has no timeouts: put a proxy in front."""

if __name__ == "__main__":
    # Before any other import: psycopg chooses how it waits when it is imported.
    from gevent import monkey

    monkey.patch_all()

import contextlib
import logging
import signal
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.pywsgi import LoggingLogAdapter, WSGIHandler, WSGIServer

from ..configuration import GRACE, listen
from ..loading import warm_up
from .project import load_app, load_settings


def main() -> None:
    """Serve until SIGTERM or SIGINT, then answer the requests in flight."""
    settings = load_settings()
    servers = [_server(address) for address in (settings.web_bind, settings.metrics_bind) if address]
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, lambda: gevent.joinall([gevent.spawn(s.stop, GRACE) for s in servers]))
    warm_up()
    for server in servers[1:]:
        server.start()
    servers[0].serve_forever(stop_timeout=GRACE)


def _server(address: str) -> WSGIServer:
    # Only a pool is waited for at shutdown. The application logs each request.
    options = {"spawn": Pool(1000), "log": None, "error_log": error_log()}
    return WSGIServer(listen(address), load_app(), handler_class=close_on_stop(WSGIHandler), **options)


def error_log() -> LoggingLogAdapter:
    """Return the log for malformed requests, as warnings, because the errors are the clients'."""
    return LoggingLogAdapter(logging.getLogger("pywsgi"), logging.WARNING)


def close_on_stop(handler_class: Any) -> Any:
    """Return a handler that closes idle connections at shutdown, and logs no traceback of client errors."""

    class Handler(handler_class):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # The client disconnected before its 400.
                super().handle()

        def _handle_client_error(self, error: Exception) -> Any:  # gevent prints all other errors.
            return super()._handle_client_error(error if isinstance(error, ValueError) else ValueError(error))

        def get_environ(self) -> Any:
            environ = super().get_environ()
            environ["pywsgi.socket"] = self.socket  # edge/overload.py reads it.
            return environ

        def start_response(self, status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
            if not self.server.started:
                headers = [*headers, ("Connection", "close")]
            return super().start_response(status, headers, *args)

    return Handler


if __name__ == "__main__":
    main()
