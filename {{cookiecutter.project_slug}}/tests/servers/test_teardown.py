"""A clean-up that fails costs nobody anything: not the answer, not the session, not the next request.

On Flask 3.1 it costs the client a 500 for work that was committed (under uWSGI a 200 without a
body), and the pool a connection each time. The session that stays behind may be found by a later
request, which then commits what was refused.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from .harness import SCALE, Server, scaled, wait_until

PROVOCATION = "raising_teardowns"
# The service is one process: /state speaks of all there is.
CLEAN = {"contexts": 0, "sessions": 0, "connections": 0}

REGISTERED = ["blueprint", "request", "context", "request_signal", "context_signal"]
MEGABYTE = 1024 * 1024


@pytest.mark.parametrize("way", [*REGISTERED, "dead_connection", "every"])
def test_a_raising_teardown_loses_no_answer_no_commit_and_no_connection(server: Server, way: str) -> None:
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
    before = server.texts().count("good")
    count = scaled(30)

    with ThreadPoolExecutor(4) as clients:
        refused = [clients.submit(server.send, "POST", "/refuse/every") for _ in range(count)]
        stored = [clients.submit(server.post, "/notes", {"text": "good"}) for _ in range(count)]

    assert {answer.result().status for answer in refused} == {409}, server.log
    assert {answer.result().status for answer in stored} == {201}, server.log
    found = server.texts()
    assert (found.count("good"), found.count("refused")) == (before + count, 0)
    assert_nothing_is_left(server)


def test_raising_teardowns_leave_nothing_in_memory(server: Server) -> None:
    for _ in range(scaled(25)):
        server.send("POST", "/leave/every")
    halfway = memory(server)
    for _ in range(scaled(25)):
        server.send("POST", "/leave/every")

    assert_nothing_is_left(server)
    # A few requests say nothing about memory; of several hundred, each would have kept a few kilobytes.
    if SCALE > 1:
        assert memory(server) - halfway < 4 * MEGABYTE


def assert_nothing_is_left(server: Server) -> None:
    """Check that no context, no session and no connection outlives its request."""
    wait_until(lambda: server.get("/state").json == CLEAN, f"clean, not {server.get('/state').json}")


def memory(server: Server) -> int:
    """Return how many bytes the server's one process keeps in memory."""
    return int(server.get("/memory").body)
