"""What proofs on real servers share: a copy of the project, and servers that are always ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .. import databases
from ..conftest import SECRET
from ..databases import Databases
from .harness import KINDS, SCALE, Kind, Project, Server, serving

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
    with serving(project, request.param, settings | getattr(request.module, "SETTINGS", {})) as server:
        yield server


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note for each proof which failure it is about, and on which server."""
    # A proof about a server that this project does not have is no proof that was skipped.
    items[:] = [item for item in items if not _is_about_no_server(item)]
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        kind = parameters.get("kind") or parameters.get("server")
        if isinstance(kind, Kind):
            title = (getattr(item, "module").__doc__ or "").partition("\n")[0]  # noqa: B009  # Functions have one.
            item.user_properties.append(("proof", (title, str(kind))))


def _is_about_no_server(item: pytest.Item) -> bool:
    skip = item.get_closest_marker("skip")
    return skip is not None and "empty parameter set" in skip.kwargs.get("reason", "")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which failure was proved absent on which server, after `make prove`."""
    if SCALE == 1:
        return
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            if proof := dict(report.user_properties).get("proof"):
                cells[tuple(proof)][outcome] += 1
    terminalreporter.section("proofs")
    terminalreporter.line(f"| | {' | '.join(map(str, KINDS))} |")
    terminalreporter.line("|---" * (len(KINDS) + 1) + "|")
    for title in dict.fromkeys(title for title, _ in cells):
        row = [_verdict(cells.get((title, str(kind)))) for kind in KINDS]
        terminalreporter.line(f"| {title} | {' | '.join(row)} |")
    terminalreporter.line("n/a: such a server has no other process, or no other request.")


def _verdict(outcomes: Counter[str] | None) -> str:
    if outcomes is None:
        return "n/a"
    if outcomes.keys() <= {"passed"}:
        return f"proved ({outcomes['passed']})"
    return ", ".join(
        f"{count} {outcome.upper()}" for outcome, count in outcomes.items() if outcome != "passed"
    )
