"""The files of prometheus_client's multiprocess mode, named by slot. Import it before any metric is defined.

The library names its files by process id, and keeps those of exited processes. A slot is the lowest number
not locked by a running process, so a new process reuses the files of an exited one. PROMETHEUS_MULTIPROC_DIR
names the folder (serving/preflight.py); without it, metrics stay in memory.

State of the process: `_slot` and `problem` here; `ValueClass` and `MmapedDict` of `prometheus_client.values`,
which are replaced. Source: prometheus_client, "Multiprocess Mode".
"""

import fcntl
import itertools
import mmap
import os
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.values import MmapedDict, MultiProcessValue, MutexValue  # type: ignore[attr-defined]

FOLDER = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
FIRST_SIZE = 65536  # bytes, about 20 label sets of a histogram; a full file doubles in size

# The reason why a value could not be stored, logged elsewhere: here the library holds a lock, and a log
# handler that counts lines would wait for it.
problem = ""

_slot: "Slot | None" = None


def text() -> bytes:
    """Return the metrics of all processes in Prometheus's text format."""
    if not FOLDER:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    if Path(FOLDER).is_dir():
        for number in {int(gauge.stem.rpartition("_")[2]) for gauge in Path(FOLDER).glob("gauge_live*.db")}:
            if (file := _lock(number)) >= 0:  # Its process has exited.
                mark_process_dead(number)  # type: ignore[no-untyped-call]
                os.close(file)
        MultiProcessCollector(registry, FOLDER)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class Slot:
    """A number unique among running processes.

    Slots compare by identity, so a child's slot never equals its parent's, and the library opens new files.
    """

    def __init__(self) -> None:
        self.process, self.number, self.file = os.getpid(), -1, -1
        try:
            self.number, self.file = next((n, file) for n in itertools.count() if (file := _lock(n)) >= 0)
            mark_process_dead(self.number)  # type: ignore[no-untyped-call]
        except OSError as error:
            _note(error)

    def __str__(self) -> str:
        return str(self.number)


def _current_slot() -> Slot:
    """Return the slot of this process; the library calls this before each change of a value."""
    global _slot
    if not _slot or _slot.process != os.getpid():
        leave_slot()
        _slot = Slot()
    return _slot


def leave_slot() -> None:
    """Close the inherited lock: a child would keep the slot locked after its parent exits."""
    global _slot
    if _slot and _slot.file >= 0:
        os.close(_slot.file)
    _slot = None


def _lock(number: int) -> int:
    """Lock a slot until its file is closed or the process exits; return -1 if another process holds it."""
    folder = Path(FOLDER or "")
    folder.mkdir(0o700, exist_ok=True)  # The file may have been removed.
    file = os.open(folder / f"slot_{number}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return -1
    return file


def _note(error: Exception) -> None:
    global problem
    problem = problem or str(error) or repr(error)


class SlotFile(MmapedDict):
    """The values of a slot. A value without space stays in memory, and is stored on its next change."""

    def __init__(self, filename: str) -> None:
        self._path = Path(filename)
        self._f: Any = None
        self._positions = {}

    # A metric that cannot be stored fails no request.

    def read_value(self, key: str) -> tuple[float, float]:
        try:
            return super().read_value(key)  # type: ignore[no-any-return, no-untyped-call]
        except Exception as error:
            _note(error)
            return 0.0, 0.0

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        try:
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        except Exception as error:
            _note(error)

    def _init_value(self, key: str) -> None:
        if not self._f:
            self._open()
        if key not in self._positions:
            while self._used + len(key.encode()) + 32 > self._capacity:
                _fill(self._f.fileno(), 2 * self._capacity)
                self._m = mmap.mmap(self._f.fileno(), 2 * self._capacity)
                self._capacity *= 2
            super()._init_value(key)  # type: ignore[no-untyped-call]

    def _open(self) -> None:
        if not os.fstat(_current_slot().file).st_nlink:  # Another process may now have the number.
            raise FileNotFoundError(f"{FOLDER} has been removed")
        if not self._path.exists():
            new = self._path.with_suffix(".new")  # A reader sees the complete file or none.
            with new.open("ab") as file:
                _fill(file.fileno(), FIRST_SIZE)
            new.rename(self._path)
        try:
            super().__init__(str(self._path))  # type: ignore[no-untyped-call]
        except BaseException:
            self._f = None
            raise


def _fill(file: int, size: int) -> None:
    """Write zeros up to this size. Without blocks, a write to the mapping on a full disk raises SIGBUS."""
    while (missing := size - os.fstat(file).st_size) > 0:
        os.write(file, bytes(missing))


values.MmapedDict = SlotFile  # type: ignore[attr-defined, assignment]
values.ValueClass = MultiProcessValue(_current_slot) if FOLDER else MutexValue  # type: ignore[no-untyped-call]
