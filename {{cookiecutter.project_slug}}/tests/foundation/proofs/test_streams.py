"""A stream whose commit is not stored is aborted and logged.

Since Flask 3.1.2 the request's session is closed before a stream begins: a row that the view flushes and the
stream commits is lost, and the client gets a complete response with a 200. On uWSGI a stream that fails in
the middle looks complete, too.
"""

from __future__ import annotations

import http.client

import pytest

from ..servers import Kind, Project, Server, scaled, wait_until
from .conftest import Start

PROVOCATION = "stream_commits"


@pytest.mark.parametrize("name", ["own-session", "commits"])
def test_a_stream_that_commits_has_stored_what_it_wrote(server: Server, name: str) -> None:
    """A stream that commits, in its own session or the request's, stores its work."""
    assert server.send("POST", f"/streams/{name}").status == 200

    assert name in server.texts()


def test_a_commit_of_the_views_work_breaks_the_stream_off(server: Server) -> None:
    """A stream that tries to commit its view's lost work is aborted and logged, and stores nothing."""
    assert_broken_off(server, "/streams/written-before")

    server.wait_for_log("POST /streams/written-before answers 200 and has not committed: INSERT INTO")
    server.wait_for_log("POST /streams/written-before is broken off: CommitAfterFailure(")
    assert "written-before" not in server.texts()


def test_a_stream_that_raises_is_broken_off_and_logged(server: Server) -> None:
    """A stream that raises after a write is aborted and logged, and stores nothing."""
    assert_broken_off(server, "/streams/raises")

    server.wait_for_log("POST /streams/raises is broken off: LookupError('in the middle of a stream')")
    assert "raises" not in server.texts()


def test_a_commit_that_a_stream_forgot_is_logged(server: Server) -> None:
    """A stream's forgotten commit is logged, and nothing is stored."""
    assert server.send("POST", "/streams/forgets").status == 200

    line = "POST /streams/forgets answers 200 and has not committed: INSERT INTO"
    wait_until(lambda: line in server.log, "the log names it")
    assert "forgets" not in server.texts()


def test_a_client_that_leaves_a_stream_blocks_no_other_writer(server: Server) -> None:
    """A client that disconnects from a writing stream blocks no other writer, and logs no error."""
    # More clients than threads and connections.
    for _ in range(scaled(15)):
        with server.connection() as connection:
            connection.sendall(b"POST /streams/endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536)
        wait_until(lambda: server.post("/samples", {"text": "next"}).status == 201, "the next one may write")

    assert "endless" not in server.texts()
    assert "POST /streams/endless answers" not in server.log, "a client that leaves is no mistake"


def test_with_raise_a_forgotten_commit_breaks_a_stream_off(
    kind: Kind, start: Start, project: Project
) -> None:
    """With UNCOMMITTED_WORK=raise a forgotten commit fails a request and aborts a stream."""
    project.provoke("stream_commits")
    server = start(kind, UNCOMMITTED_WORK="raise")

    assert server.send("POST", "/streams/written-before").status == 500
    assert_broken_off(server, "/streams/forgets")

    server.wait_for_log("UncommittedWork: POST /streams/written-before answers 200 and has not committed")
    server.wait_for_log("POST /streams/forgets is broken off: UncommittedWork('POST /streams/forgets answers")
    assert server.send("POST", "/streams/commits").status == 200
    assert server.texts() == ["commits"]


def assert_broken_off(server: Server, path: str) -> None:
    """Check that the client of a stream detects its truncation."""
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        server.send("POST", path)
