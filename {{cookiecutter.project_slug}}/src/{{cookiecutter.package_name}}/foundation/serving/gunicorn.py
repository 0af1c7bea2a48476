"""gunicorn: values and hooks for gunicorn.conf.py, which the master reads before any worker exists."""

import os

if os.environ.get("WEB_WORKER_CLASS", "").startswith("gevent"):
    # Before any other import: preload loads the application, and psycopg chooses how it waits, long before
    # gunicorn patches. Otherwise queries would silently block the whole worker.
    from gevent import monkey

    monkey.patch_all()

import faulthandler
import functools
import shutil
import signal
import threading
from typing import Any

import gunicorn
from gunicorn.glogging import Logger as GunicornLogger

from ..configuration import BACKLOG as BACKLOG
from ..configuration import GRACE as GRACE  # gunicorn.conf.py reads it here, after the patch above.
from ..configuration import (
    SERVER_NAME,
    ConfigurationError,
    ServiceSettings,
    exit_with,
    refuse_closed_descriptor,
)
from ..loading import warm_up
from ..observability import logs
from . import preflight
from .preflight import cpus as cpus
from .preflight import share_processors as share_processors
from .project import load_settings

ENDS = {signal.SIGTERM, signal.SIGQUIT, signal.SIGINT}  # stop workers: from the master or by Ctrl-C


def prepare() -> ServiceSettings:
    """Prepare gunicorn and return the settings. Invalid settings exit here with 78, once."""
    settings = load_settings()
    if os.environ.get(
        "SCRIPT_NAME"
    ):  # gunicorn would reject every path without it, including those of probes.
        exit_with(ConfigurationError("SCRIPT_NAME is a setting of gunicorn: set URL_PREFIX in place of it"))
    gunicorn.SERVER = SERVER_NAME  # gunicorn reads the name when it imports other modules.
    if settings.metrics_bind:  # All workers of this master share one folder; the next master has its own.
        preflight.make_metrics_folder()
    if settings.web_worker_class == "gevent_pywsgi":
        from gunicorn.workers import ggevent

        from .pywsgi import close_on_stop, error_log

        ggevent.GeventPyWSGIWorker.wsgi_handler = close_on_stop(ggevent.PyWSGIHandler)
        # Otherwise it writes raw client input to stderr.
        server_class = functools.partial(ggevent.PyWSGIServer, error_log=error_log())
        ggevent.GeventPyWSGIWorker.server_class = staticmethod(server_class)
    return settings


def has_threads(settings: ServiceSettings) -> bool:
    """Return whether each worker has threads for requests."""
    return settings.web_worker_class in {"gthread", "gthread_patient"}


def worker_class(settings: ServiceSettings) -> str:
    """Return the name by which gunicorn loads the worker class."""
    name = settings.web_worker_class
    return f"{__package__}.gthread_patient.Worker" if name == "gthread_patient" else name


def addresses(settings: ServiceSettings) -> list[str]:
    """Return the addresses to listen on, except an inherited socket, which gunicorn finds itself."""
    inherited = "GUNICORN_FD" in os.environ or os.environ.get("LISTEN_PID") == str(os.getpid())
    refuse_closed_descriptor("" if inherited else settings.web_bind)
    web = None if inherited and settings.web_bind.startswith("fd://") else settings.web_bind
    return [address for address in (web, settings.metrics_bind) if address]


class Logger(GunicornLogger):
    """Write gunicorn's own lines in the format of the application."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(logs.formatter(load_settings().log_style))

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log one line if an address cannot be bound: gunicorn logs two for each of its five attempts."""
        if msg.startswith("connection to "):
            self.reason = msg
        elif msg.startswith("Can't connect to "):
            super().error("%s", self.reason)
        elif not msg.startswith(("Connection in use: ", "Invalid address: ")):
            super().error(msg, *args, **kwargs)


def on_starting(server: Any) -> None:
    """Check that workers can load the service, and let SIGHUP start a new master, as SIGUSR2 does."""
    if not server.cfg.preload_app:
        preflight.check()
    elif not server.cfg.worker_class_str.startswith("gevent"):  # A fork copies greenlets but not threads.
        for thread in set(threading.enumerate()) - {threading.main_thread()}:
            problem = "was started while the service was loaded, and runs in no worker"
            server.log.warning("%s %s: start it with the first request", thread.name, problem)
    # With preload, gunicorn's own SIGHUP loads no new code; without, broken code stops the service.
    server.handle_hup = server.handle_usr2 = functools.partial(_roll, server)
    os.register_at_fork(after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS))


def _roll(server: Any) -> None:
    """Start a new master on the same sockets. It stops this one when it is ready, or exits if it fails."""
    if os.getpid() == 1 or "NOTIFY_SOCKET" in os.environ:
        server.log.warning("not rolled: a supervisor would treat this process's exit as the service's")
    else:
        server.reexec()


def on_exit(server: Any) -> None:
    """Remove the metrics of this master's workers."""
    if load_settings().metrics_bind:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def when_ready(server: Any) -> None:
    """Stop the master that this one replaces, and log how many connections its workers may open."""
    if server.master_pid:
        os.kill(server.master_pid, signal.SIGTERM)
    settings, workers = load_settings(), server.num_workers
    if not settings.database_url.startswith("sqlite"):
        counts = workers * settings.connections, workers, settings.connections
        server.log.info("up to %d database connections: %d processes x %d", *counts)


def pre_fork(server: Any, worker: Any) -> None:
    """Block the signals that end a worker until it can handle them."""
    # It inherits the master's handlers, which only record a signal: a stop would take graceful_timeout.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)


def post_fork(server: Any, worker: Any) -> None:
    """Let signals terminate a worker immediately until it has set its handlers."""
    for number in ENDS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def post_worker_init(worker: Any) -> None:
    """Let an aborted worker print its threads' stacks, and a worker exit on Ctrl-C; start the warm-ups."""
    # gunicorn has replaced the handler, and enable() alone would not set it again.
    faulthandler.disable()
    faulthandler.enable()
    if has_threads(load_settings()):
        from gunicorn.workers.gthread import ThreadWorker

        # gunicorn's handler would wait for the pool's lock, which the worker may be holding.
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, super(ThreadWorker, worker).handle_quit)
    warm_up()


def worker_exit(server: Any, worker: Any) -> None:
    """Ignore signals while a worker exits: a signal would cause a traceback."""
    if os.getpid() == worker.pid:  # The master also calls this, when it finds that a worker has exited.
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)
