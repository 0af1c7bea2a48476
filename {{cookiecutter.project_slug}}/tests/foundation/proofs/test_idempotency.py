"""A request that is retried with its Idempotency-Key is stored once, whatever happened to its response.

A worker is killed, or a client gets a 503, just before or just after the commit. The client cannot know
which, and retries. Without a key, committed work is then stored twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import cycle, islice
from uuid import uuid4

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from ..servers import PATIENCE, WITH_WORKERS, Kind, Project, Server, scaled, wait_until
from .conftest import Start

PROVOCATION = "lost_answers"
REFUSED = ["refused before", "refused after"]
KILLED = ["killed before", "killed after"]

Answer = tuple[int, bytes, str | None, str | None]


@dataclass
class Ledger:
    """The first response to each sample, differing responses to repeats, and samples stored before a
    fault."""

    first: dict[str, Answer] = field(default_factory=dict)
    others: list[tuple[Answer, Answer]] = field(default_factory=list)
    replayed: list[str] = field(default_factory=list)


def send(server: Server, sample: str, *, key: bool, fault: str = "") -> tuple[Answer, bool] | None:
    """Send a sample; return the response and whether it is a replay, or None if it is lost."""
    headers = {"Content-Type": "application/json", "X-Fault": fault}
    headers |= {"Idempotency-Key": f'"{sample}"'} if key else {}
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        try:
            connection.request("POST", "/samples", json.dumps({"text": sample}), headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException):
            return None
    assert answer.status in {201, 409, 503}, server.log
    if answer.status != 201:
        assert answer.headers["Retry-After"] == "2"
    found = (answer.status, body, answer.headers["Location"], answer.headers["ETag"])
    return found, "Idempotency-Replayed" in answer.headers


def send_until_stored(server: Server, sample: str, ledger: Ledger, *, fault: str, key: bool = True) -> None:
    """Send a sample with a fault, then without one until it is acknowledged, and then once more."""
    sent = send(server, sample, key=key, fault=fault)

    def is_acknowledged() -> bool:
        nonlocal sent
        if sent is None or sent[0][0] != 201:
            sent = send(server, sample, key=key)
        return sent is not None and sent[0][0] == 201

    wait_until(is_acknowledged, f"{sample} is acknowledged")
    assert sent
    ledger.first[sample] = sent[0]
    if sent[1]:
        ledger.replayed.append(sample)
    if key:
        again = wait_until(lambda: answered(server, sample), f"{sample} is acknowledged again")
        if again != sent[0]:
            ledger.others.append((sent[0], again))


def answered(server: Server, sample: str) -> Answer | None:
    """Send an acknowledged sample again; return the response, or None if it is lost."""
    sent = send(server, sample, key=True)
    return sent[0] if sent and sent[0][0] == 201 else None


@contextmanager
def four_clients(server: Server) -> Iterator[Ledger]:
    """Make clients send samples, of which two in three first get a 503."""
    ledger = Ledger()
    with ThreadPoolExecutor(4) as pool:
        faults = islice(cycle([*REFUSED, ""]), scaled(12))
        sent = [pool.submit(send_until_stored, server, uuid4().hex, ledger, fault=fault) for fault in faults]
        yield ledger
    for each in sent:
        each.result()


def assert_each_was_stored_once(ledger: Ledger, server: Server) -> None:
    """Check the table against the ledger."""
    assert {sample: times for sample, times in stored(server) if sample in ledger.first} == dict.fromkeys(
        ledger.first, 1
    )
    assert ledger.others == [], "a repeat got another answer"
    assert ledger.replayed, "no fault came after a commit"


def stored(server: Server) -> Iterator[tuple[str, int]]:
    """Yield each stored sample with how often it is stored."""
    url = make_url(server.environment["DATABASE_URL"])
    with create_engine(url, poolclass=NullPool).connect() as connection:
        yield from Counter(connection.scalars(text("SELECT text FROM foundation_samples"))).items()


def test_a_repeat_after_a_503_stores_once(server: Server) -> None:
    """A request that is retried after a 503 is stored once, and each repeat gets the same response."""
    with four_clients(server) as ledger:
        pass

    assert_each_was_stored_once(ledger, server)


def test_a_repeat_without_a_key_stores_twice(server: Server) -> None:
    """Without a key the same retry stores twice, so the faults of these proofs are real."""
    ledger = Ledger()

    send_until_stored(server, "no key", ledger, fault="refused after", key=False)

    assert dict(stored(server))["no key"] == 2


@pytest.mark.parametrize("kind", WITH_WORKERS, ids=str)
def test_a_repeat_after_a_kill_stores_once(kind: Kind, start: Start, project: Project) -> None:
    """A request that is retried after its worker was killed is stored once, and without a key twice."""
    project.provoke(PROVOCATION)
    server = start(kind, WEB_CONCURRENCY="2")

    killed = [f"{fault} its commit ({number})" for number in range(scaled(2)) for fault in KILLED]

    with four_clients(server) as ledger:
        for sample in killed:
            send_until_stored(server, sample, ledger, fault=" ".join(sample.split()[:2]))
    send_until_stored(server, "no key", Ledger(), fault="killed after", key=False)

    assert_each_was_stored_once(ledger, server)
    assert [sample for sample in killed if sample in ledger.replayed] == killed[1::2]
    assert dict(stored(server))["no key"] == 2
