"""A teardown function that raises costs no response, no session and no later request.

On Flask 3.1 it costs the client a 500 for committed work (on uWSGI a 200 without a body), and the pool a
connection each time. A later request may find the leaked session, and then commits the rejected work.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ..servers import Server, scale, scaled, wait_until

PROVOCATION = "raising_teardowns"
# The service is one process, so that /state covers all of it.
CLEAN = {"contexts": 0, "sessions": 0, "connections": 0}

REGISTERED = ["blueprint", "request", "context", "request_signal", "context_signal"]
MEGABYTE = 1024 * 1024


@pytest.mark.parametrize("way", [*REGISTERED, "dead_connection", "every"])
def test_a_raising_teardown_costs_nothing(server: Server, way: str) -> None:
    """A raising teardown function is logged and costs no response, no commit and no connection."""
    before = server.texts().count("kept")

    # The pool has six connections: a leak would show in the seventh request.
    answers = [server.send("POST", f"/leave/{way}") for _ in range(8)]

    assert {(answer.status, answer.body) for answer in answers} == {(200, b"left")}, server.log
    assert server.texts().count("kept") == before + 8
    for name in REGISTERED if way == "every" else {way}.intersection(REGISTERED):
        server.wait_for_log(f"RuntimeError: the clean-up of {name} failed")
    if way == "dead_connection":
        server.wait_for_log("the session did not close, its connection is dropped")
    assert_nothing_is_left(server)


def test_no_row_that_was_refused_is_stored_by_a_later_request(server: Server) -> None:
    """No later request stores a row of a rejected request."""
    before = server.texts().count("good")
    count = scaled(30)

    with ThreadPoolExecutor(4) as clients:
        refused = [clients.submit(server.send, "POST", "/refuse/every") for _ in range(count)]
        stored = [clients.submit(server.post, "/samples", {"text": "good"}) for _ in range(count)]

    assert {answer.result().status for answer in refused} == {409}, server.log
    assert {answer.result().status for answer in stored} == {201}, server.log
    found = server.texts()
    assert (found.count("good"), found.count("refused")) == (before + count, 0)
    assert_nothing_is_left(server)


def test_raising_teardowns_leave_nothing_in_memory(server: Server) -> None:
    """Raising teardown functions leak no context, no session, no connection and no memory."""
    for _ in range(scaled(25)):
        server.send("POST", "/leave/every")
    halfway = memory(server)
    for _ in range(scaled(25)):
        server.send("POST", "/leave/every")

    assert_nothing_is_left(server)
    # A few requests show nothing about memory; several hundred would each keep a few kilobytes.
    if scale() > 1:
        assert memory(server) - halfway < 4 * MEGABYTE


def assert_nothing_is_left(server: Server) -> None:
    """Check that no context, no session and no connection outlives its request."""
    wait_until(lambda: server.get("/state").json == CLEAN, f"clean, not {server.get('/state').json}")


def memory(server: Server) -> int:
    """Return the resident memory of the server's only process, in bytes."""
    return int(server.get("/memory").body)
