"""Checks and preparations in a server's master. Run as a module, it checks the code before a reload.

The application is built once in a child process: a worker that cannot build it would be restarted endlessly,
and the master must not import it, so that each worker loads the current code.
"""

import fcntl
import importlib
import math
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Each of these libraries starts one thread per processor in every worker.
LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def check(*also: Callable[[], None]) -> None:
    """Raise `SystemExit` with the child's exit code if the application or another check fails."""
    child = os.fork()
    if child == 0:
        exit_code = _build(*also)
        sys.stdout.flush()
        os._exit(exit_code)
    before = signal.signal(signal.SIGTERM, partial(_stop, child))
    exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.signal(signal.SIGTERM, before)
    if exit_code:
        raise SystemExit(exit_code if exit_code > 0 else 1)


def _stop(child: int, number: int, frame: object) -> None:
    """Terminate the child, which holds the server's socket, and then this process by the same signal."""
    os.kill(child, signal.SIGKILL)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _build(*also: Callable[[], None]) -> int:
    # This process has no metrics: it must not take a slot in the folder, which may be the operator's.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    try:
        for further in also:
            further()
        importlib.import_module(f"{__package__}.project").load_app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def make_metrics_folder() -> None:
    """Create a folder for the metrics of all workers. It is never the user's own: it is removed at exit."""
    own = f"metrics-{os.getpid()}-"
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    # uWSGI re-executes itself on a reload and keeps its process id, so it continues in the same folder.
    if not Path(folder).name.startswith(own):
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=own)
    # systemd's clean-up of temporary folders skips locked folders. Source: tmpfiles.d(5).
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)


def cpus(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of usable processors: the CPU affinity, limited by the cgroup's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        own = next(line[4:] for line in process.read_text().splitlines() if line.startswith("0::/"))
        for folder in (root / own, *(root / own).parents):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, StopIteration, ValueError):
        pass  # The root of the hierarchy, or no cgroup v2: there is no other quota.
    return max(1, count)


def share_processors(workers: int) -> None:
    """Limit the threads of numeric libraries to a worker's share of the processors, unless a variable is set.

    They read the variables when imported, so these are set before the application is loaded.
    """
    for name in LIBRARY_THREADS:
        os.environ.setdefault(name, str(max(1, cpus() // workers)))


if __name__ == "__main__":
    check()
