"""Fixtures of the proofs on real servers: a copy of the project, and servers that are always stopped."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from .. import databases
from ..databases import Databases
from ..fixtures import SECRET
from ..servers import KINDS, Kind, Project, Server, scale, serving

# SQLite has no sockets that two processes could share, and no server that could fail.
ABOUT_POSTGRESQL = ["test_fork.py", "test_database_faults.py", "test_pgbouncer.py"]
ABOUT_PACKAGES = {
    "nbclient": "test_notebooks.py",
    "opentelemetry": "test_tracing.py",
    "sentry_sdk": "test_error_reporting.py",
}
collect_ignore = [] if "postgresql" in databases.names() else ABOUT_POSTGRESQL
collect_ignore += [name for package, name in ABOUT_PACKAGES.items() if find_spec(package) is None]

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
    """Every way to serve, in turn, each started once per module, with the module's PROVOCATION."""
    project = Project(tmp_path_factory.mktemp("project"))
    if provocation := getattr(request.module, "PROVOCATION", None):
        project.provoke(provocation)
    settings = {"DATABASE_URL": own_databases.sampled(), "SECRET_KEY": SECRET}
    with serving(project, request.param, settings | getattr(request.module, "SETTINGS", {})) as server:
        yield server


@pytest.fixture
def launch(project: Project) -> Iterator[Start]:
    """Start servers with exactly the given settings, without waiting for them."""
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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the proofs with their failure and server, and skip those of `make prove` in other runs."""
    # A proof for a server that this project does not include does not count as skipped.
    items[:] = [item for item in items if not _is_about_no_server(item)]
    for item in filter(_is_ours, items):
        _mark(item)
    if scale() == 1:
        left_out = [item for item in items if _is_ours(item) and _is_thorough(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _mark(item: pytest.Item) -> None:
    if not item.get_closest_marker("every_server"):
        item.add_marker("proof")
    kind = _kind_of(item)
    # With `--dist loadgroup`, tests that share a server stay together, but modules do not.
    item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} on {kind}"))
    if kind:
        title = (getattr(item, "module").__doc__ or "").partition("\n")[0]  # noqa: B009  # Functions have one.
        item.user_properties.append(("proof", (title, str(kind))))


def _is_about_no_server(item: pytest.Item) -> bool:
    skip = item.get_closest_marker("skip")
    return skip is not None and "empty parameter set" in skip.kwargs.get("reason", "")


def _is_ours(item: pytest.Item) -> bool:
    return Path(__file__).parent in item.path.parents


def _is_thorough(item: pytest.Item) -> bool:
    if item.get_closest_marker("thorough"):
        return True
    kind = _kind_of(item)
    return kind is not None and not kind.usual and not item.get_closest_marker("every_server")


def _kind_of(item: pytest.Item) -> Kind | None:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    kind = parameters.get("kind") or parameters.get("server")
    return kind if isinstance(kind, Kind) else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After `make prove`, print which failure was proved absent on which server."""
    if scale() == 1:
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
    terminalreporter.line("n/a: the server has no other process or request, or needs a proxy for this.")


def _verdict(outcomes: Counter[str] | None) -> str:
    if outcomes is None:
        return "n/a"
    if outcomes.keys() <= {"passed"}:
        return f"proved ({outcomes['passed']})"
    return ", ".join(
        f"{count} {outcome.upper()}" for outcome, count in outcomes.items() if outcome != "passed"
    )
