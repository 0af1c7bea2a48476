"""Operations with every kind of input and output."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{cookiecutter.package_name}}.foundation.http import errors, operation
from {{cookiecutter.package_name}}.foundation.http.openapi import document

from ..sample import catalogue

THING = {"madeOn": "2026-11-26"}
WHOLE = {
    "madeOn": "2026-11-26",
    "colour": "blue",
    "size": [2, 3],
    "tags": ["a", "b"],
    "shape": {"kind": "circle", "radius": 1.5},
    "parts": {"leg": {"name": "leg", "parts": [{"name": "foot", "parts": []}]}},
    "note": "small",
}
PATH = "/catalogue/things/0c5d9cf4-9c9f-4f60-9e7b-1f3f2a1b0d5e"


@pytest.fixture(scope="module")
def app() -> Flask:
    """A service without a database."""
    app = Flask("catalogue")
    errors.init_app(app)
    app.register_blueprint(catalogue.bp)
    return app


@pytest.fixture(scope="module")
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="module")
def paths(app: Flask) -> dict[str, Any]:
    """The paths of the document."""
    found: dict[str, Any] = document(app)["paths"]
    return found


def test_a_body_returns_as_it_came(client: FlaskClient) -> None:
    """Enums, tuples, root models, unions, maps and nested models keep their JSON form, including names."""
    response = client.post(PATH, json=WHOLE)

    assert (response.status_code, response.json) == (202, WHOLE)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"colour": "green"}, "#/colour"),
        ({"size": [1]}, "#/size/1"),
        ({"size": [1, True]}, "#/size/1"),
        ({"size": ["1", 1]}, "#/size/0"),
        ({"shape": {"kind": "square", "side": False}}, "#/shape/square/side"),
        ({"madeOn": 0}, "#/madeOn"),
        ({"tags": "a"}, "#/tags"),
        ({"shape": {"kind": "line"}}, "#/shape"),
        ({"shape": {"kind": "circle"}}, "#/shape/circle/radius"),
        ({"parts": {"leg": {"parts": []}}}, "#/parts/leg/name"),
        ({"made_on": "2026-11-26"}, "#/made_on"),
    ],
)
def test_a_member_of_another_type_is_refused(
    client: FlaskClient, change: dict[str, Any], pointer: str
) -> None:
    """A member that does not fit its type is rejected with 422 and its place."""
    response = client.post(PATH, json=THING | change)

    assert response.status_code == 422
    assert [error["pointer"] for error in response.get_json(force=True)["errors"]] == [pointer]


def test_a_validator_speaks_for_itself(client: FlaskClient) -> None:
    """The message of a validator reaches the client without a prefix of the library."""
    response = client.post(PATH, json=THING | {"note": "n1"})

    (error,) = response.get_json(force=True)["errors"]
    assert error == {"pointer": "#/note", "detail": "must not contain a digit"}


@pytest.mark.parametrize(
    ("query", "tags"), [("", []), ("tags=a", ["a"]), ("tags=a&tags=b", ["a", "b"]), ("sizes=1&sizes=2", [])]
)
def test_a_list_in_a_query_takes_one_value_or_more(client: FlaskClient, query: str, tags: list[str]) -> None:
    """A list field accepts a parameter once, several times or never."""
    (thing,) = client.get(f"/catalogue/things?{query}&colour=red").get_json()

    assert (thing["tags"], thing["colour"], thing["madeOn"]) == (tags, "red", "2026-01-01")


@pytest.mark.parametrize("query", ["limit=1&limit=2", "colour=red&colour=red", "colour=green", "sizes=x"])
def test_a_query_of_another_type_is_refused(client: FlaskClient, query: str) -> None:
    """A parameter that is not a list is rejected if it is repeated or has the wrong type."""
    assert client.get(f"/catalogue/things?{query}").status_code == 422


def test_a_list_of_models_is_a_body_and_an_answer(client: FlaskClient) -> None:
    """A body may be a list, and a response a map of optional values."""
    shapes = [{"kind": "square", "side": 2.0}]

    assert client.put("/catalogue/shapes/0/first", json=shapes).json == {"first": shapes[0]}
    assert client.put("/catalogue/shapes/7/none", json=shapes).json == {"none": None}
    refused = client.put("/catalogue/shapes/0/x", json=[{"kind": "square"}])
    assert refused.get_json(force=True)["errors"][0]["pointer"] == "#/0/square/side"


@pytest.mark.parametrize(("name", "answer"), [("red", "red"), ("blue", "blue"), ("dark/green", None)])
def test_an_enum_or_nothing_is_an_answer(client: FlaskClient, name: str, answer: str | None) -> None:
    """A response may be an enum or null."""
    response = client.get(f"/catalogue/colours/{name}")

    assert (response.status_code, response.json) == (200, answer)


def test_headers_are_input(client: FlaskClient) -> None:
    """Headers fill their model, whatever their case, and others are ignored."""
    response = client.get("/catalogue/tenant", headers={"x-TENANT": "blue", "X-Other": "1"})

    assert response.json == ["blue", 4]
    refused = client.get("/catalogue/tenant")
    assert (refused.status_code, refused.get_json(force=True)["errors"][0]["pointer"]) == (422, "#/x_tenant")


def test_a_form_with_files_is_input(client: FlaskClient) -> None:
    """A multipart form fills its model, including files."""
    files = [(io.BytesIO(b"abc"), "a.txt"), (io.BytesIO(b""), "b.txt")]

    response = client.post("/catalogue/files", data={"title": "one", "files": files})

    assert (response.status_code, response.json) == (201, {"a.txt": 3, "b.txt": 0})
    assert response.headers["Location"] == "/one"


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_without_files_takes_both_types(client: FlaskClient, content_type: str) -> None:
    """A form without files may have either content type."""
    response = client.post(
        "/catalogue/login", data={"name": "Ada", "scopes": ["read"]}, content_type=content_type
    )

    assert response.json == ["read"]


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("login", "application/json"), ("files", "application/x-www-form-urlencoded"), ("files", "text/plain")],
)
def test_a_form_of_another_type_is_a_415(client: FlaskClient, path: str, content_type: str) -> None:
    """A form of another content type is rejected with 415."""
    response = client.post(f"/catalogue/{path}", data="title=one", content_type=content_type)

    assert response.status_code == 415


def test_a_form_that_does_not_fit_is_a_422(client: FlaskClient) -> None:
    """Text instead of a file, an unknown field and a missing field are rejected with their locations."""
    data = {"files": "a text", "odd": "1"}

    response = client.post("/catalogue/files", data=data, content_type="multipart/form-data")

    errors_of = response.get_json(force=True)["errors"]
    assert [error["pointer"] for error in errors_of] == ["#/title", "#/files/0", "#/odd"]


def test_a_form_of_too_many_fields_is_a_422(client: FlaskClient) -> None:
    """A form of more than 5,000 fields is rejected before it is parsed."""
    content_type = "application/x-www-form-urlencoded"

    assert client.post("/catalogue/login", data="a&" * 5001, content_type=content_type).status_code == 422


def test_a_stream_is_an_answer(client: FlaskClient) -> None:
    """A view may stream its own response."""
    response = client.get("/catalogue/export")

    assert (response.mimetype, response.text) == ("text/csv", "name\none\n")


def wrong_type() -> catalogue.Thing:
    """Return something other than the documented type."""
    return json.loads("[]")  # type: ignore[no-any-return]


def wrong_list() -> list[catalogue.Thing]:
    """Return members of another type."""
    return json.loads("[1]")  # type: ignore[no-any-return]


def unexpected() -> None:
    """Return something where nothing is documented."""
    return json.loads("{}")  # type: ignore[no-any-return]


@pytest.mark.parametrize("view", [wrong_type, wrong_list, unexpected])
def test_an_answer_of_another_type_is_a_500(view: Any) -> None:
    """A response that does not fit the document is a bug: a 500."""
    app = Flask("wrong")
    errors.init_app(app)
    app.add_url_rule("/", view_func=operation()(view))

    assert app.test_client().get("/").status_code == 500


def test_path_parameters_have_the_types_of_the_view(paths: dict[str, Any]) -> None:
    """A path parameter is documented by the view's annotation."""
    schemas = {
        parameter["name"]: parameter["schema"]
        for path in paths.values()
        for described in path.values()
        for parameter in described["parameters"]
        if parameter["in"] == "path"
    }

    assert schemas["key"] == {"type": "string", "format": "uuid"}
    assert schemas["number"] == {"type": "integer"}
    assert schemas["name"] == {"type": "string"}


def test_inputs_are_documented_where_they_are_sent(
    app: Flask, client: FlaskClient, paths: dict[str, Any]
) -> None:
    """Queries and headers are parameters, with references that resolve; forms have their content types."""
    listed = paths["/catalogue/things"]["get"]
    assert [(p["name"], p["in"], p["required"]) for p in listed["parameters"]] == [
        ("tags", "query", False),
        ("colour", "query", False),
        ("sizes", "query", False),
        ("limit", "query", False),
    ]
    # A set is a list whose items may be repeated.
    (sizes,) = (part["schema"] for part in listed["parameters"] if part["name"] == "sizes")
    assert sizes["anyOf"][0] == {"type": "array", "items": {"type": "integer"}}
    assert client.get("/catalogue/things?sizes=1&sizes=1").status_code == 200
    tenant = paths["/catalogue/tenant"]["get"]["parameters"]
    assert [(p["name"], p["in"], p["required"]) for p in tenant] == [
        ("X-Tenant", "header", True),
        ("Accept-Language", "header", False),
    ]
    files = paths["/catalogue/files"]["post"]["requestBody"]["content"]
    assert list(files) == ["multipart/form-data"]
    # A form can't give an empty list.
    upload = document(app)["components"]["schemas"][_name(files["multipart/form-data"]["schema"])]
    assert upload["properties"]["files"]["minItems"] == 1
    assert len(paths["/catalogue/login"]["post"]["requestBody"]["content"]) == 2
    assert list(paths["/catalogue/export"]["get"]["responses"]["200"]["content"]) == ["text/csv"]


def _name(schema: dict[str, str]) -> str:
    """Return the name of the definition that a schema refers to."""
    return schema["$ref"].rpartition("/")[2]


def test_the_document_has_what_the_operation_names(app: Flask, paths: dict[str, Any]) -> None:
    """Tags, descriptions, further statuses, deprecation and security schemes are documented."""
    put = paths["/catalogue/things/{key}"]["post"]
    assert (put["summary"], put["description"]) == ("Keep a thing.", "It is returned as it is kept.")
    assert put["tags"] == ["things"]
    assert set(put["responses"]) == {"202", "404", "409", "default"}
    conflict = put["responses"]["409"]["content"]["application/problem+json"]["schema"]
    assert conflict == {"$ref": "#/components/schemas/OutOfStock"}
    assert paths["/catalogue/things"]["get"]["deprecated"] is True
    assert paths["/catalogue/things"]["get"]["tags"] == ["catalogue"]
    assert paths["/catalogue/me"]["post"]["security"] == [{"bearer": []}]
    assert "security" not in put
    schemes = document(app)["components"]["securitySchemes"]
    assert schemes == {"bearer": {"type": "http", "scheme": "bearer"}}


def test_the_document_names_the_prefix_of_the_service(app: Flask) -> None:
    """Below a prefix the document names it as the server of its paths."""
    with app.test_request_context("/openapi.json", environ_overrides={"SCRIPT_NAME": "/api"}):
        assert document(app)["servers"] == [{"url": "/api"}]
    assert "servers" not in document(app)


def test_no_definition_is_unused(app: Flask) -> None:
    """Every definition of the document is used, and every reference resolves."""
    found = document(app)
    used = set(json.dumps(found).split('"#/components/schemas/')[1:])

    assert {name.partition('"')[0] for name in used} == set(found["components"]["schemas"])
