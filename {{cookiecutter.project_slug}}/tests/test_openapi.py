"""The document fits the service, and the page about it needs nothing else."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{cookiecutter.package_name}}.app import create_app
from {{cookiecutter.package_name}}.openapi import document

from .conftest import make_settings

Schema = dict[str, Any]


@pytest.fixture(scope="module")
def app() -> Flask:
    """The service; describing it needs no database."""
    return create_app(make_settings("sqlite:///no.db"))


@pytest.fixture(scope="module")
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="module")
def described(client: FlaskClient) -> Schema:
    """The document as a client gets it."""
    response = client.get("/openapi.json")
    assert (response.status_code, response.content_type) == (200, "application/json")
    found: Schema = response.get_json()
    return found


def operations(described: Schema) -> list[tuple[str, str, Schema]]:
    return [
        (path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


def values_of(node: object, key: str) -> Iterator[Any]:
    """Find every value that a key has, however deep."""
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == key)
        yield from (found for value in node.values() for found in values_of(value, key))
    elif isinstance(node, list):
        yield from (found for value in node for found in values_of(value, key))


def test_the_document_is_openapi_3_1(described: Schema) -> None:
    assert described["openapi"] == "3.1.0"
    assert set(described) == {"openapi", "info", "paths", "components"}
    assert set(described["info"]) == {"title", "version"}
    assert described["paths"]


def test_every_reference_leads_somewhere(described: Schema) -> None:
    references = set(values_of(described, "$ref"))

    assert references
    for reference in references:
        node = described
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node["type"] == "object"


def test_every_schema_is_used(described: Schema) -> None:
    used = {reference.rpartition("/")[2] for reference in values_of(described, "$ref")}

    assert used == set(described["components"]["schemas"])


def test_operation_ids_are_unique(described: Schema) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(described)]

    assert len(set(ids)) == len(ids)


def test_every_operation_of_the_service_is_described(app: Flask, described: Schema) -> None:
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if hasattr(app.view_functions[rule.endpoint], "hints")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert {(path, method) for path, method, _ in operations(described)} == served


def test_every_path_parameter_is_described(described: Schema) -> None:
    for path, _, operation in operations(described):
        in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path" and p["required"]}
        assert in_path == set(re.findall(r"{(\w+)}", path))


def test_every_parameter_has_a_name_of_its_own_and_a_schema(described: Schema) -> None:
    for _, _, operation in operations(described):
        names = [(parameter["in"], parameter["name"]) for parameter in operation["parameters"]]
        assert len(set(names)) == len(names)
        assert all(parameter["schema"] for parameter in operation["parameters"])


def test_every_operation_says_what_it_does_and_answers(described: Schema) -> None:
    for _, _, operation in operations(described):
        assert operation["summary"]
        (success,) = [status for status in operation["responses"] if status != "default"]
        assert re.fullmatch(r"2\d\d", success)
        assert ("content" in operation["responses"][success]) is (success != "204")
        assert all(response["description"] for response in operation["responses"].values())


def test_every_operation_may_answer_with_a_problem(described: Schema) -> None:
    for _, _, operation in operations(described):
        content = operation["responses"]["default"]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_only_methods_with_a_body_describe_one(described: Schema) -> None:
    for _, method, operation in operations(described):
        if "requestBody" in operation:
            assert method in {"post", "put", "patch"}
            assert operation["requestBody"]["required"] is True
            assert set(operation["requestBody"]["content"]) == {"application/json"}


def test_what_a_client_sends_is_closed(described: Schema) -> None:
    schemas = described["components"]["schemas"]
    bodies = [
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for _, _, operation in operations(described)
        if "requestBody" in operation
    ]

    assert all(schemas[name]["additionalProperties"] is False for name in bodies)


def test_the_document_does_not_change_between_requests(app: Flask, described: Schema) -> None:
    assert document(app) == described


def test_the_page_names_no_other_host_and_runs_nothing(client: FlaskClient) -> None:
    page = client.get("/docs", headers={"Host": "notes.example"}).text

    assert set(re.findall(r"//([\w.:-]+)", page)) == {"notes.example"}
    assert not re.search(r"<script|<iframe|<link|<img|\bsrc=|@import|url\(|\bon\w+=|javascript:", page)


def test_the_page_lists_every_operation(client: FlaskClient, described: Schema) -> None:
    page = html.unescape(client.get("/docs").text)

    for path, method, operation in operations(described):
        assert f'<span class="method">{method.upper()}</span> {path}</code> {operation["summary"]}' in page


def test_every_link_of_the_page_leads_somewhere(client: FlaskClient) -> None:
    page = client.get("/docs").text
    places = set(re.findall(r'id="([^"]+)"', page))

    for link in re.findall(r'href="([^"]+)"', page):
        if link.startswith("#"):
            assert link[1:] in places
        else:
            assert client.get(f"/{link}").status_code == 200


def test_the_page_shows_every_field(client: FlaskClient, described: Schema) -> None:
    page = client.get("/docs").text

    for schema in described["components"]["schemas"].values():
        for field in schema["properties"]:
            assert f"<code>{field}</code>" in page


@pytest.mark.parametrize("host", ['"><script>', "a'b", "<b>", "a b"])
def test_the_page_repeats_no_host_that_is_none(client: FlaskClient, host: str) -> None:
    page = client.get("/docs", headers={"Host": host}).text

    assert host not in page
