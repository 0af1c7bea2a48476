"""gevent's pywsgi tells clients that keep their connection when it is about to stop.

It would answer them on it until the grace is over, and then cut it under a request.
"""

from __future__ import annotations

import typing as t


def closing(handler_class: t.Any) -> t.Any:
    """Return a pywsgi handler that answers `Connection: close` once its server takes no new connection."""

    class Handler(handler_class):  # type: ignore[misc]
        def start_response(self, status: str, headers: list[tuple[str, str]], *args: t.Any) -> t.Any:
            if not self.server.started:
                headers = [*headers, ("Connection", "close")]
            return super().start_response(status, headers, *args)

    return Handler
