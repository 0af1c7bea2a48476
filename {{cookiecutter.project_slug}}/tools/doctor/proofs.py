"""Programs that show a hazard on a real PostgreSQL: once as it happens, and once after the fix.

Each one works in a schema that it makes and drops, and needs SQLAlchemy and a driver.
"""

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

QUERIES = 200
# Seconds until a worker is killed. Without the fix it waits for an answer that the other one has read.
PATIENCE = {True: 60, False: 5}


@contextmanager
def scratch_engine(url: str) -> Iterator[Any]:
    """Open an engine whose tables are in a separate schema."""
    from sqlalchemy import create_engine, make_url, text

    address = make_url(url)
    if address.drivername == "postgresql" and not find_spec("psycopg2"):
        address = address.set(drivername="postgresql+psycopg")
    schema = f"doctor_{secrets.token_hex(4)}"
    engine = create_engine(address, connect_args={"options": f"-csearch_path={schema}"})
    with engine.begin() as connection:
        connection.execute(text(f"create schema {schema}"))
        connection.execute(text("create table orders (client text)"))
    try:
        yield engine
    finally:
        engine.dispose()
        with engine.begin() as connection:
            connection.execute(text(f"drop schema {schema} cascade"))
        engine.dispose()


def prove_shared_session(url: str, *, fixed: bool) -> list[str]:
    """Let a rejected order of alice meet an accepted one of bob, and return what is wrong with the table."""
    from sqlalchemy import text
    from sqlalchemy.orm import Session

    with scratch_engine(url) as engine:
        shared = Session(engine)

        def request(client: str, *, accepted: bool) -> None:
            session = Session(engine) if fixed else shared
            try:
                session.execute(text("insert into orders values (:client)"), {"client": client})
                if not accepted:
                    raise ValueError("the order is rejected, and the client gets an error")
                session.commit()
            finally:
                if fixed:
                    session.close()

        with suppress(ValueError):
            request("alice", accepted=False)
        request("bob", accepted=True)
        shared.close()
        with engine.connect() as connection:
            stored = connection.execute(text("select client from orders order by client")).scalars().all()
    return ["the commit of bob's request stored alice's rejected order"] if "alice" in stored else []


def prove_inherited_connection(url: str, *, fixed: bool) -> list[str]:
    """Let two forked workers use a connection of their parent, and return what goes wrong."""
    from sqlalchemy import text

    with scratch_engine(url) as engine:
        connection = engine.connect()
        connection.execute(text("select 1"))
        gate = os.pipe()
        workers = [fork_worker(engine, connection, number, gate, fixed=fixed) for number in (1, 2)]
        for end in gate:
            os.close(end)
        wrong = {message for message in map(read_worker, workers) if message}
        if not fixed:
            connection.invalidate()  # A rollback would wait for an answer that a worker has read.
        connection.close()
    return sorted(wrong)


def fork_worker(
    engine: Any, connection: Any, number: int, gate: tuple[int, int], *, fixed: bool
) -> tuple[int, int]:
    """Fork a process that asks for its own number once the gate is closed; return its id and its report."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    signal.alarm(PATIENCE[fixed])
    try:
        os.close(gate[1])
        os.read(gate[0], 1)
        message = ask(engine, connection, number, fixed=fixed)
    except BaseException as error:
        message = f"a worker failed: {type(error).__name__}"
    os.write(writer, message.encode())
    os._exit(0)


def ask(engine: Any, connection: Any, number: int, *, fixed: bool) -> str:
    """Ask for a number many times, and return a message if another number is answered."""
    from sqlalchemy import text

    if fixed:
        engine.dispose(close=False)
        connection = engine.connect()
    for _ in range(QUERIES):
        if connection.execute(text("select cast(:number as int)"), {"number": number}).scalar() != number:
            return "a worker received a row of the other worker"
    return ""


def read_worker(worker: tuple[int, int]) -> str:
    """Return the message of a worker, after its end."""
    child, reader = worker
    with os.fdopen(reader, "rb") as pipe:
        message = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return (
        "a worker waited for an answer that the other worker had read" if os.WIFSIGNALED(status) else message
    )


PROOFS = {"N101": prove_inherited_connection, "N103": prove_shared_session}


def prove(rule: str, url: str) -> tuple[str, bool]:
    """Return a report of a proof, and whether it shows the hazard before the fix and nothing after it."""
    before, after = PROOFS[rule](url, fixed=False), PROOFS[rule](url, fixed=True)
    lines = ["As it is:", *(f"    {line}" for line in before or ["nothing went wrong"])]
    lines += ["After the fix:", *(f"    {line}" for line in after or ["nothing went wrong"])]
    return "\n".join([*lines, ""]), bool(before) and not after
