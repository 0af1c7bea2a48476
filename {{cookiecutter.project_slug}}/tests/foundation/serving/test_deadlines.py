"""Deadlines, limits, ports and paths are consistent across all files of the project.

A process must wait longer than the one it waits for: a proxy that gives up first returns 504 for work that
is then committed, and a supervisor that gives up first kills requests in flight.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import pytest

from {{cookiecutter.package_name}}.foundation.application import LONGEST_BODY
from {{cookiecutter.package_name}}.foundation.configuration import (
    GRACE,
    MAKE_KEY,
    OVERFLOW,
    QUEUE_LIMIT,
    ServiceSettings,
)
from {{cookiecutter.package_name}}.foundation.edge.bodies import LONGEST_REST
from {{cookiecutter.package_name}}.foundation.observability.requests import LIVEZ, READYZ

from ..databases import PROJECT

DEFAULTS: dict[str, Any] = {name: field.default for name, field in ServiceSettings.model_fields.items()}

# The places of each number: its files, and the pattern before it. Files missing from the project are skipped;
# a file without the number is an error.
WEB = "deploy/kubernetes/base/deployment.yaml"
SERVICE = "deploy/systemd/{{cookiecutter.project_slug}}.service"
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


def texts(places: dict[str, str]) -> dict[str, str]:
    """Return the text matched by each pattern's group, by file name and position."""
    found: dict[str, str] = {}
    for pattern, wanted in places.items():
        for path in PROJECT.glob(pattern):
            matches = list(re.finditer(wanted, path.read_text(), re.MULTILINE))
            assert matches, f"{path} does not say {wanted}"
            found |= {f"{path.relative_to(PROJECT)}:{match.start(1)}": match[1] for match in matches}
    return found


def numbers(*places: dict[str, str]) -> dict[str, int]:
    """Return the numbers at some places, by file name and position."""
    found = [texts({file: f"(?:{before})([0-9]+)" for file, before in place.items()}) for place in places]
    return {place: int(number) for each in found for place, number in each.items()}


def assert_order(less: Mapping[str, float], more: Mapping[str, float]) -> None:
    """Check that all of some numbers are less than all of others."""
    wrong = [f"{a}={less[a]}, {b}={more[b]}" for a in less for b in more if less[a] >= more[b]]
    assert not wrong


def test_requests_in_flight_end_before_a_supervisor_kills() -> None:
    """A server's grace period for requests in flight ends before its supervisor kills it."""
    waits = sum(numbers(BEFORE_STOP).values())
    stops = {place: stop - (waits if place.startswith(WEB) else 0) for place, stop in numbers(STOP).items()}

    assert_order({"GRACE": GRACE}, stops)


def test_statement_request_and_proxy_time_out_in_this_order() -> None:
    """A statement times out before its request, and a request before its proxy gives up."""
    statement = {"DATABASE_TIMEOUT": DEFAULTS["database_timeout"]}

    assert_order(statement, numbers(HARAKIRI, PROXY))
    assert_order(numbers(HARAKIRI), numbers(PROXY))


def test_a_probe_outwaits_the_queue() -> None:
    """Kubernetes waits longer for a probe than a request may wait for its turn."""
    queue = {"QUEUE_LIMIT": QUEUE_LIMIT / 1000}

    assert_order(queue, numbers({WEB: r"timeoutSeconds: "}))


def test_a_statement_outwaits_the_migration_before_it() -> None:
    """A statement waits longer than the lock timeout of the migration that it waits for."""
    statement = {"DATABASE_TIMEOUT": DEFAULTS["database_timeout"]}

    assert_order(numbers(MIGRATION), statement)


def test_the_proxy_closes_idle_connections_before_the_server() -> None:
    """The proxy closes an idle connection before the server could close it under a request."""
    assert_order(numbers(KEPT_BY_PROXY), numbers(KEPT_BY_SERVER))


def test_the_proxy_and_the_service_limit_bodies_alike() -> None:
    """The proxy and the service have the same limit for bodies."""
    assert {size * 1024 * 1024 for size in numbers(BODY).values()} <= {LONGEST_BODY}


def test_the_server_accepts_every_header_of_the_proxy() -> None:
    """The server accepts every header that the proxy accepts."""
    for size in numbers(HEADER_OF_PROXY).values():
        # gunicorn's limit does not count the two characters at the end of a request line.
        assert all(limit + 2 >= size * 1024 for limit in numbers(HEADER_OF_SERVER).values())


def test_a_health_check_times_out_before_its_runner() -> None:
    """A health check times out before the container engine stops it."""
    assert_order(numbers(CHECK), numbers(CHECKER))


def test_all_files_name_the_same_ports() -> None:
    """All files use the same port for the service, and one port for its metrics."""
    default = DEFAULTS["web_bind"].rpartition(":")[2]

    assert {str(port) for port in numbers(PORT).values()} <= {default}
    assert len({*numbers(METRICS_PORT).values()}) <= 1


# Each fact defined in Python, and its copies: a pattern with a group for each file.
COPIES: dict[str, tuple[object, dict[str, str]]] = {
    "GRACE": (GRACE, {"uwsgi.ini": r"^worker-reload-mercy = (\d+)"}),
    "web_threads": (DEFAULTS["web_threads"], {"uwsgi.ini": r"^threads = .* echo (\d+)\)$"}),
    "web_bind": (DEFAULTS["web_bind"], {"uwsgi.ini": r"^socket = .*WEB_BIND:-(\S+)}"}),
    "LONGEST_REST": (LONGEST_REST, {"uwsgi.ini": r"^chunked-input-limit = (\d+)"}),
    "LIVEZ": (
        LIVEZ,
        {
            "Dockerfile": r"request\('GET', '([^']+)'",
            WEB: r"(?:startup|liveness)Probe:\n +httpGet:\n +path: (\S+)",
        },
    ),
    "READYZ": (READYZ, {WEB: r"readinessProbe:\n +httpGet:\n +path: (\S+)"}),
    "EX_CONFIG": (
        os.EX_CONFIG,
        {
            SERVICE: r"^RestartPreventExitStatus=(.+)$",
            "deploy/kubernetes/base/migrate.yaml": r"values: \[(\d+)\]",
        },
    ),
    "MAKE_KEY": (MAKE_KEY.split("'")[1], {"bin/install": r"key=\$\(\.venv/bin/python -c '([^']+)'\)"}),
}


@pytest.mark.parametrize(("value", "places"), COPIES.values(), ids=COPIES)
def test_every_copy_is_what_python_defines(value: object, places: dict[str, str]) -> None:
    """Every file that repeats a fact of the foundation repeats its value."""
    found = texts(places)

    assert found == dict.fromkeys(found, str(value))


def test_the_workers_of_both_servers_are_replaced_as_often() -> None:
    """gunicorn and uWSGI replace a worker after the same number of requests."""
    places = {"gunicorn.conf.py": r"^max_requests = ([\d_]+)$", "uwsgi.ini": r"^max-requests = (\d+)$"}

    assert len({number.replace("_", "") for number in texts(places).values()}) == 1


WORDS = dict(zip(("one", "two", "three", "four", "five"), range(1, 6), strict=True))


def setting(file: str, pattern: str) -> str | None:
    """Return the value of a setting in a file, or None in a project without that file."""
    return next(iter(texts({file: pattern}).values()), None)


MOST_WORKERS = setting("gunicorn.conf.py", r"cpus\(\) \+ 1, (\d+)\)")
# Each fact, and the pattern of each sentence or comment that repeats it.
SAID: dict[str, tuple[object, str]] = {
    "OVERFLOW in a formula": (OVERFLOW, r"threads \+ (\d+)"),
    "OVERFLOW in words": (OVERFLOW, rf"(?:and |open |\()({'|'.join(WORDS)}|\d+) more\b"),
    "GRACE of a supervisor": (GRACE, r"than (?:the|their) (\d+) seconds"),
    "GRACE of requests": (GRACE, r"requests in flight \((\d+)\)"),
    "LONGEST_BODY": (LONGEST_BODY // 2**20, r"(\d+) MiB"),
    "EX_CONFIG": (os.EX_CONFIG, r"(?:status|exit code|code) \**(\d{2})\b"),
    "MAKE_KEY": (MAKE_KEY.split("'")[1], r"python3? -c '(import secrets[^']+)'"),
    "workers of gunicorn": (MOST_WORKERS, r"at most (\d+)[,;].*uWSGI"),
    "workers of uWSGI": (
        setting("uwsgi.ini", r"^processes = .* echo (\d+)\)$"),
        r"at most 9.*uWSGI (?:takes )?(\d+)",
    ),
    "requests of a worker": (setting("uwsgi.ini", r"^max-requests = (\d+)"), r"after ([\d,]+) requests"),
}
PROSE = ["README.md", "docs/*.md", ".env.example", "compose.yaml", "deploy/**/*.yaml", "deploy/**/*.service"]


@pytest.mark.parametrize(("value", "pattern"), SAID.values(), ids=SAID)
def test_every_sentence_says_what_holds(value: object, pattern: str) -> None:
    """Every sentence or comment that repeats a fact has its value."""
    said = [
        (path.name, str(WORDS.get(match[1], match[1])).replace(",", ""))
        for place in PROSE
        for path in PROJECT.glob(place)
        for match in re.finditer(pattern, path.read_text(), re.MULTILINE)
    ]

    assert value is None or [place for place in said if place[1] != str(value)] == []


# Each row of the table in docs/OPERATIONS.md, by its first setting, and the seconds that the files set.
TIMEOUTS: dict[str, Mapping[str, float]] = {
    "client_header_timeout": numbers({"deploy/nginx/*.conf": r"client_(?:header|body)_timeout "}),
    "proxy_read_timeout": numbers(PROXY),
    "harakiri": numbers(HARAKIRI),
    "QUEUE_LIMIT": {"production": QUEUE_LIMIT / 1000},
    "DATABASE_TIMEOUT": {"default": DEFAULTS["database_timeout"]},
    "LOCK_TIMEOUT": numbers(MIGRATION),
    "graceful_timeout": {"GRACE": GRACE},
    "TimeoutStopSec": numbers({file: before for file, before in STOP.items() if file != WEB}),
    "preStop": numbers(BEFORE_STOP),
    "terminationGracePeriodSeconds": numbers({WEB: STOP[WEB]}),
    "keepalive_timeout": numbers(KEPT_BY_PROXY),
    "keepalive": numbers(KEPT_BY_SERVER),
}


def test_the_table_of_timeouts_has_the_seconds_of_each_file() -> None:
    """The table of timeouts in docs/OPERATIONS.md has the seconds that the files set, and no other row."""
    text = (PROJECT / "docs" / "OPERATIONS.md").read_text()
    rows = dict(re.findall(r"^\| [^|]+ \| `(\w+)`[^|]* \| ([\d.]+) \|", text, re.MULTILINE))

    assert rows.keys() == TIMEOUTS.keys()
    for name, seconds in TIMEOUTS.items():
        assert set(seconds.values()) <= {float(rows[name])}, name


def test_the_connections_of_all_pods_are_added_up_right() -> None:
    """The comment on the connections of all pods multiplies the numbers of the manifests."""
    for path in PROJECT.glob("deploy/kubernetes/base/autoscaling.yaml"):
        pods, processes, threads = (
            int(setting(file, before + r"(\d+)") or 0)
            for file, before in (
                ("deploy/kubernetes/base/autoscaling.yaml", "maxReplicas: "),
                (WEB, 'WEB_CONCURRENCY\n +value: "'),
                (WEB, 'WEB_THREADS\n +value: "'),
            )
        )
        each = threads + OVERFLOW
        assert f": {pods} x {processes} x {each} = {pods * processes * each}." in path.read_text()
