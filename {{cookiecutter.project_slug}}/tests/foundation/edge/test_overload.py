"""Waiting times of requests, and turns under gevent, which starts all requests immediately."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from {{cookiecutter.package_name}}.foundation.edge.overload import Turns, waiting_time

from ..processes import wait_until


def test_the_kernel_counts_from_the_last_bytes() -> None:
    """The waiting time is counted from the arrival of the last bytes."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        client.sendall(b"GET")
        connection, _ = server.accept()
        with connection:
            environ = {"gunicorn.socket": connection, "REMOTE_ADDR": "127.0.0.1"}
            wait_until(lambda: waiting_time(environ) > 0.2, "it has waited")

            client.sendall(b" /")
            wait_until(lambda: waiting_time(environ) < 0.2, "the new bytes have arrived")


@pytest.mark.parametrize(
    ("header", "remote", "is_used"),
    [
        ("t={}", "", True),
        ("{}", "", True),
        ("t={}", "127.0.0.1", False),  # The kernel knows the time, or the header came from another machine.
        ("soon", "", False),
        ("t=nan", "", False),
        ("t=-inf", "", False),
        ("t=1e9", "", False),
        ("", "", False),
    ],
)
def test_only_a_proxy_at_a_unix_socket_sets_the_time(header: str, remote: str, is_used: bool) -> None:
    """X-Request-Start is used at a unix socket, if it is a time within the last minute."""
    ends = socket.socketpair()
    with ends[0], ends[1]:
        began = header.format(time.time() - 5)
        environ = {"gunicorn.socket": ends[0], "REMOTE_ADDR": remote, "HTTP_X_REQUEST_START": began}

        assert (waiting_time(environ) >= 5) is is_used


def test_a_turn_is_free_again_when_its_request_ends() -> None:
    """As many requests run as there are turns, and when one finishes, the next one starts."""
    turns = Turns(2, limit=60)
    one, two = turns.take(0), turns.take(0)

    assert one
    assert two
    assert turns.take(0) is None
    turns.end(one)
    assert turns.take(0)
    assert turns.take(0) is None


def test_a_waiting_request_gets_the_next_turn() -> None:
    """A waiting request starts when another one finishes."""
    turns = Turns(1, limit=60)
    first = turns.take(0)
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(turns.take(60)))
    waiting.start()

    turns.end(first)
    waiting.join(60)

    assert found[0]


def test_no_request_waits_whose_turn_would_come_too_late() -> None:
    """A request that would finish after its limit, because recent ones were slow, does not wait."""
    turns = Turns(1, limit=60)
    first = turns.take(0)
    turns.typical = 61

    waiting = threading.Thread(target=turns.take, args=[60])
    waiting.start()
    waiting.join(30)

    assert not waiting.is_alive()
    turns.end(first)


def test_a_long_request_gives_its_turn_away() -> None:
    """A request that runs longer than the limit loses its turn, so its end frees none."""
    turns = Turns(1, limit=0.05)
    long = turns.take(0)
    second = turns.take(0.2)
    assert second

    turns.end(long)

    assert len(turns.running) == 1
    turns.end(second)
    assert not turns.running
