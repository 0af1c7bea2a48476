"""Input that is checked by its type, output that is a model, whatever the feature."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from pydantic import BaseModel, Field, StringConstraints
from werkzeug.test import TestResponse

from {{cookiecutter.package_name}} import api, errors
from {{cookiecutter.package_name}}.api import BIGGEST_ID, Input, operation


class Line(Input):
    """A part of an order."""

    article: str
    count: Annotated[int, Field(ge=1)] = 1


class Order(Input):
    """What a client sends."""

    name: Annotated[str, StringConstraints(max_length=10)]
    lines: list[Line] = []
    odd: int = Field(default=0, alias="a/b~c")


class Filter(Input):
    """Which orders."""

    name: str | None = None
    limit: int = Field(default=10, ge=1, le=100)


class Receipt(BaseModel):
    """What a client gets."""

    name: str
    total: int


@operation(status=201)
def place(body: Order, query: Filter) -> tuple[Receipt, dict[str, str]]:
    """Place an order."""
    receipt = Receipt(name=body.name, total=sum(line.count for line in body.lines))
    return receipt, {"Location": f"/orders?limit={query.limit}"}


@operation()
def find(query: Filter) -> Receipt:
    """Find an order."""
    return Receipt(name=query.name or "any", total=query.limit)


@operation(status=204)
def cancel(order_id: int) -> None:
    """Cancel an order."""


@operation()
def export() -> Response:
    """Answer with something else than a model."""
    return Response("name,total", 202, mimetype="text/csv")


@operation()
def broken() -> Receipt:
    """Build an answer that does not fit its own model."""
    return Receipt.model_validate({"name": "broken"})


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    """A client of a service without a database."""
    app = Flask("orders")
    api.init_app(app)
    errors.init_app(app)
    app.add_url_rule("/orders", view_func=place, methods=["POST"])
    app.add_url_rule("/orders", view_func=find)
    app.add_url_rule("/orders/<row_id:order_id>", view_func=cancel, methods=["DELETE"])
    app.add_url_rule("/export", view_func=export)
    app.add_url_rule("/broken", view_func=broken)
    return app.test_client()


def refused(response: TestResponse, status: int) -> list[dict[str, str]]:
    """Check a refusal and return its errors."""
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    found: list[dict[str, str]] = response.get_json(force=True).get("errors", [])
    return found


def test_body_and_query_are_given_to_the_view_and_its_model_is_the_answer(client: FlaskClient) -> None:
    order = {"name": "Ada", "lines": [{"article": "pen", "count": 2}, {"article": "ink"}]}

    response = client.post("/orders?limit=5", json=order)

    assert response.status_code == 201
    assert response.content_type == "application/json"
    assert response.json == {"name": "Ada", "total": 3}
    assert response.headers["Location"] == "/orders?limit=5"


def test_what_is_not_sent_has_its_default(client: FlaskClient) -> None:
    assert client.get("/orders").json == {"name": "any", "total": 10}


def test_a_view_that_returns_nothing_answers_without_a_body(client: FlaskClient) -> None:
    response = client.delete("/orders/1")

    assert (response.status_code, response.data) == (204, b"")


def test_a_view_may_return_a_response_of_its_own(client: FlaskClient) -> None:
    response = client.get("/export")

    assert (response.status_code, response.mimetype, response.text) == (202, "text/csv", "name,total")


def test_an_answer_that_does_not_fit_is_a_bug_and_not_the_clients_fault(client: FlaskClient) -> None:
    assert refused(client.get("/broken"), 500) == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "application/merge-patch+json"]
)
def test_every_json_type_is_read(client: FlaskClient, content_type: str) -> None:
    response = client.post("/orders", data='{"name": "Ada"}', content_type=content_type)

    assert response.status_code == 201


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "text/json", "application/jsonp"])
def test_another_type_is_refused_with_415(client: FlaskClient, content_type: str | None) -> None:
    refused(client.post("/orders", data='{"name": "Ada"}', content_type=content_type), 415)


@pytest.mark.parametrize(
    "body", ["", "{", '{"name": "Ada"', "name=Ada", "{'name': 'Ada'}", '{"name": "Ada",}']
)
def test_a_body_that_is_no_json_is_refused_with_400(client: FlaskClient, body: str) -> None:
    (error,) = refused(client.post("/orders", data=body, content_type="application/json"), 400)

    assert error["pointer"] == "#"


@pytest.mark.parametrize(
    ("order", "pointers"),
    [
        ({}, ["#/name"]),
        ({"name": 1}, ["#/name"]),
        ({"name": "far too long"}, ["#/name"]),
        ({"name": "Ada", "colour": "red"}, ["#/colour"]),
        (
            {"name": "Ada", "lines": [{"article": "pen"}, {"count": 0}]},
            ["#/lines/1/article", "#/lines/1/count"],
        ),
        ({"name": "Ada", "a/b~c": "x"}, ["#/a~1b~0c"]),
        ([], ["#/"]),
        (None, ["#/"]),
    ],
)
def test_each_place_that_does_not_fit_is_named(client: FlaskClient, order: Any, pointers: list[str]) -> None:
    found = refused(client.post("/orders", data=json.dumps(order), content_type="application/json"), 422)

    assert [error["pointer"] for error in found] == pointers
    assert all(error["detail"] for error in found)


def test_a_refusal_of_much_stays_small(client: FlaskClient) -> None:
    order = {"x" * 1000 + str(number): number for number in range(500)}

    response = client.post("/orders", json=order)

    assert len(refused(response, 422)) == 20
    assert len(response.data) < 5000


def test_a_refusal_does_not_repeat_what_was_sent(client: FlaskClient) -> None:
    response = client.post("/orders", json={"name": "secret" * 10})

    refused(response, 422)
    assert "secret" not in response.text


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=ten", "limit=", "unknown=1", "limit=1&limit=2"]
)
def test_a_query_that_does_not_fit_is_refused_with_422(client: FlaskClient, query: str) -> None:
    (error,) = refused(client.get(f"/orders?{query}"), 422)

    assert error["pointer"] == f"#/{query.partition('=')[0]}"


@pytest.mark.parametrize("order_id", ["1", "42", str(BIGGEST_ID)])
def test_an_id_is_a_number_that_the_database_can_hold(client: FlaskClient, order_id: str) -> None:
    assert client.delete(f"/orders/{order_id}").status_code == 204


@pytest.mark.parametrize(
    "order_id",
    ["0", "01", "-1", "+1", "1.0", "1e3", "\u0663", "\uff11", "1 ", "x", str(BIGGEST_ID + 1), "9" * 400],
)
def test_anything_else_is_no_page(client: FlaskClient, order_id: str) -> None:
    refused(client.delete(f"/orders/{order_id}"), 404)
