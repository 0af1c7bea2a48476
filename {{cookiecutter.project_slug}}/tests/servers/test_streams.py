"""A stream stores what it committed, or its client and the log are told that it did not.

Since Flask 3.1.2 the request's session ends before a stream begins: a row that the view has flushed
and the stream commits is lost, and the client gets a whole answer with a 200. Under uWSGI a stream
that fails in the middle looks whole, too.
"""

from __future__ import annotations

import http.client

import pytest

from .conftest import Start
from .harness import Kind, Project, Server, scaled, wait_until

PROVOCATION = "stream_commits"


@pytest.mark.parametrize("name", ["own-session", "commits"])
def test_a_stream_that_commits_has_stored_what_it_wrote(server: Server, name: str) -> None:
    assert server.send("POST", f"/streams/{name}").status == 200

    assert name in server.texts()


def test_a_commit_of_what_the_view_wrote_breaks_the_stream_off_and_is_logged(server: Server) -> None:
    assert_broken_off(server, "/streams/written-before")

    server.wait_for_log("POST /streams/written-before answers 200 and has not committed: INSERT INTO")
    server.wait_for_log("POST /streams/written-before is broken off: CommitAfterFailure(")
    assert "written-before" not in server.texts()


def test_a_stream_that_raises_after_it_wrote_is_broken_off_and_logged(server: Server) -> None:
    assert_broken_off(server, "/streams/raises")

    server.wait_for_log("POST /streams/raises is broken off: LookupError('in the middle of a stream')")
    assert "raises" not in server.texts()


def test_a_commit_that_a_stream_forgot_is_logged(server: Server) -> None:
    assert server.send("POST", "/streams/forgets").status == 200

    line = "POST /streams/forgets answers 200 and has not committed: INSERT INTO"
    wait_until(lambda: line in server.log, "the log names it")
    assert "forgets" not in server.texts()


def test_a_client_that_leaves_a_stream_that_writes_keeps_nobody_else_from_writing(server: Server) -> None:
    # More of them than there are threads and connections.
    for _ in range(scaled(15)):
        with server.connection() as connection:
            connection.sendall(b"POST /streams/endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536)
        wait_until(lambda: server.post("/notes", {"text": "next"}).status == 201, "the next one may write")

    assert "endless" not in server.texts()
    assert "POST /streams/endless answers" not in server.log, "a client that leaves is no mistake"


def test_where_a_forgotten_commit_fails_a_request_it_breaks_a_stream_off(
    kind: Kind, start: Start, project: Project
) -> None:
    project.provoke("stream_commits")
    server = start(kind, UNCOMMITTED_WORK="raise")

    assert server.send("POST", "/streams/written-before").status == 500
    assert_broken_off(server, "/streams/forgets")

    server.wait_for_log("UncommittedWork: POST /streams/written-before answers 200 and has not committed")
    server.wait_for_log("POST /streams/forgets is broken off: UncommittedWork('POST /streams/forgets answers")
    assert server.send("POST", "/streams/commits").status == 200
    assert server.texts() == ["commits"]


def assert_broken_off(server: Server, path: str) -> None:
    """Check that the client of a stream sees that its end is missing."""
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        server.send("POST", path)
