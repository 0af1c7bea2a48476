"""The deadline of a request, and its absence everywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, QueuePool, text
from sqlalchemy.exc import InternalError

from {{cookiecutter.package_name}}.foundation.database import db
from {{cookiecutter.package_name}}.foundation.database import postgresql as module

from ..databases import PostgreSQL
from ..fixtures import make_settings
from ..sample.app import create_app
from ..servers import wait_until


@pytest.fixture(scope="module")
def patient(postgresql: PostgreSQL) -> Iterator[Flask]:
    """The service with a deadline of a second, and a view that the database's timeout does not cancel."""
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
    """A request that fails at its deadline keeps no connection and no session."""
    client = patient.test_client()
    wait_until(lambda: client.get("/sleep/0").status_code == 200, "the database answers")

    assert client.get("/sleep/60").status_code == 503

    with patient.app_context():
        pool = db.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedout() == 0
    assert not db.session.registry.registry


def test_a_command_may_take_its_time(patient: Flask) -> None:
    """The deadline does not limit statements outside of requests, such as in commands."""
    with patient.app_context():
        db.session.execute(text("SET statement_timeout = 0"))
        assert db.session.scalar(text("SELECT 1 FROM pg_sleep(2)")) == 1


LAST = text("SELECT query, pid FROM pg_stat_activity WHERE pid = :pid")


def pid_of(connection: Connection) -> int:
    """Return the id of a connection's server process."""
    driver: Any = connection.connection.dbapi_connection
    pid: int = driver.info.backend_pid
    return pid


@pytest.mark.parametrize(("rest", "is_asked"), [(module.REST, False), (0.0, True)])
def test_a_connection_in_use_costs_no_round_trip_to_be_checked(
    rest: float, is_asked: bool, patient: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recently used connection is checked without a statement, and an idle one with a statement."""
    monkeypatch.setattr(module, "REST", rest)
    with patient.app_context():
        engine = db.engine
        for _ in range(2):  # A new connection is not checked, and the first check is always a statement.
            with engine.connect() as connection:
                connection.execute(text("SELECT 'the last'"))
                used = pid_of(connection)
        with engine.connect() as checked:
            assert pid_of(checked) == used
            with engine.connect() as other:
                (query, _) = other.execute(LAST, {"pid": used}).one()

    assert (query == ";") == is_asked


def test_a_connection_whose_backend_is_gone_is_replaced(patient: Flask) -> None:
    """A pooled connection whose backend was terminated is replaced before a request uses it."""
    client = patient.test_client()
    with patient.app_context():
        for _ in range(2):
            with db.engine.connect() as connection:
                used = pid_of(connection)
        with db.engine.connect() as connection, db.engine.connect() as other:
            assert pid_of(connection) == used
            connection.close()
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": used})
        # The pool hands out both connections that it had.
        with db.engine.connect() as connection, db.engine.connect() as other:
            assert used not in {pid_of(connection), pid_of(other)}
    assert client.get("/sleep/0").status_code == 200


@pytest.mark.parametrize("statement", ["SELECT 'kept'", "\n    select 'kept'"])
def test_a_rollback_keeps_prepared_statements(statement: str, patient: Flask) -> None:
    """A statement that psycopg has prepared stays prepared after the rollback that ends each read."""
    prepared = text("SELECT count(*) FROM pg_prepared_statements WHERE statement = :statement")
    with patient.app_context(), db.engine.connect() as connection:
        for _ in range(8):
            connection.execute(text(statement))
            connection.rollback()

        assert connection.scalar(prepared, {"statement": statement}) == 1


def test_a_rollback_forgets_statements_on_new_objects(patient: Flask) -> None:
    """A statement on an object that was rolled back is prepared again for the next one of its name."""
    with patient.app_context(), db.engine.connect() as connection:
        for _ in range(2):
            connection.execute(text("CREATE TYPE mood AS ENUM ('calm')"))
            found = [connection.scalar(text("SELECT CAST('calm' AS mood)")) for _ in range(8)]
            connection.rollback()

            assert found == ["calm"] * 8


def test_a_replaced_object_fails_one_transaction(patient: Flask) -> None:
    """A prepared statement on an object that a function has replaced fails once: the rollback forgets it."""
    body = "BEGIN CREATE TYPE mood AS ENUM ('calm'); END"
    make = f"CREATE FUNCTION make_mood() RETURNS void LANGUAGE plpgsql AS $${body}$$"
    with patient.app_context(), db.engine.connect() as connection:
        connection.execute(text(make))
        connection.commit()
        outcomes = []
        for _ in range(3):
            connection.execute(text("SELECT make_mood()"))
            try:
                outcomes.append({connection.scalar(text("SELECT CAST('calm' AS mood)")) for _ in range(8)})
            except InternalError:
                outcomes.append({"failed"})
            connection.rollback()
        connection.execute(text("DROP FUNCTION make_mood"))
        connection.commit()

    assert outcomes == [{"calm"}, {"failed"}, {"calm"}]
