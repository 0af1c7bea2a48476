"""Programs that show a hazard: once before and once after the fix.

Most need a real PostgreSQL, SQLAlchemy and a driver. Each works in a schema that it creates and drops.
"""

import os
import random
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

QUERIES = 200
# Seconds until a worker is killed. Without the fix it waits for a response that the other one has read.
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
        connection.execute(text("create table orders (client text primary key)"))
    # Only a proof's own mistake keeps a connection in the pool when it forks.
    engine.dispose()
    try:
        yield engine
    finally:
        engine.dispose()
        with engine.begin() as connection:
            connection.execute(text(f"drop schema {schema} cascade"))
        engine.dispose()


def mapped_order() -> Any:
    """Return a class whose instances are rows of the table."""
    from sqlalchemy import Column, Text
    from sqlalchemy.orm import declarative_base

    columns = {"client": Column(Text, primary_key=True)}
    return type("Order", (declarative_base(),), {"__tablename__": "orders", **columns})


def prove_shared_session(url: str, *, fixed: bool) -> list[str]:
    """Combine a rejected order of alice with an accepted one of bob, and return the errors in the table."""
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


def prove_kept_instance(url: str, *, fixed: bool) -> list[str]:
    """Read an order that an earlier request has loaded, and return the error."""
    from sqlalchemy.orm import Session
    from sqlalchemy.orm.exc import DetachedInstanceError

    order = mapped_order()
    with scratch_engine(url) as engine:
        with Session(engine) as session:
            session.add(order(client="alice"))
            session.commit()
            loaded = session.get_one(order, "alice")
            kept = loaded.client if fixed else loaded
            session.commit()
        with Session(engine) as session:
            try:
                client = session.get_one(order, kept).client if fixed else kept.client
            except DetachedInstanceError:
                return ["the second request failed: DetachedInstanceError"]
    return [] if client == "alice" else [f"the second request read {client!r}"]


def prove_missing_rollback(url: str, *, fixed: bool) -> list[str]:
    """Store one order twice, handle the error, and return what the next order of the session gets."""
    from sqlalchemy import text
    from sqlalchemy.exc import IntegrityError, PendingRollbackError
    from sqlalchemy.orm import Session

    order = mapped_order()
    with scratch_engine(url) as engine, Session(engine) as session:
        session.add(order(client="alice"))
        session.commit()
        session.expunge_all()
        try:
            session.add(order(client="alice"))
            session.flush()
        except IntegrityError:
            if fixed:
                session.rollback()
        try:
            session.execute(text("insert into orders values ('bob')"))
            session.commit()
        except PendingRollbackError:
            session.rollback()
            return ["bob's order failed after alice's mistake: PendingRollbackError"]
    return []


def prove_inherited_connection(url: str, *, fixed: bool) -> list[str]:
    """Make two forked workers use their parent's connection, and return the failures."""
    with scratch_engine(url) as engine:
        connection = engine.connect()
        ask(connection, 1)

        def work(number: int) -> str:
            if not fixed:
                return ask(connection, number)
            engine.dispose(close=False)
            with engine.connect() as own:
                return ask(own, number)

        wrong = run_workers(work, PATIENCE[fixed])
        if not fixed:
            connection.invalidate()  # A rollback would wait for an answer that a worker has read.
        connection.close()
    return wrong


def prove_statement_before_fork(url: str, *, fixed: bool) -> list[str]:
    """Fork two workers after a statement, which leaves a connection in the pool, or before any."""

    def work(number: int) -> str:
        with engine.connect() as connection:
            return ask(connection, number)

    with scratch_engine(url) as engine:
        if not fixed:
            with engine.connect() as connection:
                ask(connection, 1)
        wrong = run_workers(work, PATIENCE[fixed])
        engine.connect().invalidate()
    return wrong


def ask(connection: Any, number: int) -> str:
    """Query a number many times, and return a message if a different number comes back."""
    from sqlalchemy import text

    for _ in range(QUERIES):
        if connection.execute(text("select cast(:number as int)"), {"number": number}).scalar() != number:
            return "a worker received a row of the other worker"
    return ""


def prove_changed_global(url: str, *, fixed: bool) -> list[str]:
    """Count four visits in a global of two workers or in the database, and return the results."""
    from sqlalchemy import text

    visits = 0

    def visit(name: str) -> int:
        nonlocal visits
        if not fixed:
            visits += 1
            return visits
        with engine.begin() as connection:
            connection.execute(text("insert into orders values (:client)"), {"client": name})
        with engine.connect() as connection:
            return int(connection.execute(text("select count(*) from orders")).scalar_one())

    with scratch_engine(url) as engine:
        answers = run_workers(
            lambda number: str([visit(f"{number}.{n}") for n in (1, 2)][-1]), PATIENCE[True]
        )
    most = max(map(int, answers))
    return [] if most == 4 else [f"4 visits were counted as {most}: each worker counts its own"]


def prove_copied_generator(url: str, *, fixed: bool) -> list[str]:
    """Make two workers draw a token with a generator from before the fork, or with their own."""
    generator = random.Random()  # noqa: S311  # That is the mistake.

    def work(number: int) -> str:
        return secrets.token_hex() if fixed else f"{generator.getrandbits(256):x}"

    return ["two workers drew the same token"] if len(run_workers(work, PATIENCE[True])) == 1 else []


def prove_thread_before_fork(url: str, *, fixed: bool) -> list[str]:
    """Start a thread before the fork or in each worker, and return whether the workers have it."""
    end = threading.Event()
    before = threading.Thread(target=end.wait)

    def work(number: int) -> str:
        thread = threading.Thread(target=end.wait, daemon=True) if fixed else before
        if fixed:
            thread.start()
        return "" if thread.is_alive() else "a worker has no thread: its job never runs"

    if not fixed:
        before.start()
    try:
        return run_workers(work, PATIENCE[True])
    finally:
        end.set()


def run_workers(work: Callable[[int], str], patience: int) -> list[str]:
    """Do some work in two forked processes at the same time, and return their messages without duplicates."""
    gate = os.pipe()
    workers = [fork_worker(work, number, gate, patience) for number in (1, 2)]
    for end in gate:
        os.close(end)
    return sorted({message for message in map(read_worker, workers) if message})


def fork_worker(
    work: Callable[[int], str], number: int, gate: tuple[int, int], patience: int
) -> tuple[int, int]:
    """Fork a process that starts when the gate closes; return its id and the pipe of its report."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    signal.alarm(patience)
    try:
        os.close(gate[1])
        os.read(gate[0], 1)
        message = work(number)
    except BaseException as error:
        message = f"a worker failed: {type(error).__name__}"
    os.write(writer, message.encode())
    os._exit(0)


def read_worker(worker: tuple[int, int]) -> str:
    """Return a worker's message after its exit."""
    child, reader = worker
    with os.fdopen(reader, "rb") as pipe:
        message = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return (
        "a worker waited for an answer that the other worker had read" if os.WIFSIGNALED(status) else message
    )


PROOFS = {
    "N101": prove_inherited_connection,
    "N102": prove_statement_before_fork,
    "N103": prove_shared_session,
    "N104": prove_kept_instance,
    "N201": prove_changed_global,
    "N401": prove_thread_before_fork,
    "N404": prove_copied_generator,
    "N501": prove_missing_rollback,
}


def prove(rule: str, url: str) -> tuple[str, bool]:
    """Return a report of a proof, and whether it shows the hazard before the fix and nothing after it."""
    before, after = PROOFS[rule](url, fixed=False), PROOFS[rule](url, fixed=True)
    lines = ["As it is:", *(f"    {line}" for line in before or ["nothing went wrong"])]
    lines += ["After the fix:", *(f"    {line}" for line in after or ["nothing went wrong"])]
    return "\n".join([*lines, ""]), bool(before) and not after
