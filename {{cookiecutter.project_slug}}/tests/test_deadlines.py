"""Deadlines, limits and ports are in order in every file that is here, whoever changes one of them.

Who waits has to be more patient than whom it waits for: a proxy that gives up first answers 504 for work
that is then committed, a supervisor that gives up first kills what would have been answered.
"""

from __future__ import annotations

import re

from {{cookiecutter.package_name}}.app import LONGEST_BODY
from {{cookiecutter.package_name}}.settings import Settings

from .databases import PROJECT

# Where a number stands: in which files, and behind what.
# A file that this project was made without is not asked for; what a file does not say is an error.
WEB = "deploy/kubernetes/base/deployment.yaml"
SERVICE = "deploy/systemd/{{cookiecutter.project_slug}}.service"
GRACE = {
    "gunicorn.conf.py": r"^graceful_timeout = ",
    "uwsgi.ini": r"^worker-reload-mercy = ",
    "pywsgi.py": r"^GRACE = ",
}
STOP = {
    "compose.yaml": r"^  web:\n(?:(?:    .*)?\n)*?    stop_grace_period: ",
    SERVICE: r"^TimeoutStopSec=",
    WEB: r"terminationGracePeriodSeconds: ",
}
BEFORE_STOP = {WEB: r"preStop:\s+sleep:\s+seconds: "}
PROXY = {"deploy/nginx/*.conf": r"_read_timeout "}
HARAKIRI = {"uwsgi.ini": r"^harakiri = "}
KEPT_BY_SERVER = {"gunicorn.conf.py": r"^keepalive = "}
KEPT_BY_PROXY = {"deploy/nginx/gunicorn.conf": r"^    keepalive_timeout "}
BODY = {"deploy/nginx/*.conf": r"client_max_body_size "}
HEADER_OF_PROXY = {"deploy/nginx/*.conf": r"large_client_header_buffers \d+ "}
HEADER_OF_SERVER = {"gunicorn.conf.py": r"^limit_request_line = ", "uwsgi.ini": r"^buffer-size = "}
MIGRATION = {"migrations/env.py": r"^LOCK_TIMEOUT = "}
CHECK = {"Dockerfile": r"HTTPConnection\(.*timeout="}
CHECKER = {"Dockerfile": r"--timeout="}
PORT = {
    "Dockerfile": r"(?:WEB_BIND=0\.0\.0\.0:|^EXPOSE |HTTPConnection\('127\.0\.0\.1', )",
    "compose.yaml": r'"127\.0\.0\.1:\d+:',
    WEB: r"name: http\n +containerPort: ",
    "deploy/kubernetes/base/network.yaml": r"name: [\w-]+-web\n(?:.*\n)*?.* port: ",
}
METRICS_PORT = {
    WEB: r"(?:prometheus\.io/port: \"|name: metrics\n +containerPort: |METRICS_BIND\n +value: 0\.0\.0\.0:)",
    "deploy/kubernetes/base/network.yaml": r"name: [\w-]+-metrics\n(?:.*\n)*?.* port: ",
}


def numbers(*places: dict[str, str]) -> dict[str, int]:
    """Return the numbers at some places by the name of their file, with their position there."""
    found: dict[str, int] = {}
    for pattern, before in ((pattern, place[pattern]) for place in places for pattern in place):
        for path in PROJECT.glob(pattern):
            matches = list(re.finditer(f"(?:{before})([0-9]+)", path.read_text(), re.MULTILINE))
            assert matches, f"{path} does not say {before}"
            found |= {f"{path.relative_to(PROJECT)}:{match.start(1)}": int(match[1]) for match in matches}
    return found


def assert_order(less: dict[str, int], more: dict[str, int]) -> None:
    """Check that each of some numbers is less than each of others."""
    wrong = [f"{a}={less[a]}, {b}={more[b]}" for a in less for b in more if less[a] >= more[b]]
    assert not wrong


def test_requests_in_flight_are_answered_before_a_supervisor_kills() -> None:
    waits = sum(numbers(BEFORE_STOP).values())
    stops = {place: stop - (waits if place.startswith(WEB) else 0) for place, stop in numbers(STOP).items()}

    assert_order(numbers(GRACE), stops)


def test_a_statement_ends_before_its_request_and_a_request_before_its_proxy_gives_up() -> None:
    statement = {"DATABASE_TIMEOUT": Settings.model_fields["database_timeout"].default}

    assert_order(statement, numbers(HARAKIRI, PROXY))
    assert_order(numbers(HARAKIRI), numbers(PROXY))


def test_a_statement_has_more_patience_than_the_migration_that_it_waits_for() -> None:
    statement = {"DATABASE_TIMEOUT": Settings.model_fields["database_timeout"].default}

    assert_order(numbers(MIGRATION), statement)


def test_a_kept_connection_is_closed_by_the_proxy_and_not_under_its_request() -> None:
    assert_order(numbers(KEPT_BY_PROXY), numbers(KEPT_BY_SERVER))


def test_a_body_that_is_too_long_is_too_long_for_everybody() -> None:
    assert {size * 1024 * 1024 for size in numbers(BODY).values()} <= {LONGEST_BODY}


def test_a_header_that_the_proxy_takes_the_server_takes() -> None:
    for size in numbers(HEADER_OF_PROXY).values():
        # A request line of gunicorn's is two characters, the end of the line, longer than it says.
        assert all(limit + 2 >= size * 1024 for limit in numbers(HEADER_OF_SERVER).values())


def test_a_health_check_ends_before_it_is_ended() -> None:
    assert_order(numbers(CHECK), numbers(CHECKER))


def test_everybody_means_the_same_port() -> None:
    default = Settings.model_fields["web_bind"].default.rpartition(":")[2]

    assert {str(port) for port in numbers(PORT).values()} <= {default}
    assert len({*numbers(METRICS_PORT).values()}) <= 1
