"""The settings of gunicorn. `gunicorn` reads this file when it starts in this folder.

gunicorn ignores a name that it does not know, and takes any other as a setting: names of ours start with an
underscore, and a test checks every other one. The README explains numbers that have no reason here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from {{cookiecutter.package_name}}.foundation.serving import gunicorn as _foundation
from {{cookiecutter.package_name}}.foundation.serving.gunicorn import (  # noqa: F401
    on_exit,
    on_starting,
    post_fork,
    post_worker_init,
    pre_fork,
    when_ready,
    worker_exit,
)

for _name in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
    if f"_{_name}" in os.environ:  # gunicorn.pth has put it there.
        os.environ[_name] = os.environ.pop(f"_{_name}")
_settings = _foundation.prepare()

wsgi_app = "{{cookiecutter.package_name}}.wsgi:app"
bind = _foundation.addresses(_settings)

# -- processes ---------------------------------------------------------------------------------

worker_class = _foundation.worker_class(_settings)
workers = _settings.web_concurrency or min(2 * _foundation.cpus() + 1, 9)
_foundation.share_processors(workers)
# gunicorn would turn a sync worker that has threads into gthread.
threads = _settings.web_threads if _foundation.has_threads(_settings) else 1
# Loaded once, before the fork: a broken service never starts, memory is shared, and SIGHUP cannot
# put broken code in service. It loads no new code either: deploy by restart.
preload_app = _settings.web_preload
# The workers' heartbeat is a file: on a slow disk it would stop them.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
# Limits a leak. The jitter keeps the workers from restarting at the same moment.
max_requests = 10_000
max_requests_jitter = 2_000

# Connections that may wait: more than QUEUE_LIMIT times the rate of arrival.
backlog = _foundation.BACKLOG

# -- seconds -----------------------------------------------------------------------------------

# The grace period of requests in flight after SIGTERM.
graceful_timeout = _foundation.GRACE
# More than the idle timeout of the load balancer (60 in most), which would otherwise use a connection
# that is just being closed.
keepalive = 75

# -- the edge ----------------------------------------------------------------------------------

forwarded_allow_ips = _settings.forwarded_allow_ips
# The default trusts three headers, and rejects requests in which they contradict each other.
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
# The limit of nginx; the default is half of it.
limit_request_line = 8190
# One path for all gunicorns of a user: the second one takes the first one's socket away.
control_socket_disable = True

# -- logs --------------------------------------------------------------------------------------

# The application logs each request itself, on every server.
loglevel = _settings.log_level
logger_class = _foundation.Logger
