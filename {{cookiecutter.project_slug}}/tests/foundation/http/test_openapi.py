"""The document matches the service, and its page loads nothing from another host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{cookiecutter.package_name}}.foundation.database.session import engines_of
from {{cookiecutter.package_name}}.foundation.http.openapi import document

from ..databases import Databases
from ..fixtures import make_settings
from ..sample.app import create_app

Schema = dict[str, Any]


@pytest.fixture(scope="module")
def app(own_databases: Databases) -> Iterator[Flask]:
    """The described service."""
    app = create_app(make_settings(own_databases.sampled()))
    yield app
    for engine in engines_of(app):
        engine.dispose()


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
    """Find every value of a key, at any depth."""
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == key)
        yield from (found for value in node.values() for found in values_of(value, key))
    elif isinstance(node, list):
        yield from (found for value in node for found in values_of(value, key))


def test_the_document_is_openapi_3_1(described: Schema) -> None:
    """The document is OpenAPI 3.1 and has only the expected members."""
    assert described["openapi"] == "3.1.0"
    assert set(described) == {"openapi", "info", "paths", "components"}
    assert set(described["info"]) == {"title", "version"}
    assert described["paths"]


def test_every_reference_resolves(described: Schema) -> None:
    """Every reference resolves to the schema of an object."""
    references = set(values_of(described, "$ref"))

    assert references
    for reference in references:
        node = described
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node["type"] == "object"


def test_every_schema_is_used(described: Schema) -> None:
    """Every component schema is referenced."""
    used = {reference.rpartition("/")[2] for reference in values_of(described, "$ref")}

    assert used == set(described["components"]["schemas"])


def test_operation_ids_are_unique(described: Schema) -> None:
    """Operation ids are unique."""
    ids = [operation["operationId"] for _, _, operation in operations(described)]

    assert len(set(ids)) == len(ids)


def test_every_operation_of_the_service_is_described(app: Flask, described: Schema) -> None:
    """The document describes every operation of the service, and no other."""
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if hasattr(app.view_functions[rule.endpoint], "operation")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert {(path, method) for path, method, _ in operations(described)} == served


def test_every_path_parameter_is_described(described: Schema) -> None:
    """Every path parameter is described as required."""
    for path, _, operation in operations(described):
        in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path" and p["required"]}
        assert in_path == set(re.findall(r"{(\w+)}", path))


def test_every_parameter_has_a_unique_name_and_a_schema(described: Schema) -> None:
    """Every parameter of an operation has a unique name and a schema."""
    for _, _, operation in operations(described):
        names = [(parameter["in"], parameter["name"]) for parameter in operation["parameters"]]
        assert len(set(names)) == len(names)
        assert all(parameter["schema"] for parameter in operation["parameters"])


def test_every_operation_has_a_summary_and_responses(described: Schema) -> None:
    """Every operation has a summary, one successful status, and a description of each response."""
    for _, _, operation in operations(described):
        assert operation["summary"]
        (success,) = [status for status in operation["responses"] if status < "400"]
        assert re.fullmatch(r"2\d\d", success)
        assert ("content" in operation["responses"][success]) is (success != "204")
        assert all(response["description"] for response in operation["responses"].values())


def test_every_operation_may_answer_with_a_problem(described: Schema) -> None:
    """Every operation describes problem+json as its default response."""
    for _, _, operation in operations(described):
        content = operation["responses"]["default"]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_only_methods_with_a_body_describe_one(described: Schema) -> None:
    """Only POST, PUT and PATCH describe a body, which is required and JSON."""
    for _, method, operation in operations(described):
        if "requestBody" in operation:
            assert method in {"post", "put", "patch"}
            assert operation["requestBody"]["required"] is True
            assert set(operation["requestBody"]["content"]) == {"application/json"}


def test_schemas_of_request_bodies_are_closed(described: Schema) -> None:
    """The schemas of request bodies allow no additional members."""
    schemas = described["components"]["schemas"]
    bodies = [
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for _, _, operation in operations(described)
        if "requestBody" in operation
    ]

    assert all(schemas[name]["additionalProperties"] is False for name in bodies)


def test_every_answer_has_the_headers_that_are_documented(client: FlaskClient, described: Schema) -> None:
    """Every successful response has its documented headers."""
    created = client.post("/samples", json={"text": "described"})
    path = created.headers["Location"]
    etag = {"If-Match": created.headers["ETag"]}
    answers = {
        ("/samples", "post"): created,
        ("/samples", "get"): client.get("/samples"),
        ("/samples/{sample_id}", "get"): client.get(path),
        ("/samples/{sample_id}", "patch"): client.patch(path, json={"text": "changed"}, headers=etag),
        ("/samples/{sample_id}", "delete"): client.delete(path),
    }

    assert len(answers) == len(operations(described))
    for path, method, operation in operations(described):
        answer = answers[path, method]
        success = operation["responses"][str(answer.status_code)]
        named = set(success.get("headers", {})) - {"Idempotency-Replayed"}  # Only a repeat has it.
        assert named == {"ETag", "Location"} & set(answer.headers.keys())


def test_the_need_of_if_match_is_documented(described: Schema) -> None:
    """The document requires If-Match for a change, allows it for a removal, and names it nowhere else."""
    needed = {
        (path, method, parameter["required"])
        for path, method, operation in operations(described)
        for parameter in operation["parameters"]
        if (parameter["in"], parameter["name"]) == ("header", "If-Match")
    }

    assert needed == {("/samples/{sample_id}", "patch", True), ("/samples/{sample_id}", "delete", False)}


def test_the_document_does_not_change_between_requests(app: Flask, described: Schema) -> None:
    """The document does not change between requests."""
    assert document(app) == described


def test_the_page_names_no_other_host(client: FlaskClient) -> None:
    """The page and its script refer to no other host, and the service serves everything that they load."""
    page = client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert len(loaded) == 5
    assert "//" not in page + client.get("/docs/show.js").text
    for path in loaded:
        assert client.get(f"/{path}").status_code == 200, path


def test_the_page_runs_only_scripts_of_the_service(client: FlaskClient) -> None:
    """The policy of the page allows scripts, styles and requests of the service, and nothing inline."""
    policy = client.get("/docs").headers["Content-Security-Policy"]

    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:")
    assert not re.search(r"<style|\bstyle=|\bon\w+=|javascript:|<script>", client.get("/docs").text)


def test_the_page_can_be_turned_off(own_databases: Databases) -> None:
    """With API_DOCS=off there is no page and no redirect to it, but the document stays."""
    app = create_app(make_settings(own_databases.sampled(), api_docs="off"))
    client = app.test_client()

    paths = ["/", "/docs", "/docs/show.js", "/docs/assets/swagger-ui.css", "/openapi.json"]
    assert [client.get(path).status_code for path in paths] == [404, 404, 404, 404, 200]
    for engine in engines_of(app):
        engine.dispose()


@pytest.mark.parametrize("host", ['"><script>', "a'b", "<b>", "a b"])
def test_the_page_does_not_repeat_an_invalid_host(client: FlaskClient, host: str) -> None:
    """The page does not repeat an invalid Host header."""
    page = client.get("/docs", headers={"Host": host}).text

    assert host not in page


@pytest.fixture
def own_app(own_databases: Databases) -> Iterator[Flask]:
    """A production service that a test may change."""
    app = create_app(make_settings(own_databases.sampled(), app_env="production", log_level="info"))
    yield app
    for engine in engines_of(app):
        engine.dispose()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("prefix", ["", "/mounted"])
def test_the_root_leads_to_the_page(
    own_app: Flask, method: str, prefix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The root redirects to the page, below the prefix at which a server mounts the service."""
    answer = own_app.test_client().open(
        "/", method=method, environ_overrides={"SCRIPT_NAME": prefix}, buffered=True
    )

    assert (answer.status_code, answer.headers["Location"]) == (302, f"{prefix}/docs")
    line = json.loads(capfd.readouterr().err)
    assert (line["message"], line["route"]) == (f"{method} / 302", "")


def test_the_root_is_no_operation(client: FlaskClient, described: Schema) -> None:
    """The root is not in the document, and other methods and paths are not found."""
    assert "/" not in described["paths"]
    assert [client.post("/").status_code, client.get("/nowhere").status_code] == [404, 404]
    assert client.get("/").headers["Location"] == "/docs"


def test_a_page_of_the_owner_at_the_root_wins(own_app: Flask) -> None:
    """A view of the owner at the root is served, even if app.py adds it after everything else."""

    @own_app.get("/")
    def home() -> str:
        return "home"

    assert own_app.test_client().get("/").text == "home"


def test_another_method_of_the_owner_at_the_root_wins(own_app: Flask) -> None:
    """If the owner's view at the root accepts only another method, GET is not allowed there."""

    @own_app.post("/")
    def create() -> str:
        return "created"

    assert own_app.test_client().get("/").status_code == 405
