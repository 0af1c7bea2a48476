"""A long cookie reaches the service, and one that is too long costs its own request alone."""

from __future__ import annotations

from contextlib import suppress

import pytest

from .harness import Server


@pytest.mark.parametrize("length", [4096, 8000])
def test_a_cookie_as_long_as_proxies_let_through_reaches_the_service(length: int, server: Server) -> None:
    answer = server.send("GET", "/livez", headers={"Cookie": "a=" + "x" * length})

    assert answer.status == 200


def test_one_that_is_too_long_is_refused_and_the_next_request_answered(server: Server) -> None:
    with suppress(ConnectionError):  # uWSGI closes the connection, and says so in its log.
        assert server.send("GET", "/livez", headers={"Cookie": "a=" + "x" * 200_000}).status in {400, 431}

    assert server.get("/livez").status == 200
