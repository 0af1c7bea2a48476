"""A view that raises fails its own request and no other.

With `reload-on-exception`, uWSGI kills the whole process: the requests in its other threads are dropped,
their `finally` blocks never run, and their locks are never released.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from urllib.parse import urlencode

import pytest

from ..servers import KINDS, Kind, Project, wait_until
from .conftest import Start

# A sync worker handles one request at a time.
SHARED = [kind for kind in KINDS if kind.name != "gunicorn-sync"]


@pytest.mark.parametrize("kind", SHARED, ids=str)
def test_a_view_that_raises_ends_no_other_request(kind: Kind, start: Start, project: Project) -> None:
    """A view that raises is logged and aborts no other request in flight, whose clean-up runs."""
    project.provoke("raising_views")
    server = start(kind)

    with ThreadPoolExecutor() as pool:
        others = [pool.submit(server.get, f"/hold/{number}") for number in range(3)]
        wait_until(lambda: len([*project.folder.glob("*.lock")]) == 3, "three requests are in flight")
        for path in ["/raise", "/export"] * 2:
            with suppress(OSError, HTTPException):  # Half a response, or none.
                server.get(path)
        (project.folder / "end").touch()

        assert [other.result().status for other in others] == [200, 200, 200], server.log
    assert not [*project.folder.glob("*.lock")], "a clean-up has not run"
    wait_until(lambda: server.log.count("RuntimeError: a bug in ") == 4, "each failure is in the log")


# Flask turns a Location into ASCII after its error handlers, and servers encode headers after Flask.
UNSENDABLE = [
    ("X-Name", "\N{LATIN SMALL LETTER Z WITH DOT ABOVE}"),
    ("X-Name", "\x01"),
    ("X Name", "a"),
    ("Location", "http://[::1"),
    ("Location", "//.a"),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_header_that_cannot_be_sent_is_a_problem(kind: Kind, start: Start, project: Project) -> None:
    """A view that sets an unsendable header returns a problem, and the header's name is logged."""
    project.provoke("raising_views")
    server = start(kind)

    for name, value in UNSENDABLE:
        answer = server.get(f"/header?{urlencode({'name': name, 'value': value})}")

        assert (answer.status, answer.headers["Content-Type"]) == (500, "application/problem+json"), name
        assert answer.headers["X-Request-ID"]
        assert name not in answer.headers
    said = "the response has a header that can't be sent: "
    wait_until(lambda: server.log.count(said) >= len(UNSENDABLE), "each header is in the log")
    sent = server.get(f"/header?{urlencode({'name': 'X-Name', 'value': chr(0xE9)})}")
    assert (sent.status, sent.headers["X-Name"]) == (200, chr(0xE9))
