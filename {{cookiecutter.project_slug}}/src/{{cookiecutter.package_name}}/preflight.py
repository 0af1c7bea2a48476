"""Build the application once in a child of the server's master, before any worker exists.

A worker that cannot build it would be started again for ever, or its traceback would be printed
once for each worker. The child leaves the master as it was: nothing is imported there, so that
each worker still loads the code of its own day.

Importing this module is the check: uWSGI does it by shared-import, gunicorn.conf.py before it starts.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import sys
import tempfile
import traceback
from pathlib import Path


def _check() -> None:
    """Raise `SystemExit` with the status of the child when the application cannot be built."""
    child = os.fork()
    if child == 0:
        os._exit(_try_to_build())
    _, status = os.waitpid(child, 0)
    if exit_code := os.waitstatus_to_exitcode(status):
        raise SystemExit(exit_code if exit_code > 0 else 1)


def _try_to_build() -> int:
    try:
        if "uwsgi" in sys.modules:
            settings = importlib.import_module(f"{__package__}.settings")
            settings.check_uwsgi_address(settings.load_or_exit())
        importlib.import_module(f"{__package__}.wsgi")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _make_room_for_metrics() -> None:
    """Let all workers of this master count into one folder; gunicorn.conf.py does it for gunicorn."""
    # One that was there before uWSGI executed itself anew is used on, and what the user has named is not:
    # the folder is removed at the end.
    own = f"metrics-{os.getpid()}-"
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    if not Path(folder).name.startswith(own):
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=own)
    # What is locked, systemd does not clean up. Source: tmpfiles.d(5).
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)


_check()
if "uwsgi" in sys.modules and os.environ.get("METRICS_BIND"):
    _make_room_for_metrics()
