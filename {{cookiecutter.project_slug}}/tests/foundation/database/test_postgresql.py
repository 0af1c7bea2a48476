"""The deadline of a request, and its absence everywhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import QueuePool, text

from {{cookiecutter.package_name}}.foundation.database import db

from ..databases import PostgreSQL
from ..fixtures import make_settings
from ..sample.app import create_app
from ..servers import wait_until


@pytest.fixture(scope="module")
def patient(postgresql: PostgreSQL) -> Iterator[Flask]:
    """The service with a deadline of a second, and a view that the database's own timeout does not end."""
    app = create_app(make_settings(postgresql.sampled(), database_timeout=1))

    @app.get("/sleep/<int:seconds>")
    def sleep(seconds: int) -> str:
        db.session.execute(text("SET statement_timeout = 0"))
        db.session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
        return "awake"

    yield app
    with app.app_context():
        db.engine.dispose()


def test_a_request_gives_up_and_the_next_ones_do_not_wait_at_all(patient: Flask) -> None:
    """A request fails at its deadline, and later ones fail immediately until the next attempt succeeds."""
    client = patient.test_client()

    assert client.get("/sleep/60").status_code == 503
    assert client.get("/sleep/0").status_code == 503  # Too soon for another attempt.
    wait_until(lambda: client.get("/sleep/0").status_code == 200, "the database is asked again")


def test_a_request_that_gave_up_keeps_no_connection(patient: Flask) -> None:
    """A request that failed at its deadline keeps no connection and no session."""
    client = patient.test_client()
    wait_until(lambda: client.get("/sleep/0").status_code == 200, "the database answers")

    assert client.get("/sleep/60").status_code == 503

    with patient.app_context():
        pool = db.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedout() == 0
    assert not db.session.registry.registry


def test_a_command_may_take_its_time(patient: Flask) -> None:
    """The deadline does not limit a statement outside of requests, such as one of a command."""
    with patient.app_context():
        db.session.execute(text("SET statement_timeout = 0"))
        assert db.session.scalar(text("SELECT 1 FROM pg_sleep(2)")) == 1
