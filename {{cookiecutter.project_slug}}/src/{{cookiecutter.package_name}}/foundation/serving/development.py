"""Flask's own server, for development: `make serve SERVER=flask`. It stops like the other servers."""

import logging
import signal
import threading

from werkzeug.serving import WSGIRequestHandler, make_server

from ..configuration import SERVER_NAME, tcp_address
from ..loading import warm_up
from .project import load_app, load_settings


class QuietHandler(WSGIRequestHandler):
    def log_request(self, *args: object) -> None:
        """Log nothing: the application logs each request."""

    def version_string(self) -> str:
        return SERVER_NAME


def main() -> None:
    """Serve until SIGTERM or SIGINT, then answer the requests in flight."""
    address = tcp_address(load_settings().web_bind)
    server = make_server(*address, load_app(), threaded=True, request_handler=QuietHandler)
    server.daemon_threads = False  # type: ignore[attr-defined]  # A stop would drop their requests in flight.
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the loop that the signal interrupted, so another thread must call it.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    # Werkzeug's own lines contain colour escape codes.
    logging.getLogger(__name__).info("serving on http://%s:%s", *address)
    warm_up()
    server.serve_forever()


if __name__ == "__main__":
    main()
