"""What proofs on real servers share: a copy of the project, and servers that are always ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .. import databases
from ..conftest import SECRET
from ..databases import Databases
from .harness import KINDS, Kind, Project, Server

# SQLite has no sockets that two processes could read from, and no server that could fail.
collect_ignore = [] if "postgresql" in databases.names() else ["test_fork.py", "test_database_faults.py"]

Start = Callable[..., Server]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project."""
    return Project(tmp_path / "project")


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every way to serve, in turn."""
    found: Kind = request.param
    return found


@pytest.fixture(scope="module", params=KINDS, ids=str)
def server(
    request: pytest.FixtureRequest, own_databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Every way to serve, in turn, each started once for a module; PROVOCATION there names what it adds."""
    project = Project(tmp_path_factory.mktemp("project"))
    if provocation := getattr(request.module, "PROVOCATION", None):
        project.provoke(provocation)
    settings = {"DATABASE_URL": own_databases.migrated(), "SECRET_KEY": SECRET}
    server = Server(project, request.param, settings | getattr(request.module, "SETTINGS", {}))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.kill()


@pytest.fixture
def launch(project: Project) -> Iterator[Start]:
    """Start servers without waiting for them; the settings are exactly those that are given."""
    started: list[Server] = []

    def launch(kind: Kind, **settings: str) -> Server:
        started.append(Server(project, kind, settings))
        return started[-1]

    yield launch
    for server in started:
        server.kill()


@pytest.fixture
def start(launch: Start, database_url: str) -> Start:
    """Start servers on a migrated database and wait until they serve."""

    def start(kind: Kind, **settings: str) -> Server:
        server = launch(kind, **{"DATABASE_URL": database_url, "SECRET_KEY": SECRET} | settings)
        server.wait_until_ready()
        return server

    return start
