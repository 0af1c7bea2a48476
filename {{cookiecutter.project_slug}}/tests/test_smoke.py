"""The whole service, on the server that `make serve` starts. This file is yours."""

from __future__ import annotations

import signal
from pathlib import Path

from .foundation.fixtures import SECRET
from .foundation.servers import start_service

# Add the settings that your service requires.
SETTINGS = {"APP_ENV": "testing", "SECRET_KEY": SECRET}


def test_the_service_starts_answers_and_stops(database_url: str, tmp_path: Path) -> None:
    """The service starts on a migrated database, is ready, describes its API and exits with 0."""
    with start_service(tmp_path / "log", SETTINGS | {"DATABASE_URL": database_url}) as server:
        server.wait_until_ready()
        ready = server.get("/readyz")
        document = server.get("/openapi.json")
        server.signal(signal.SIGTERM)

        assert server.wait() == 0, server.log
    assert (ready.status, document.status) == (200, 200), server.log
    assert "Traceback" not in server.log
