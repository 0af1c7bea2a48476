"""Input is validated by its type, and output is a model, in every feature."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from pydantic import BaseModel, Field, StringConstraints, create_model
from werkzeug.test import TestResponse

from {{cookiecutter.package_name}}.foundation.http import Input, api, errors, operation
from {{cookiecutter.package_name}}.foundation.http.api import BIGGEST_ID
from {{cookiecutter.package_name}}.foundation.http.inputs import Body


class Line(Input):
    """A part of an order."""

    article: str
    count: Annotated[int, Field(ge=1)] = 1


class Order(Input):
    """The body of a request."""

    name: Annotated[str, StringConstraints(max_length=10)]
    lines: list[Line] = []
    odd: int = Field(default=0, alias="a/b~c")


class Filter(Input):
    """The query of a request."""

    name: str | None = None
    limit: int = Field(default=10, ge=1, le=100)


class Receipt(BaseModel):
    """The body of a response."""

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
    """Return something other than a model."""
    return Response("name,total", 202, mimetype="text/csv")


@operation()
def broken() -> Receipt:
    """Build a result that violates its own model."""
    return Receipt.model_validate({"name": "broken"})


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    """A client of a service without a database."""
    app = Flask("orders")
    app.url_map.converters["row_id"] = api.RowId
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


def test_a_view_gets_body_and_query_and_returns_a_model(client: FlaskClient) -> None:
    """A view gets the body and the query as models, and its returned model is the response."""
    order = {"name": "Ada", "lines": [{"article": "pen", "count": 2}, {"article": "ink"}]}

    response = client.post("/orders?limit=5", json=order)

    assert response.status_code == 201
    assert response.content_type == "application/json"
    assert response.json == {"name": "Ada", "total": 3}
    assert response.headers["Location"] == "/orders?limit=5"


def test_omitted_parameters_have_their_defaults(client: FlaskClient) -> None:
    """Omitted query parameters have their defaults."""
    assert client.get("/orders").json == {"name": "any", "total": 10}


def test_a_view_that_returns_nothing_answers_without_a_body(client: FlaskClient) -> None:
    """A view that returns None responds with 204 and no body."""
    response = client.delete("/orders/1")

    assert (response.status_code, response.data) == (204, b"")


def test_a_view_may_return_its_own_response(client: FlaskClient) -> None:
    """A view may return its own response instead of a model."""
    response = client.get("/export")

    assert (response.status_code, response.mimetype, response.text) == (202, "text/csv", "name,total")


def test_an_invalid_result_is_a_500_without_errors(client: FlaskClient) -> None:
    """A result that violates its model is a bug: a 500 without errors that blame the client."""
    assert refused(client.get("/broken"), 500) == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "application/merge-patch+json"]
)
def test_every_json_type_is_read(client: FlaskClient, content_type: str) -> None:
    """A body of every JSON content type is read."""
    response = client.post("/orders", data='{"name": "Ada"}', content_type=content_type)

    assert response.status_code == 201


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "text/json", "application/jsonp"])
def test_another_type_is_refused_with_415(client: FlaskClient, content_type: str | None) -> None:
    """A body of another content type is rejected with 415."""
    refused(client.post("/orders", data='{"name": "Ada"}', content_type=content_type), 415)


@pytest.mark.parametrize(
    "body", ["", "{", '{"name": "Ada"', "name=Ada", "{'name': 'Ada'}", '{"name": "Ada",}']
)
def test_a_body_that_is_no_json_is_refused_with_400(client: FlaskClient, body: str) -> None:
    """A body that is not JSON is rejected with 400."""
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
def test_every_invalid_member_is_named(client: FlaskClient, order: Any, pointers: list[str]) -> None:
    """A JSON pointer and a detail name every invalid place of the body."""
    found = refused(client.post("/orders", data=json.dumps(order), content_type="application/json"), 422)

    assert [error["pointer"] for error in found] == pointers
    assert all(error["detail"] for error in found)


def test_a_rejection_of_many_members_stays_small(client: FlaskClient) -> None:
    """The rejection of a large body with many errors lists only 20 of them."""
    order = {"x" * 1000 + str(number): number for number in range(500)}

    response = client.post("/orders", json=order)

    assert len(refused(response, 422)) == 20
    assert len(response.data) < 5000


MANY = 5001
TOO_MANY: dict[str, bytes] = {
    "unknown keys": json.dumps({"name": "Ada", **{f"k{number}": 1 for number in range(MANY)}}).encode(),
    "members": json.dumps({"name": "Ada", "lines": [1] * MANY}).encode(),
    "objects": json.dumps({"name": "Ada", "lines": [{}] * MANY}).encode(),
    "an array": json.dumps([1] * MANY).encode(),
    "strings without a comma": b'""' * 3 * MANY + b"," * MANY,
    "after a long string": json.dumps(["x" * 100_000, *[1] * MANY]).encode(),
}


@pytest.mark.parametrize("name", TOO_MANY)
def test_a_body_of_too_many_values_is_refused_early(client: FlaskClient, name: str) -> None:
    """A body of more than 5,000 values is rejected with 422 before any of them is validated."""
    found = refused(client.post("/orders", data=TOO_MANY[name], content_type="application/json"), 422)

    assert found == [{"pointer": "#", "detail": "has more than 5000 values, or too many objects"}]


@pytest.mark.parametrize("name", ["," * 500_000, "[{" * 250_000, '\\"' * 200_000, "x" * 900_000])
def test_signs_in_a_text_are_no_values(client: FlaskClient, name: str) -> None:
    """A long text is one value, whatever it contains."""
    (error,) = refused(client.post("/orders", json={"name": name}), 422)

    assert error["pointer"] == "#/name"


def test_many_errors_are_not_listed(client: FlaskClient) -> None:
    """Above 1,000 errors none of them is listed."""
    response = client.post("/orders", json={f"k{number}": 1 for number in range(4900)})

    assert refused(response, 422) == [{"pointer": "#", "detail": "More than 1000 members do not fit"}]


def test_a_query_of_too_many_values_is_refused(client: FlaskClient) -> None:
    """A query of more than 5,000 parameters is rejected with 422."""
    found = refused(client.get("/orders?" + "&" * MANY), 422)

    assert found == [{"pointer": "#", "detail": "has more than 5000 values, or too many objects"}]


def test_an_operation_may_take_more_values() -> None:
    """An operation for long lists accepts as many values as its `most_values`."""
    app = Flask("numbers")
    errors.init_app(app)

    @app.post("/")
    @operation(most_values=50_000)
    def add(body: list[int]) -> int:
        return sum(body)

    numbers = app.test_client()
    assert numbers.post("/", json=[1] * 40_000).json == 40_000
    assert numbers.post("/", json=[1] * 60_000).status_code == 422


def members_of(number: int) -> dict[str, Any]:
    """Return ten required members of a model."""
    return {f"f{number}_{member}": (int, ...) for member in range(10)}


WIDE = [create_model(f"Wide{number}", __base__=Input, **members_of(number)) for number in range(3)]


@pytest.mark.parametrize(
    ("annotation", "errors", "most"),
    [
        (list[WIDE[0]], 11, 1818),  # type: ignore[valid-type]
        (list[WIDE[0] | WIDE[1] | WIDE[2]], 33, 606),  # type: ignore[valid-type]
        (dict[str, list[WIDE[0] | WIDE[1]] | WIDE[2]], 22, 909),  # type: ignore[valid-type]
        (list[dict[str, int]], 1, 4999),
    ],
)
def test_objects_that_could_give_too_many_errors_are_refused(annotation: Any, errors: int, most: int) -> None:
    """The more members an object can lack, in each model of a union, the fewer objects a body may have."""
    body = Body(annotation)

    assert body.errors_of_one == errors
    assert not body.has_too_many_values(b"[" + b",".join([b"{}"] * most) + b"]")
    assert body.has_too_many_values(b"[" + b",".join([b"{}"] * (most + 2)) + b"]")
    assert not body.has_too_many_values(b'["' + b"{" * 9000 + b'"]')


def test_a_rejection_does_not_repeat_the_input(client: FlaskClient) -> None:
    """A rejection does not repeat the client's input."""
    response = client.post("/orders", json={"name": "secret" * 10})

    refused(response, 422)
    assert "secret" not in response.text


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=ten", "limit=", "unknown=1", "limit=1&limit=2"]
)
def test_a_query_that_does_not_fit_is_refused_with_422(client: FlaskClient, query: str) -> None:
    """A query with an invalid, unknown or repeated parameter is rejected with 422 and its name."""
    (error,) = refused(client.get(f"/orders?{query}"), 422)

    assert error["pointer"] == f"#/{query.partition('=')[0]}"


@pytest.mark.parametrize("order_id", ["1", "42", str(BIGGEST_ID)])
def test_an_id_is_a_number_that_the_database_can_hold(client: FlaskClient, order_id: str) -> None:
    """An id is a positive number that the database can store."""
    assert client.delete(f"/orders/{order_id}").status_code == 204


@pytest.mark.parametrize(
    "order_id",
    ["0", "01", "-1", "+1", "1.0", "1e3", "\u0663", "\uff11", "1 ", "x", str(BIGGEST_ID + 1), "9" * 400],
)
def test_an_invalid_id_is_a_404(client: FlaskClient, order_id: str) -> None:
    """A path with an invalid id returns 404."""
    refused(client.delete(f"/orders/{order_id}"), 404)
