"""Behind PgBouncer in transaction mode no request fails, and no lock remains."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from ..databases import PostgreSQL
from ..fixtures import SECRET
from ..processes import Program, clean_environment, free_port, wait_until
from ..servers import KINDS, Kind, Project
from .conftest import Start

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed"),
]
# Few connections for many clients, so that one client's statements reach several backends.
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
"""


@pytest.fixture
def pooled(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database behind PgBouncer with its default configuration."""
    url = make_url(postgresql.empty())
    port = free_port()
    folder = tmp_path / "pgbouncer"
    folder.mkdir()
    values = {
        "host": url.query.get("host") or url.host or "127.0.0.1",
        "port": url.port or 5432,
        "user": url.username or "postgres",
        "password": url.password or "none",
        "listen": port,
    }
    (folder / "pgbouncer.ini").write_text(CONFIGURATION.format(**values))
    command = [str(PGBOUNCER), "pgbouncer.ini"]
    if os.geteuid() == 0:  # It refuses to run as root.
        for path in (folder, *folder.parents[:3]):
            path.chmod(0o755)
        # Only the user of an embedded server may use its socket.
        owner = Path(str(values["host"])).stat().st_uid if Path(str(values["host"])).is_dir() else 65534
        command = [str(PGBOUNCER), "--user", pwd.getpwuid(owner).pw_name, "pgbouncer.ini"]
    with Program(*command, cwd=folder, log=folder / "log", environment=clean_environment()) as program:
        wait_until(lambda: is_open(port) or program.process.poll() is not None, "PgBouncer listens")
        assert program.process.poll() is None, program.log
        yield f"postgresql://service:none@127.0.0.1:{port}/{url.database}"


def is_open(port: int) -> bool:
    """Return whether a port accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def migrate(project: Project, url: str, status: int = 0) -> str:
    """Run the migrations of the sample service through the pooler."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=project.folder,
        env=os.environ | {"DATABASE_URL": url, "DATABASE_POOL": "external", "SECRET_KEY": SECRET},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def locks(postgresql: PostgreSQL) -> list[tuple[object, ...]]:
    """Return the advisory locks held on the server."""
    with postgresql.engine.connect() as connection:
        found = connection.execute(text("SELECT pid, objid FROM pg_locks WHERE locktype = 'advisory'"))
        return [tuple(row) for row in found]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.usual], ids=str)
def test_no_request_fails_behind_a_pooler(start: Start, project: Project, pooled: str, kind: Kind) -> None:
    """Many clients write and read through few connections, and each gets its response."""
    migrate(project, pooled)
    server = start(kind, DATABASE_URL=pooled, DATABASE_POOL="external")

    def use(number: int) -> list[int]:
        created = server.post("/samples", {"text": str(number)})
        path, etag = created.headers["Location"], created.headers["ETag"]
        found = [created.status, server.get(path).status]
        return [*found, server.patch(path, {"text": "changed"}, etag).status]

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(use, range(120)))

    assert answers == [[201, 200, 200]] * 120, server.log
    assert server.get("/readyz").status == 200
    assert "statement_timeout is 0" in server.log
    assert "Traceback" not in server.log


def test_migrations_leave_no_lock_behind(postgresql: PostgreSQL, project: Project, pooled: str) -> None:
    """Migrations through the pooler exit with 0, twice in a row, and no advisory lock remains."""
    migrate(project, pooled)
    migrate(project, pooled)

    assert locks(postgresql) == []


def test_the_role_sets_the_deadline(
    start: Start, postgresql: PostgreSQL, project: Project, pooled: str
) -> None:
    """A deadline set on the database or the role applies, and then no warning is logged."""
    database = make_url(pooled).database
    postgresql.run(f"ALTER DATABASE \"{database}\" SET statement_timeout = '2s'")
    migrate(project, pooled)
    (kind, *_) = [kind for kind in KINDS if kind.usual]

    server = start(kind, DATABASE_URL=pooled, DATABASE_POOL="external")

    assert server.get("/readyz").status == 200
    assert "statement_timeout is 0" not in server.log
