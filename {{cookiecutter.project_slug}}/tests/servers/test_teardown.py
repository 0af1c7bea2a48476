"""A clean-up that fails costs nobody anything: not the answer, not the session, not the next request.

On Flask 3.1 it costs the client a 500 for work that was committed (under uWSGI a 200 without a
body), and the pool a connection each time.
"""

from __future__ import annotations

from .harness import Server

PROVOCATION = "raising_teardowns"


def test_raising_teardowns_lose_no_answer_no_commit_and_no_connection(server: Server) -> None:
    # Two workers with a pool of six connections each: a leak would show after twelve requests.
    answers = [server.send("POST", "/leave") for _ in range(30)]

    assert {(answer.status, answer.body) for answer in answers} == {(200, b"left")}, server.log
    assert len(server.get("/notes").json["items"]) == 30
    assert "the first clean-up failed" in server.log
    assert "the second clean-up failed" in server.log
