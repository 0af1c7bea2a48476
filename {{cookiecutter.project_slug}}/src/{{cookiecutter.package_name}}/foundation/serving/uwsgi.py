"""uWSGI: permitted addresses and the preparation of the master, which imports this by `shared-import`."""

import os
import signal
import sys

from . import preflight


def check_address() -> None:
    """Exit with 78 if uWSGI cannot listen, or if clients could reach it without a proxy."""
    # Imported here, in the preflight's child: the master must not load code that a reload replaces.
    from ..configuration import ConfigurationError, exit_with, is_loopback, refuse_closed_descriptor
    from .project import load_settings

    settings = load_settings()
    bind, protocol = settings.web_bind, settings.web_protocol
    refuse_closed_descriptor(bind)
    # uWSGI parses malformed requests differently from a proxy, and its own protocol trusts every peer.
    is_local = bind.startswith("fd://") or is_loopback(bind.rpartition(":")[0])
    if bind.startswith("unix:"):
        problem = "names a socket file, uWSGI needs host:port, or fd://3 for systemd's socket"
    elif is_local or protocol == "http" or (protocol is None and settings.app_env != "production"):
        return
    elif protocol == "uwsgi":
        problem = "lets other machines speak the uwsgi protocol"
    else:
        problem = "lets clients reach uWSGI, which accepts malformed requests: bind 127.0.0.1 and put a proxy"
        problem += " in front, or set WEB_PROTOCOL=http where only a proxy can reach this address"
    exit_with(ConfigurationError(f"WEB_BIND={bind} {problem}"))


def end_new_workers() -> None:
    """Let a newly forked worker exit on its master's signal.

    It inherits an ignored SIGHUP and would miss the signal: the master would wait forever.
    """

    def begin_worker() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP}),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP}),
        after_in_child=begin_worker,
    )


if "uwsgi" in sys.modules:
    # uWSGI ignores it until all workers are forked. This stops the master, and no-orphans its workers.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    preflight.share_processors(sys.modules["uwsgi"].numproc)
    preflight.check(check_address)
    if os.environ.get("METRICS_BIND"):
        preflight.make_metrics_folder()
    end_new_workers()
