"""The options of uwsgi.ini; proofs/ proves them on running servers."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest

from {{cookiecutter.package_name}}.foundation.serving import project as served
from {{cookiecutter.package_name}}.foundation.serving import uwsgi

from ..databases import PROJECT
from ..fixtures import SECRET, make_settings
from ..servers import UWSGI, Project, Server, free_port

LINES = (PROJECT / "uwsgi.ini").read_text().splitlines()
OPTIONS = dict(re.split(r"\s*=\s*", line, maxsplit=1) for line in LINES if re.match(r"[a-z]", line))


@pytest.mark.parametrize(
    ("option", "harm"),
    [
        ("die-on-term", "drops the requests in flight"),
        ("py-call-osafterfork", "ends every worker on Python 3.13"),
        ("reload-on-exception", "ends the other threads' requests, and leaves their locks held"),
        ("thunder-lock", "keeps the threads of an idle worker from ending when it is replaced"),
        ("http11-socket", "ignores Connection: close"),
        ("post-buffering", "puts a body into a file, however long it is, before the service can refuse it"),
    ],
)
def test_no_harmful_option_is_used(option: str, harm: str) -> None:
    """uwsgi.ini uses no harmful option."""
    assert option not in OPTIONS, harm


def test_a_stop_fits_into_the_deadline_of_supervisors() -> None:
    """The grace period of a stop is shorter than a supervisor's deadline."""
    assert int(OPTIONS["worker-reload-mercy"]) < 30


def test_a_misspelt_option_keeps_the_server_from_starting(tmp_path: Path) -> None:
    """A misspelt option prevents startup, and the log names it."""
    project = Project(tmp_path / "project")
    project.append("uwsgi.ini", "harakir = 60\n")

    server = Server(project, UWSGI, {"DATABASE_URL": "sqlite:///app.db", "SECRET_KEY": SECRET})

    try:
        assert server.wait() == 1
        assert "unknown config directive: harakir" in server.log
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("WEB_BIND", {"": "127.0.0.1:8000", "[::1]:80": "[::1]:80", ":80": ":80", "fd://3": "fd://3"}),
        (
            "WEB_BIND",
            dict.fromkeys(("nonsense", "unix:/a", "/etc/passwd:80", "1 2:3", "fd://x"), "127.0.0.1:0"),
        ),
        ("METRICS_BIND", {"": "", "0.0.0.0:9100": "http-socket = 0.0.0.0:9100"}),
        ("METRICS_BIND", dict.fromkeys(("nonsense", "unix:/a", "/etc/passwd:80", "fd://3", "host7"), "")),
        ("WEB_CONCURRENCY", {"": "4", "2": "2", "512": "512"}),
        ("WEB_CONCURRENCY", dict.fromkeys(("auto", "0", "-1", "99999", "+2", " 2", "2.0"), "4")),
        ("WEB_THREADS", {"": "4", "8": "8", "x": "4"}),
    ],
)
def test_a_value_that_uwsgi_would_misread_is_replaced(name: str, values: dict[str, str]) -> None:
    """uWSGI uses the default for an empty variable, and a safe value for an invalid one, until it exits."""
    commands = [line.partition("exec://")[2].removesuffix(")") for line in LINES if "exec://" in line]
    [command] = [command for command in commands if name in command]

    found = {
        value: re.sub(r"\[uwsgi\]\nlisten = \d+\n", "", sh(command, **{name: value})) for value in values
    }

    assert found == {value: read and f"{read}\n" for value, read in values.items()}


def test_the_queue_is_no_longer_than_the_kernel_allows() -> None:
    """The queue has 4096 places, or the kernel's maximum, above which uWSGI does not start."""
    [command] = [line.partition("exec://")[2] for line in LINES if "somaxconn" in line]

    for allowed, used in {"65536": 4096, "128": 128, "": 4096}.items():
        own = command.replace("cat /proc/sys/net/core/somaxconn", f"echo {allowed}" if allowed else "false")
        assert own != command
        assert sh(own) == f"[uwsgi]\nlisten = {used}\n"


def sh(command: str, **variables: str) -> str:
    """Return the output of a command that uWSGI runs when it reads its file."""
    environment = {"PATH": "/usr/bin:/bin", **variables}
    return subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("bind", "protocol", "env"),
    [
        ("127.0.0.1:8000", None, "production"),
        ("[::1]:8000", "uwsgi", "production"),
        ("localhost:8000", "http", "production"),
        ("fd://3", "uwsgi", "production"),
        ("0.0.0.0:8000", "http", "production"),
        ("0.0.0.0:8000", None, "development"),
    ],
)
def test_uwsgi_may_listen_locally_or_behind_a_proxy(
    bind: str, protocol: str | None, env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uWSGI may listen where only this machine or a proxy can connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = bind.replace("fd://3", f"fd://{listener.fileno()}")
        chosen = make_settings("sqlite:///app.db", web_bind=bind, web_protocol=protocol, app_env=env)
        monkeypatch.setattr(served, "load_settings", lambda: chosen)

        uwsgi.check_address()


@pytest.mark.parametrize(
    ("bind", "protocol", "env"),
    [
        ("0.0.0.0:8000", None, "production"),
        (":8000", None, "production"),
        ("10.0.0.1:8000", None, "production"),
        ("web.internal:8000", None, "production"),
        ("0.0.0.0:8000", "uwsgi", "production"),
        ("0.0.0.0:8000", "uwsgi", "development"),
        ("unix:/run/app.sock", None, "development"),
    ],
)
def test_uwsgi_does_not_listen_where_clients_could_reach_it(
    bind: str,
    protocol: str | None,
    env: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """uWSGI exits with 78 instead of listening where clients could reach it."""
    chosen = make_settings("sqlite:///app.db", web_bind=bind, web_protocol=protocol, app_env=env)
    monkeypatch.setattr(served, "load_settings", lambda: chosen)

    with pytest.raises(SystemExit) as ended:
        uwsgi.check_address()

    assert ended.value.code == 78
    assert capsys.readouterr().err.startswith("configuration error: WEB_BIND")


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ({}, "lets clients reach uWSGI, which accepts malformed requests"),
        ({"WEB_PROTOCOL": "uwsgi"}, "lets other machines speak the uwsgi protocol"),
    ],
    ids=["http", "uwsgi"],
)
def test_clients_cannot_reach_uwsgi_without_a_proxy(
    protocol: dict[str, str], reason: str, tmp_path: Path
) -> None:
    """uWSGI exits with 78 and the reason if clients could reach it without a proxy."""
    settings = {
        "DATABASE_URL": "sqlite:///app.db",
        "SECRET_KEY": SECRET,
        "WEB_BIND": f"0.0.0.0:{free_port()}",
    }

    server = Server(Project(tmp_path / "project"), UWSGI, settings | protocol)

    try:
        assert server.wait() == 78
        assert server.log.count("configuration error: ") == 1
        assert reason in server.log
    finally:
        server.kill()
