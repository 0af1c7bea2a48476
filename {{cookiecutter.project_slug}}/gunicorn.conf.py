"""How gunicorn runs the service. `gunicorn` reads this file when started in this folder.

gunicorn ignores a name it does not know, and takes one it knows as a setting whatever it was
meant for: names of ours start with an underscore, and a test checks every other one.
Numbers without a reason beside them are explained in the README.
"""

from __future__ import annotations

import faulthandler
import fcntl
import functools
import importlib
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import gunicorn
from gunicorn.glogging import Logger as _GunicornLogger

if os.environ.get("WEB_WORKER_CLASS", "").startswith("gevent"):
    # Before anything else is imported: preload loads the application, and psycopg chooses how it
    # waits, long before gunicorn patches. Queries would block the whole worker, without a warning.
    from gevent import monkey

    monkey.patch_all()

_SOURCE = Path(__file__).resolve().parent / "src"
sys.path.insert(0, str(_SOURCE))

# A bad setting ends gunicorn here with 78 (EX_CONFIG), once, whatever workers would do.
_settings = importlib.import_module("{{cookiecutter.package_name}}.settings").load_or_exit()
_logs = importlib.import_module("{{cookiecutter.package_name}}.logs")

# `Server: gunicorn` would tell a client what to attack; gunicorn reads the name when it is imported further.
gunicorn.SERVER = "web"

if _settings.metrics_bind:
    # All workers of this master count into one folder; the next master has its own.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="metrics-")
    # What is locked, systemd does not clean up. Source: tmpfiles.d(5).
    fcntl.flock(os.open(os.environ["PROMETHEUS_MULTIPROC_DIR"], os.O_RDONLY), fcntl.LOCK_EX)


def _cpus(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the processors this process may use: its affinity, cut down to the quota of its cgroup."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        own = next(line[4:] for line in process.read_text().splitlines() if line.startswith("0::/"))
        for folder in (root / own, *(root / own).parents):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, StopIteration, ValueError):
        pass  # The end of the hierarchy, or no cgroup of version 2: no further quota to be read.
    return max(1, count)


wsgi_app = "{{cookiecutter.package_name}}.wsgi:app"
# gunicorn finds sockets of systemd and of the master it replaces by itself; one that is named as well
# would be there twice, and work not once.
_inherited = not {"LISTEN_FDS", "GUNICORN_FD"}.isdisjoint(os.environ)
_web = [] if _inherited and _settings.web_bind.startswith("fd://") else [_settings.web_bind]
bind = [*_web, *([_settings.metrics_bind] if _settings.metrics_bind else [])]

# -- processes ---------------------------------------------------------------------------------

worker_class = _settings.web_worker_class
if worker_class == "gevent_pywsgi":
    _ggevent = importlib.import_module("gunicorn.workers.ggevent")
    _keepalive = importlib.import_module("{{cookiecutter.package_name}}.keepalive")
    _ggevent.GeventPyWSGIWorker.wsgi_handler = _keepalive.closing(_ggevent.PyWSGIHandler)
    # It would write what it thinks of a malformed request to stderr, as it stands.
    _ggevent.GeventPyWSGIWorker.server_class = staticmethod(
        functools.partial(_ggevent.PyWSGIServer, error_log=_logs.of_pywsgi())
    )
workers = _settings.web_concurrency or min(2 * _cpus() + 1, 9)
# gunicorn would make gthread of a sync worker that has threads.
threads = _settings.web_threads if worker_class == "gthread" else 1
# Loaded once, before the fork: a broken service never starts, memory is shared, and SIGHUP cannot
# put broken code in service. It loads no new code either: deploy by restart.
preload_app = _settings.web_preload
# The workers' heartbeat is a file: on a slow disk it would stop them.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
# A leak is bounded. The jitter keeps the workers from restarting at the same moment.
max_requests = 10_000
max_requests_jitter = 2_000

# -- seconds -----------------------------------------------------------------------------------

# How long requests in flight may take after SIGTERM; less than the supervisor's own deadline.
graceful_timeout = 25
# More than the idle timeout of what stands in front (60 at most load balancers), which would
# otherwise use a connection that is just being closed.
keepalive = 75

# -- the edge ----------------------------------------------------------------------------------

forwarded_allow_ips = _settings.forwarded_allow_ips
# The default believes three headers, and refuses requests in which they contradict each other.
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
# As long as nginx allows; the default is half of it.
limit_request_line = 8190
# One path for all gunicorns of a user: the second one takes the first one's socket away.
control_socket_disable = True

# -- logs --------------------------------------------------------------------------------------

# The application writes a line for each request (edge.py), under every server alike.
loglevel = _settings.log_level


class _Logger(_GunicornLogger):  # type: ignore[misc]
    """Write gunicorn's own lines as the application writes its."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(_logs.formatter(_settings.log_style))


logger_class = _Logger


# -- hooks -------------------------------------------------------------------------------------


def on_starting(server: Any) -> None:
    """Without preload, find out once, in the master, whether workers could load the service.

    SIGHUP becomes what SIGUSR2 is: of itself it loads no new code after a preload, and without one it
    ends the whole service when the new code is broken.
    """
    if not preload_app:
        importlib.import_module("{{cookiecutter.package_name}}.preflight")
    # A fork copies greenlets, and no threads: what one was to do, nobody does.
    early = threading.enumerate() if preload_app and not worker_class.startswith("gevent") else []
    for thread in early:
        if thread is not threading.main_thread():
            server.log.warning(
                "%s was started while the service was loaded, and runs in no worker:"
                " start it with the first request",
                thread.name,
            )
    server.handle_hup = server.handle_usr2 = lambda: _roll(server)
    os.register_at_fork(after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS))


def _roll(server: Any) -> None:
    """Start a new master on the same sockets; it ends this one when it is ready, or itself if it cannot."""
    if os.getpid() == 1 or "NOTIFY_SOCKET" in os.environ:
        server.log.warning("not rolled: a supervisor would take the end of this process for the end of all")
    else:
        server.reexec()


def on_exit(server: Any) -> None:
    """Remove the numbers of this master's workers."""
    if _settings.metrics_bind:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def when_ready(server: Any) -> None:
    """End the master that this one replaces, and tell how many connections its workers may open."""
    if server.master_pid:
        os.kill(server.master_pid, signal.SIGTERM)
    if not _settings.database_url.startswith("sqlite"):
        each = _settings.web_threads + 2  # The engine's pool, and what it may open for a moment.
        server.log.info(
            "up to %d database connections: %d processes x %d",
            server.num_workers * each,
            server.num_workers,
            each,
        )


# What the master ends its workers by, and Ctrl-C.
_ENDS = {signal.SIGTERM, signal.SIGQUIT, signal.SIGINT}


def pre_fork(server: Any, worker: Any) -> None:
    """Let signals wait that come to a worker before it knows what they mean.

    It inherits the master's handlers, which only note the signal for the master: a stop at that moment
    would wait for the whole of graceful_timeout.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)


def post_fork(server: Any, worker: Any) -> None:
    """Let a worker that has not begun yet end at once."""
    for number in _ENDS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)


def post_worker_init(worker: Any) -> None:
    """Let a worker that gunicorn aborts print the stacks of its threads, and end at once on Ctrl-C."""
    # gunicorn has replaced the handler of PYTHONFAULTHANDLER, and enable() alone would not set it again.
    faulthandler.disable()
    faulthandler.enable()
    if worker_class == "gthread":
        # Its own handler would first wait for its pool's lock, which the worker may hold as the signal comes.
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, super(type(worker), worker).handle_quit)


def worker_exit(server: Any, worker: Any) -> None:
    """Let no signal break into the end of a worker, as a traceback."""
    if os.getpid() == worker.pid:  # The master asks for this, too, when it finds that one has ended.
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)
