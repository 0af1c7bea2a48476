"""No two processes use a connection that was opened before the fork.

Two processes that read from one socket get each other's responses: some requests fail, and some
are answered with another client's rows.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..databases import PostgreSQL
from ..servers import GTHREAD, GUNICORN, PACKAGE, UWSGI, Kind, Project
from .conftest import Start

UWSGI_PREFORK = [UWSGI] if UWSGI.is_installed else []
STARTS = [
    *(pytest.param(kind, True, id=str(kind)) for kind in (*GUNICORN, *UWSGI_PREFORK)),
    # Without Python's fork hooks, only the pools' own check remains.
    *(pytest.param(kind, False, id=f"{kind}-no-hooks") for kind in (*GTHREAD, *UWSGI_PREFORK)),
]


@pytest.mark.parametrize(("kind", "hooks"), STARTS)
def test_connections_from_before_the_fork_are_not_used_after_it(
    kind: Kind, hooks: bool, start: Start, project: Project, postgresql: PostgreSQL
) -> None:
    """No worker uses a connection from before the fork, and a session kept since then raises an error."""
    project.provoke("early_connection")
    if kind is UWSGI:
        project.replace("uwsgi.ini", "lazy-apps = true\n", "")
    if not hooks:
        project.replace(
            f"{PACKAGE}/foundation/database/fork_safety.py", "os.register_at_fork(", "(lambda **_: None)("
        )
    server = start(kind, DATABASE_URL=postgresql.migrated(), WEB_CONCURRENCY="4")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: (number, server.get(f"/echo/{number}")), range(120)))
    refused = server.get("/kept")

    assert {answer.status for _, answer in answers} == {200}, server.log
    workers = defaultdict(set)
    for number, answer in answers:
        assert answer.json["number"] == number, "the rows of another request"
        workers[answer.json["backend"]].add(answer.json["worker"])
    assert len(set().union(*workers.values())) > 1, "one worker answered everything"
    assert all(len(processes) == 1 for processes in workers.values()), workers
    assert refused.status == 500
    server.wait_for_log("early_connection.py:")
    server.wait_for_log("use db.session inside the request")
