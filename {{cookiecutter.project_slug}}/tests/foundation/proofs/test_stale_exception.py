"""An exception that the server has handled reaches no teardown function and costs no commit.

Python 2 kept the last exception of a thread, so an EAGAIN of the server looked like a failure of
the request, and an extension that commits in teardowns rolled back. Python 3 does not, but code that reads
sys.exc_info() in a teardown can still see it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ..servers import Server, scaled

PROVOCATION = "stale_exception"


def test_a_stale_exception_costs_no_acknowledged_sample(server: Server) -> None:
    """Every acknowledged sample is stored while the server handles an error, hidden from teardowns."""
    count = scaled(100)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: server.post("/samples", {"text": str(number)}), range(count)))

    assert {answer.status for answer in answers} == {201}, server.log
    assert sorted(map(int, server.texts())) == list(range(count))
    assert "a teardown got" not in server.log
