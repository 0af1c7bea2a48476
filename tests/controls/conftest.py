"""Naive services on the servers of a generated project's own proofs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..foundation.servers import Kind, Server

PYTHONPATH = {"PYTHONPATH": str(Path(__file__).parent)}
Start = Callable[..., Server]


@dataclass
class Naive:
    """The folder of a naive service."""

    folder: Path


def gunicorn(*options: str, module: str = "naive") -> Kind:
    """Return the way to serve a module by gunicorn."""
    command = f'exec gunicorn {module}:app --bind "$WEB_BIND" {" ".join(options)}'
    return Kind(f"{module}-gunicorn", ("sh", "-c", command), PYTHONPATH, "gunicorn")


def uwsgi(*options: str, module: str = "naive") -> Kind:
    """Return the way to serve a module by uWSGI."""
    command = f'exec uwsgi --http-socket "$WEB_BIND" --module {module}:app --master {" ".join(options)}'
    return Kind(f"{module}-uwsgi", ("sh", "-c", command), PYTHONPATH, "pyuwsgi")


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Start]:
    """Start servers without waiting for them."""
    started: list[Server] = []

    def launch(kind: Kind, **settings: str) -> Server:
        started.append(Server(Naive(tmp_path), kind, settings))
        return started[-1]

    yield launch
    for server in started:
        server.kill()
