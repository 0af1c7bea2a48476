"""The ports that tests get for their servers."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from . import processes


def test_two_test_processes_get_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that another process has reserved is not returned, although nothing listens there."""
    create_server = socket.create_server
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        reserved = other.getsockname()[1]
        ports = iter([reserved, reserved, 0])

        def listen(address: tuple[str, int]) -> Any:
            return create_server((address[0], next(ports)))

        monkeypatch.setattr(socket, "create_server", listen)

        assert processes.free_port() != reserved
