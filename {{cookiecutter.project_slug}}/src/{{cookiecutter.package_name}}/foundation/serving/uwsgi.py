"""uWSGI: its permitted addresses, and the preparations of its master, which runs this by `shared-import`."""

import os
import sys

from . import preflight


def check_address() -> None:
    """End the process with 78 where uWSGI cannot listen, or where clients could reach it without a proxy."""
    # Imported here, in the child of the preflight: the master must load no code that a reload replaces.
    from ..configuration import ConfigurationError, exit_with, is_loopback, refuse_closed_descriptor
    from .project import load_settings

    settings = load_settings()
    bind, protocol = settings.web_bind, settings.web_protocol
    refuse_closed_descriptor(bind)
    # uWSGI reads malformed requests differently from a proxy, and its own protocol trusts every peer.
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


if "uwsgi" in sys.modules:
    preflight.share_processors(sys.modules["uwsgi"].numproc)
    preflight.check(check_address)
    if os.environ.get("METRICS_BIND"):
        preflight.make_metrics_folder()
