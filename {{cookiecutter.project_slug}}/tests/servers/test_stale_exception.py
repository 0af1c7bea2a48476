"""An error that the server has dealt with never reaches a teardown, and never costs a commit.

Python 2 kept the last exception of a thread, so an EAGAIN of the server looked like a failure of
the request, and what commits in teardowns rolled back. Python 3 ended that; code that asks
sys.exc_info() in a teardown can still meet it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from .harness import Server, scaled

PROVOCATION = "stale_exception"


def test_every_acknowledged_note_is_stored_whatever_the_server_has_on_its_mind(server: Server) -> None:
    count = scaled(100)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: server.post("/notes", {"text": str(number)}), range(count)))

    assert {answer.status for answer in answers} == {201}, server.log
    assert sorted(int(note["text"]) for note in all_notes(server)) == list(range(count))
    assert "a teardown was told of" not in server.log


def all_notes(server: Server) -> list[dict[str, str]]:
    """Return every note, page by page."""
    notes, path = [], "/notes?limit=100"
    while path:
        page = server.get(path).json
        notes += page["items"]
        path = page["next"]
    return notes
