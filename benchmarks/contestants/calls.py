"""Requests to a contestant in this process, without a server: `calls.py MEASUREMENT JSON`, prints JSON."""

from __future__ import annotations

import importlib
import json
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.callgrind import run_parts
from benchmarks.wsgi import answer

Job = dict[str, Any]
random_ids = random.Random(1)  # noqa: S311


class Contestant:
    """A WSGI application, and the requests for its measurement."""

    def __init__(self, job: Job) -> None:
        self.app = importlib.import_module(job["module"]).app
        self.paths: dict[str, str] = job["paths"]
        self.body = job["body"].encode()

    def send(self, kind: str) -> None:
        """Send a request. Raises `SystemExit` for an unexpected answer."""
        path = self.paths["read" if kind == "404 row" else kind] if kind != "404 route" else "/no-such-route"
        row_id = 99_999_999 if kind == "404 row" else random_ids.randint(1, 1000)
        is_insert = kind == "insert"
        status = answer(
            self.app, "POST" if is_insert else "GET", path.format(id=row_id), self.body if is_insert else b""
        )
        if status[:1] != ("4" if kind.startswith("404") else "2"):
            sys.exit(f"{kind} is answered with {status}")


def instructions(job: Job) -> None:
    """Run parts for each kind of request, under callgrind."""
    contestant = Contestant(job)
    for kind in job["kinds"]:
        run_parts(lambda kind=kind: contestant.send(kind), job["count"])


class Proxy:
    """A proxy before PostgreSQL that counts round trips and parsed statements."""

    def __init__(self, url: Any) -> None:
        self.round_trips = self.parsed = 0
        folder = url.query.get("host") or (url.host if (url.host or "").startswith("/") else None)
        port = int(url.query.get("port") or url.port or 5432)
        self.upstream = f"{folder}/.s.PGSQL.{port}" if folder else (url.host or "127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()
        # Encrypted messages cannot be counted.
        query = {"sslmode": "disable", "gssencmode": "disable"}
        self.url = url.set(host="127.0.0.1", port=self.listener.getsockname()[1], query=query)

    def accept(self) -> None:
        """Open a connection to PostgreSQL for each one that is opened here."""
        while True:
            client, _ = self.listener.accept()
            server = socket.socket(socket.AF_UNIX if isinstance(self.upstream, str) else socket.AF_INET)
            server.connect(self.upstream)
            if server.family == socket.AF_INET:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, target, count in ((client, server, self.counter()), (server, client, None)):
                threading.Thread(target=forward, args=(source, target, count), daemon=True).start()

    def counter(self) -> Callable[[bytes], None]:
        """Return a function that counts the messages in what a client sends."""
        waiting, header = bytearray(), 0  # The first message has no type.

        def count(data: bytes) -> None:
            nonlocal header
            waiting.extend(data)
            while len(waiting) >= header + 4:
                size = header + struct.unpack_from("!i", waiting, header)[0]
                if len(waiting) < size:
                    break
                kind = bytes(waiting[:header])
                self.round_trips += kind in (b"Q", b"S")  # a simple query, or the end of an extended one
                self.parsed += kind == b"P"
                header = 1
                del waiting[:size]

        return count


def forward(source: socket.socket, target: socket.socket, count: Callable[[bytes], None] | None) -> None:
    """Forward data. It is counted first, so that the count is complete when the response arrives."""
    while data := source.recv(65536):
        if count:
            count(data)
        target.sendall(data)
    target.close()


def roundtrips(job: Job) -> Iterator[Any]:
    """Return round trips for each request of a kind and of mixed ones, and the statements parsed by these."""
    from sqlalchemy import make_url

    proxy = Proxy(make_url(os.environ["DATABASE_URL"]))
    os.environ["DATABASE_URL"] = proxy.url.render_as_string(hide_password=False)
    contestant, count = Contestant(job), job["count"]
    for kinds in (["read"], ["list"], ["insert"], ["insert", "read", "read", "read"]):
        for number in range(20 + count):
            if number == 20:  # The first requests connect, and prepare statements that stay prepared.
                proxy.round_trips = proxy.parsed = 0
            contestant.send(kinds[number % len(kinds)])
        yield proxy.round_trips / count
    yield proxy.parsed / count


def pages(job: Job) -> list[float]:
    """Return the least milliseconds of each path, of several rounds."""
    contestant = Contestant(job)
    milliseconds: dict[str, list[float]] = {path: [] for path in job["pages"]}
    for path in [*milliseconds] * job["count"]:
        begun = time.perf_counter()
        status = answer(contestant.app, "GET", path)
        milliseconds[path].append((time.perf_counter() - begun) * 1000)
        if status[:3] != "200":
            sys.exit(f"{path} is answered with {status}")
    return [min(values) for values in milliseconds.values()]


def fill(job: Job) -> None:
    """Replace the notes by so many rows."""
    import psycopg

    url = os.environ["DATABASE_URL"].replace("+psycopg", "", 1)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE notes RESTART IDENTITY")
        values = "SELECT repeat('n', 100), now(), 1 FROM generate_series(1, %s)"
        connection.execute(f"INSERT INTO notes (text, created_at, version) {values}", [job["rows"]])
        connection.execute("VACUUM ANALYZE notes")


MEASUREMENTS: list[Callable[[Job], Any]] = [instructions, roundtrips, pages, fill]

if __name__ == "__main__":
    (measurement,) = (function for function in MEASUREMENTS if function.__name__ == sys.argv[1])
    found = measurement(json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(list(found or [])) + "\n")
