"""Authentication comes first, and its user is a value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Blueprint, Flask, Request
from sqlalchemy import select, text

from {{cookiecutter.package_name}}.foundation.application import create_service
from {{cookiecutter.package_name}}.foundation.database import db, transaction
from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.http import Authentication, Problem, operation

from ..databases import Databases
from ..fixtures import SignIn, make_settings
from ..sample import catalogue
from ..sample.samples import FoundationSample, add_sample

THING = {"madeOn": "2026-11-26"}


@dataclass(frozen=True)
class Reader:
    """The user of a request."""

    count: int


def count_samples(request: Request) -> Reader:
    """Read the user from the database."""
    return Reader(len(db.session().scalars(select(FoundationSample)).all()))


def first_sample(request: Request) -> Any:
    """Return a row as the user."""
    return db.session().scalars(select(FoundationSample)).first()


SCHEME = {"type": "http", "scheme": "basic"}
counting = Authentication(count_samples, name="counting", scheme=SCHEME)
row: Authentication[Any] = Authentication(first_sample, name="row", scheme=SCHEME)
bp = Blueprint("accounts", __name__, url_prefix="/accounts")


@bp.post("/strict")
@operation(auth=counting)
def write_strictly(user: Reader) -> int:
    """Write in a transaction with options."""
    with transaction(isolation_level="SERIALIZABLE") as session:
        add_sample(session, "strict")
    return user.count


@bp.get("/row")
@operation(auth=row)
def read_row() -> None:
    """Do nothing."""


@pytest.fixture
def app(own_databases: Databases) -> Iterator[Flask]:
    """A service with two features that authenticate."""
    settings = make_settings(own_databases.sampled())
    app = create_service(__name__, settings, features=[catalogue.bp, bp])
    yield app
    for engine in engines_of(app):
        engine.dispose()


def test_a_request_without_a_user_is_a_401(app: Flask) -> None:
    """An unauthenticated request gets 401 with a challenge, before its input is validated."""
    response = app.test_client().post("/catalogue/me", data="no json", content_type="text/plain")

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="catalogue"'
    assert response.content_type == "application/problem+json"


def test_a_view_gets_the_user(app: Flask) -> None:
    """A view gets its user, and its input is validated after that."""
    client = app.test_client()
    headers = {"Authorization": "Bearer ada"}

    assert client.post("/catalogue/me", json=THING, headers=headers).json == "ada"
    assert client.post("/catalogue/me", json={}, headers=headers).status_code == 422
    assert client.delete("/catalogue/things", headers=headers).status_code == 204


def test_a_transaction_may_have_options_after_it(app: Flask) -> None:
    """The reads of an authentication end before the view begins a transaction with options."""
    client = app.test_client()

    assert [client.post("/accounts/strict").json for _ in range(2)] == [0, 1]


def test_a_row_is_no_user(app: Flask) -> None:
    """An authentication that returns a row of the database is a bug: a 500."""
    with app.app_context(), transaction() as session:
        session.execute(text("DELETE FROM foundation_samples"))
        add_sample(session, "a row")

    app.testing = False
    assert app.test_client().get("/accounts/row").status_code == 500


def test_a_user_needs_an_authentication() -> None:
    """A view with a user and no authentication fails when it is defined."""

    def view(user: Reader) -> None:
        """Do nothing."""

    with pytest.raises(TypeError, match=r"pass operation\(auth=…\)"):
        operation()(view)


def test_a_test_may_choose_the_user(app: Flask, sign_in: SignIn) -> None:
    """The fixture `sign_in` returns a client whose requests have a user."""
    client = sign_in(catalogue.bearer, catalogue.User("grace"))

    assert client.post("/catalogue/me", json=THING).json == "grace"


def test_the_choice_ends_with_its_test(app: Flask) -> None:
    """After that test, requests are no longer authenticated."""
    assert app.test_client().post("/catalogue/me", json=THING).status_code == 401


def test_a_problem_has_headers(app: Flask) -> None:
    """The headers of a `Problem` are those of its response."""
    problem = Problem(429, "Later.", headers={"Retry-After": "7"}, limit=3)

    assert ("Retry-After", "7") in problem.get_headers()
    assert problem.members == {"limit": 3}
