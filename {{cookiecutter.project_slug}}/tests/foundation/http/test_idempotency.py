"""A request that repeats an Idempotency-Key stores nothing, and gets the first response."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from flask import Blueprint, Flask, Request, Response
from flask.testing import FlaskClient
from pydantic import BaseModel
from sqlalchemy import Engine, event, func, select
from sqlalchemy.exc import IntegrityError
from werkzeug.test import TestResponse

from {{cookiecutter.package_name}}.foundation.application import create_service
from {{cookiecutter.package_name}}.foundation.database import db, transaction
from {{cookiecutter.package_name}}.foundation.database.models import IdempotencyKey
from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.http import Authentication, Input, Problem, operation
from {{cookiecutter.package_name}}.foundation.http.errors import problem
from {{cookiecutter.package_name}}.foundation.http.idempotency import LONGEST_ANSWER
from {{cookiecutter.package_name}}.foundation.http.openapi import document

from ..databases import Databases
from ..fixtures import make_settings
from ..sample.samples import FoundationSample, add_sample

bp = Blueprint("orders", __name__, url_prefix="/orders")


@dataclass(frozen=True)
class User:
    """The user of a request, whose name may change."""

    id: int
    name: str


def find_user(request: Request) -> User:
    """Accept the user that the client names."""
    number, _, name = request.headers["X-User"].partition(" ")
    return User(int(number), name)


SCHEME = {"type": "http", "scheme": "basic"}
trusting = Authentication(find_user, name="trusting", scheme=SCHEME, identity=lambda user: str(user.id))
nameless = Authentication(find_user, name="nameless", scheme=SCHEME)


class Order(Input):
    """The body of a request."""

    text: str = "pen"


class Limit(Input):
    """The query of a request."""

    limit: int = 1


class Tenant(BaseModel):
    """The headers of a request."""

    x_tenant: str = ""


def add(name: str) -> str:
    """Store a sample and return a unique value."""
    with transaction() as session:
        add_sample(session, name)
    return uuid4().hex


@bp.post("")
@operation(status=201, headers=["Location", "X-Count"], idempotent=True)
def place(body: Order, query: Limit, headers: Tenant) -> tuple[str, dict[str, str]]:
    """Place an order."""
    given = {"Location": f"/orders/{uuid4().hex}", "ETag": '"1"', "X-Count": "7", "X-Other": "1"}
    return add(body.text), given


@bp.post("/plain")
@operation(status=201)
def place_plainly(body: Order) -> str:
    """Place an order that is not idempotent."""
    return add(body.text)


@bp.post("/required")
@operation(status=201, idempotent="required", responses={409: None})
def place_with_key(body: Order) -> str:
    """Place an order that needs a key."""
    return add(body.text)


@bp.post("/mine")
@operation(status=201, idempotent=True, auth=trusting)
def place_mine(user: User) -> str:
    """Place an order of a user."""
    return add(user.name)


WORK: dict[str, Callable[[], Any]] = {}


@bp.post("/tasks/<name>")
@operation(idempotent=True)
def work(name: str) -> Response:
    """Do what a test has named."""
    result = WORK[name]()
    return result if isinstance(result, Response) else Response(result)


def works(function: Callable[[], Any]) -> Callable[[], Any]:
    """Name some work."""
    WORK[function.__name__] = function
    return function


@works
def raise_problem() -> None:
    with transaction() as session:
        add_sample(session, "refused")
        raise Problem(409, "There are no pens left.")


@works
def raise_problem_later() -> None:
    add("refused")
    raise Problem(404, "There is no such pen.")


@works
def return_problem() -> Response:
    add("refused")
    return problem(422, "This pen can't be sold.")


@works
def return_error() -> Response:
    add("refused")
    return Response("no", 400)


@works
def return_failure() -> Response:
    add("refused")
    return Response("no", 503)


@works
def break_a_constraint() -> None:
    with transaction() as session:
        session.add(FoundationSample(id=add_sample(session, "refused").id, text="again"))
        session.flush()


@works
def use_options() -> None:
    with transaction(isolation_level="SERIALIZABLE"):
        raise AssertionError("it has begun")


@works
def commit() -> str:
    with transaction() as session:
        add_sample(session, "refused")
        session.commit()
    return "done"


@works
def roll_back_an_earlier_one() -> str:
    add("refused")
    db.session.rollback()
    return "done"


@works
def close_the_session() -> str:
    add("refused")
    db.session.close()
    return "done"


@works
def remove_the_session() -> str:
    add("refused")
    db.session.remove()
    return "done"


@works
def stream() -> Response:
    add("refused")
    return Response(iter(["a", "b"]))


@works
def answer_too_much() -> bytes:
    add("refused")
    return b"x" * (LONGEST_ANSWER + 1)


@works
def call_another_view() -> Any:
    return place_mine()


@works
def answer_much() -> bytes:
    add("stored")
    return b"\xff\0" * (LONGEST_ANSWER // 2)


@works
def write_twice() -> str:
    return add("stored") + add("stored, too")


@works
def try_again() -> str:
    try:
        break_a_constraint()
    except IntegrityError:
        return add("stored")
    raise AssertionError("it has not failed")


@works
def use_a_savepoint() -> str:
    with transaction() as session, session.begin_nested():
        add_sample(session, "stored")
    return uuid4().hex


@works
def read_what_a_default_gave() -> str:
    with transaction() as session:
        session.add(sample := FoundationSample(text="stored"))
    assert sample.id
    return uuid4().hex


@pytest.fixture
def app(each_databases: Databases) -> Iterator[Flask]:
    """A service with idempotent operations, on each database."""
    app = create_service(__name__, make_settings(each_databases.sampled()), features=[bp])
    yield app
    for engine in engines_of(app):
        engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the service, which commits."""
    return app.test_client()


@pytest.fixture
def engine(app: Flask) -> Engine:
    (engine,) = engines_of(app)
    return engine


def send(client: FlaskClient, path: str = "", key: str = "k1", **options: Any) -> TestResponse:
    """Send a request with a key."""
    headers = {"Idempotency-Key": key, **options.pop("headers", {})}
    return client.post(f"/orders{path}", headers=headers, **{"json": {}} | options)


def counts(app: Flask) -> tuple[int, int]:
    """Count the samples and the keys that are stored."""
    with app.app_context():
        tables = (FoundationSample, IdempotencyKey)
        samples, keys = (db.session.scalar(select(func.count()).select_from(table)) for table in tables)
        return samples or 0, keys or 0


def what_is_first(answer: TestResponse) -> tuple[object, ...]:
    """Return the parts of an answer that a replay repeats."""
    names = ("Content-Type", "Content-Length", "Location", "ETag", "X-Count")
    return answer.status, answer.data, *(answer.headers.get(name) for name in names)


def test_a_repeat_gets_the_first_answer(app: Flask, client: FlaskClient) -> None:
    """A repeat stores nothing and gets the first response's status, named headers and exact body."""
    first, second, third = (send(client, json={"text": "ink"}) for _ in range(3))

    assert first.status_code == 201
    assert first.headers["X-Count"] == "7"
    assert what_is_first(first) == what_is_first(second) == what_is_first(third)
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == third.headers["Idempotency-Replayed"] == "true"
    assert "X-Other" not in second.headers
    assert counts(app) == (1, 1)


def test_without_a_key_a_repeat_stores_again(app: Flask, client: FlaskClient) -> None:
    """Requests without a key store each time, and so do requests with different keys."""
    answers = [client.post("/orders", json={}), client.post("/orders", json={}), send(client, key="k2")]

    assert len({answer.data for answer in answers}) == 3
    assert counts(app) == (3, 1)


OTHERS: dict[str, dict[str, Any]] = {
    "body": {"json": {"text": "pencil"}},
    "spelling of the body": {"json": None, "data": b"{ }", "content_type": "application/json"},
    "query": {"query_string": "limit=2"},
    "path": {"path": "/required"},
    "header": {"headers": {"X-Tenant": "other"}},
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_request_with_the_key_is_a_422(app: Flask, client: FlaskClient, name: str) -> None:
    """A request that differs from the first one in body, query, path or a header that is read gets 422."""
    send(client)

    refused = send(client, **OTHERS[name])

    assert (refused.status_code, refused.content_type) == (422, "application/problem+json")
    problem = refused.get_json(force=True)
    assert problem["title"] == "Idempotency-Key is already used"
    assert "draft-ietf-httpapi-idempotency-key-header" in problem["type"]
    assert counts(app) == (1, 1)


def test_a_key_belongs_to_a_user(app: Flask, client: FlaskClient) -> None:
    """Two users with one key get their own responses; a renamed user gets the first response."""
    ada, bob, renamed = (
        send(client, "/mine", headers={"X-User": user}) for user in ("1 Ada", "2 Bob", "1 Ada L.")
    )

    assert ada.data != bob.data
    assert "Idempotency-Replayed" not in bob.headers
    assert what_is_first(renamed) == what_is_first(ada)
    assert counts(app) == (2, 2)


def test_a_user_without_an_identity_is_an_error() -> None:
    """The service does not start with an idempotent operation whose users have no identity."""
    with pytest.raises(TypeError, match=r"pass nameless Authentication\(…, identity=…\)"):
        operation(idempotent=True, auth=nameless)(place_mine.__wrapped__)  # type: ignore[attr-defined]


SAME = ["a-b_c/d+e=", '"a-b_c/d+e="', ' "a-b_c/d+e=" ']


def test_a_key_may_have_quotes(app: Flask, client: FlaskClient) -> None:
    """A quoted key, as in the draft, and a bare one, which most clients send, are the same key."""
    answers = [send(client, key=key) for key in SAME]

    assert len({answer.data for answer in answers}) == 1
    assert counts(app) == (1, 1)


GOOD = {
    "a longest one": "k" * 255,
    "a longest one of quotes": '"' + r"\"" * 255 + '"',
    "quotes inside": r'"say \"k\" \\"',
    "a space": '"a k"',
    "a comma": '"a,b"',
}


@pytest.mark.parametrize("name", GOOD)
def test_a_key_of_printable_ascii_is_accepted(client: FlaskClient, name: str) -> None:
    """A key has up to 255 characters of printable ASCII."""
    assert [send(client, key=GOOD[name]).status_code for _ in range(2)] == [201, 201]


BAD = {
    "nothing": "",
    "empty quotes": '""',
    "too long": "k" * 256,
    "too long in quotes": f'"{"k" * 256}"',
    "no ASCII": "k\xe9",
    "a control character": '"k\x7f"',
    "a space": "a k",
    "two keys": '"a", "b"',
    "two bare keys": "a,b",
    "an open quote": '"k',
    "a parameter": '"k";a=1',
    "an unknown escape": r'"\k"',
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_key_is_a_400(app: Flask, client: FlaskClient, name: str) -> None:
    """Any other key gets a 400 with the reason, before the body is read."""
    refused = send(client, key=BAD[name], json={"unknown": 1})

    assert (refused.status_code, refused.content_type) == (400, "application/problem+json")
    problem = refused.get_json(force=True)
    assert problem["title"] == "Idempotency-Key is malformed"
    assert "must" in problem["detail"]
    assert counts(app) == (0, 0)


def test_a_required_key_that_is_missing_is_a_400(app: Flask, client: FlaskClient) -> None:
    """An operation that requires a key returns 400 without one, and 201 with one."""
    refused = client.post("/orders/required", json={})

    assert (refused.status_code, refused.content_type) == (400, "application/problem+json")
    assert refused.get_json(force=True)["title"] == "Idempotency-Key is missing"
    assert send(client, "/required").status_code == 201
    assert counts(app) == (1, 1)


REFUSED = {
    "raise_problem": 409,
    "raise_problem_later": 404,
    "return_problem": 422,
    "return_error": 400,
    "return_failure": 503,
    "break_a_constraint": 409,
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_error_stores_nothing(app: Flask, client: FlaskClient, name: str) -> None:
    """A response of 400 or above stores neither the view's work nor the key, and a repeat runs again."""
    answers = [send(client, f"/tasks/{name}") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [REFUSED[name]] * 2
    assert "Idempotency-Replayed" not in answers[1].headers
    assert counts(app) == (0, 0)


LOUD = {
    "use_options": "remove the options of transaction()",
    "commit": "remove session.commit(), and write inside transaction()",
    "roll_back_an_earlier_one": "a rollback has undone an earlier transaction() of it",
    "close_the_session": "a rollback has undone an earlier transaction() of it",
    "remove_the_session": "a rollback has undone an earlier transaction() of it",
    "stream": "orders.work answers with a stream, which can't be stored",
    "answer_too_much": "orders.work answers with 65537 bytes, of which 65536 can be stored",
    "call_another_view": "call the function that both views need, and no view",
}


@pytest.mark.parametrize("has_key", [True, False], ids=["key", "no key"])
@pytest.mark.parametrize("name", LOUD)
def test_what_cannot_be_one_transaction_fails(
    app: Flask, client: FlaskClient, name: str, has_key: bool
) -> None:
    """A view that cannot commit with its response raises, with or without a key, and stores nothing."""
    headers = {"X-User": "1 Ada"} | ({"Idempotency-Key": "k"} if has_key else {})

    with pytest.raises(RuntimeError) as raised:
        client.post(f"/orders/tasks/{name}", headers=headers)

    assert LOUD[name] in str(raised.value)
    assert counts(app) == (0, 0)


def test_another_session_is_an_error(app: Flask, client: FlaskClient) -> None:
    """A view that removes its session, and so writes outside of the transaction, raises an error."""

    @works
    def remove_the_session_first() -> str:
        db.session.remove()
        return add("too early")

    with pytest.raises(RuntimeError, match="is one transaction, which commits with the answer"):
        send(client, "/tasks/remove_the_session_first")
    assert counts(app)[1] == 0


RIGHT = {
    "answer_much": 1,
    "write_twice": 2,
    "try_again": 1,
    "use_a_savepoint": 1,
    "read_what_a_default_gave": 1,
}


@pytest.mark.parametrize("name", RIGHT)
def test_several_steps_are_one_transaction(app: Flask, client: FlaskClient, name: str) -> None:
    """Two transactions, one after a rollback, and a SAVEPOINT are stored once, with the response."""
    first, second = (send(client, f"/tasks/{name}") for _ in range(2))

    assert first.status_code == 200
    assert what_is_first(first) == what_is_first(second)
    assert counts(app) == (RIGHT[name], 1)


def test_a_later_failure_undoes_an_earlier_step(app: Flask, client: FlaskClient) -> None:
    """If the commit fails, neither the view's work nor the key is stored, and a repeat runs again."""

    def refuse(connection: object) -> None:
        raise RuntimeError("the connection breaks")

    (engine,) = engines_of(app)
    event.listen(engine, "commit", refuse)
    with pytest.raises(RuntimeError, match="the connection breaks"):
        send(client, "/tasks/write_twice")
    event.remove(engine, "commit", refuse)

    assert counts(app) == (0, 0)
    assert "Idempotency-Replayed" not in send(client, "/tasks/write_twice").headers
    assert counts(app) == (2, 1)


def statements_of(engine: Engine, call: Callable[[], TestResponse]) -> list[str]:
    """Return the first words of each statement of a successful request, including BEGIN and COMMIT."""
    found: list[str] = []

    def record(connection: object, cursor: object, statement: str, *rest: object) -> None:
        words = re.findall(r"\w+", statement)
        found.append(" ".join(words[: 3 if words[0] == "INSERT" else 2]))

    def record_end(connection: object) -> None:
        found.append("COMMIT")

    event.listen(engine, "before_cursor_execute", record)
    event.listen(engine, "commit", record_end)
    assert call().status_code == 201
    event.remove(engine, "before_cursor_execute", record)
    event.remove(engine, "commit", record_end)
    return found


def test_a_key_costs_two_statements_and_no_key_none(client: FlaskClient, engine: Engine) -> None:
    """Without a key the statements are those of a plain operation; with a key it is read and written."""
    plain = statements_of(engine, lambda: client.post("/orders/plain", json={}))
    without = statements_of(engine, lambda: client.post("/orders", json={}))
    first = statements_of(engine, lambda: send(client))
    again = statements_of(engine, lambda: send(client))

    is_postgresql = engine.dialect.name == "postgresql"
    begin = [] if is_postgresql else ["BEGIN IMMEDIATE"]
    reads = [*["SELECT pg_try_advisory_xact_lock"] * is_postgresql, "SELECT idempotency_keys"]
    write = "INSERT INTO foundation_samples"
    assert plain == without == [*begin, write, "COMMIT"]
    assert first == [*begin, *reads, write, "INSERT INTO idempotency_keys", "COMMIT"]
    assert again == [*begin, *reads, "COMMIT"]


def test_a_request_beside_the_first_waits_or_is_a_409(app: Flask, engine: Engine) -> None:
    """While the first request runs, a repeat gets 409 with Retry-After on PostgreSQL, and waits on SQLite."""
    begun, go_on = threading.Event(), threading.Event()

    @works
    def wait() -> str:
        begun.set()
        assert go_on.wait(30)
        return add("stored")

    with ThreadPoolExecutor() as pool:
        first = pool.submit(send, app.test_client(), "/tasks/wait")
        assert begun.wait(30)
        second = pool.submit(send, app.test_client(), "/tasks/wait")
        if engine.dialect.name == "postgresql":
            refused = second.result(30)
            assert (refused.status_code, refused.headers["Retry-After"]) == (409, "2")
            assert refused.get_json(force=True)["title"] == "Idempotency-Key belongs to a request that runs"
            # Another key is not in the way.
            assert send(app.test_client(), "/tasks/write_twice", key="k2").status_code == 200
            go_on.set()
            first.result(30)
            second = pool.submit(send, app.test_client(), "/tasks/wait")
        go_on.set()

        assert what_is_first(first.result(30)) == what_is_first(second.result(30))
        assert second.result().headers["Idempotency-Replayed"] == "true"


def test_requests_at_the_same_time_store_once(app: Flask) -> None:
    """Of eight concurrent requests one stores, and all eventually get its response."""
    together = threading.Barrier(8)

    def try_until_stored() -> tuple[object, ...]:
        together.wait(30)
        while (answer := send(app.test_client())).status_code != 201:
            assert answer.status_code in {409, 503}
            assert answer.headers["Retry-After"] == "2"
        return what_is_first(answer)

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(try_until_stored) for _ in range(8)]

    assert len({answer.result() for answer in answers}) == 1
    assert counts(app) == (1, 1)


def test_the_constraint_refuses_what_no_lock_has(app: Flask) -> None:
    """A view that has rolled back holds no lock: if a repeat was faster, its work is undone with a 409."""
    is_first = threading.Lock()
    repeats: list[TestResponse] = []

    @works
    def be_overtaken() -> str:
        if is_first.acquire(blocking=False):
            db.session.rollback()
            with ThreadPoolExecutor() as pool:
                repeats.append(pool.submit(send, app.test_client(), "/tasks/be_overtaken").result(30))
        return add("stored")

    slower = send(app.test_client(), "/tasks/be_overtaken")

    assert repeats[0].status_code == 200
    assert (slower.status_code, slower.headers["Retry-After"]) == (409, "2")
    assert counts(app) == (1, 1)
    assert what_is_first(send(app.test_client(), "/tasks/be_overtaken")) == what_is_first(repeats[0])


def test_the_document_has_the_header_and_its_statuses(app: Flask) -> None:
    """The document names the header where an operation reads it, whether it is required, and the statuses."""
    paths = document(app)["paths"]
    found = {
        path: [each for each in methods["post"]["parameters"] if each["name"] == "Idempotency-Key"]
        for path, methods in paths.items()
    }

    assert found.pop("/orders/plain") == []
    assert {path: each["required"] for path, (each,) in found.items()} == {
        "/orders": False,
        "/orders/mine": False,
        "/orders/required": True,
        "/orders/tasks/{name}": False,
    }
    for path in found:
        responses = paths[path]["post"]["responses"]
        success = next(iter(responses.values()))
        assert set(responses) > {"400", "409", "422"}
        assert "Idempotency-Replayed" in success["headers"]
    assert "400" not in paths["/orders/plain"]["post"]["responses"]
