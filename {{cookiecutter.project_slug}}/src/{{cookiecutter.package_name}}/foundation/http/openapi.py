"""The OpenAPI document, generated from the types of the views, and a page that shows it."""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    abort,
    current_app,
    has_request_context,
    redirect,
    render_template,
    request,
    url_for,
)
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import core_schema
from werkzeug.exceptions import NotFound
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.routing import Rule

from ..edge.headers import SECURITY_HEADERS
from .api import operation
from .idempotency import HEADER, PATTERN, REPLAYED
from .inputs import Fields

bp = Blueprint("openapi", __name__)
# The page loads its assets from a package, never from another host.
UI = importlib.util.find_spec("flask_swagger_ui")
pages = Blueprint(
    "docs",
    __name__,
    template_folder="templates",
    static_folder=Path(*UI.submodule_search_locations or (), "dist") if UI else None,
    static_url_path="/docs/assets",
)
SHOW = """SwaggerUIBundle({
    url: "openapi.json", dom_id: "#ui", deepLinking: true, tryItOutEnabled: true, validatorUrl: null
});
"""
ALLOWED = [f"{kind}-src 'self'" for kind in ("script", "style", "connect")] + ["img-src 'self' data:"]

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
PROBLEM: Schema = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "request_id": TEXT,
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": {"pointer": TEXT, "detail": TEXT}},
        },
    },
}
FAILURE: Schema = {
    "description": "It failed; the status says why.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}

IDEMPOTENCY_KEY = "A new key for each operation: a request that repeats it gets the answer of the first"
IDEMPOTENCY_STATUSES = (400, 409, 422)  # a malformed key, one of a running request, one of another request


@bp.get("/openapi.json")
def openapi_json() -> Schema:
    """Serve the document."""
    return document(current_app)


@pages.get("/docs")
def docs() -> Response:
    """Serve a page that shows the document and can send requests."""
    page = render_template("docs.html", title=f"{_title(current_app)} API")
    policy = "; ".join([SECURITY_HEADERS["Content-Security-Policy"], *ALLOWED])
    return Response(page, headers={"Content-Security-Policy": policy})


@pages.get("/docs/show.js")
def show() -> Response:
    """Serve the script that shows the document on the page."""
    return Response(SHOW, mimetype="text/javascript")


def lead_to_docs(request: Request) -> None:
    """Redirect / to the page if no view serves it."""
    is_read = request.method in {"GET", "HEAD"} and "docs" in current_app.blueprints
    if request.path == "/" and is_read and isinstance(request.routing_exception, NotFound):
        abort(redirect(url_for("docs.docs")))


def document(app: Flask) -> Schema:
    """Return the OpenAPI 3.1 document of all `api.operation` views."""
    rules = [
        rule for rule in app.url_map.iter_rules() if hasattr(app.view_functions[rule.endpoint], "operation")
    ]
    views: dict[str, Any] = {rule.endpoint: app.view_functions[rule.endpoint] for rule in rules}
    wanted = {
        (endpoint, part): (mode, adapter)
        for endpoint, view in views.items()
        for part, mode, adapter in _schemas(view.operation)
    }
    given = [(key, mode, adapter) for key, (mode, adapter) in wanted.items()]
    found, shared = TypeAdapter.json_schemas(
        given, ref_template="#/components/schemas/{model}", schema_generator=Schemas
    )
    schemas = {key: schema for (key, _mode), schema in found.items()}
    definitions = {**shared.get("$defs", {}), "Problem": PROBLEM}
    for (endpoint, part), schema in schemas.items():
        if isinstance(views[endpoint].operation.inputs.get(part), Fields):
            _require_items(_resolve(schema, definitions))
    paths: dict[str, Schema] = {}
    for rule in rules:
        path = paths.setdefault(re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule), {})
        own = {part: schema for (endpoint, part), schema in schemas.items() if endpoint == rule.endpoint}
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            path[method.lower()] = Description(app, rule, views[rule.endpoint], own, definitions).operation()
    return {
        "openapi": "3.1.0",
        "info": {"title": _title(app), "version": "1"},
        **(
            {"servers": [{"url": request.script_root}]}
            if has_request_context() and request.script_root
            else {}
        ),
        "paths": paths,
        "components": _components(paths, definitions, [view.operation for view in views.values()]),
    }


class Schemas(GenerateJsonSchema):
    """pydantic's schemas, except for an input set, which may repeat items."""

    def set_schema(self, schema: core_schema.SetSchema) -> Schema:
        """Return the schema of a set."""
        return self._repeatable(super().set_schema(schema))

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> Schema:
        """Return the schema of a frozen set."""
        return self._repeatable(super().frozenset_schema(schema))

    def _repeatable(self, schema: Schema) -> Schema:
        if self.mode == "validation":
            del schema["uniqueItems"]
        return schema


def _require_items(schema: Schema) -> None:
    """Require at least one item in a required list: a query or a form cannot contain an empty one."""
    for name in schema.get("required", ()):
        if schema["properties"][name].get("type") == "array":
            schema["properties"][name].setdefault("minItems", 1)


def _resolve(schema: Schema, definitions: Schema) -> Schema:
    """Return a schema, or the definition to which it refers."""
    found: Schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _title(app: Flask) -> str:
    return app.name.replace("_", " ").title()


def _schemas(described: operation) -> Iterator[tuple[str, JsonSchemaMode, TypeAdapter[Any]]]:
    """Yield each type of an operation: its name, its mode (input or output), and its adapter."""
    for name, source in described.inputs.items():
        yield name, "validation", source.adapter
    if described.answer:
        yield "answer", "serialization", described.answer
    for status, kind in described.responses.items():
        if kind is not None:
            yield str(status), "serialization", TypeAdapter(kind)


def _components(paths: Schema, definitions: Schema, operations: list[operation]) -> Schema:
    """Return the definitions that the paths use, directly or indirectly, and the security schemes."""
    used: dict[str, Schema] = {}
    names = _references(paths)
    while names := names - used.keys():
        used |= {name: definitions[name] for name in sorted(names)}
        names = _references(list(used.values()))
    schemes = {each.auth.name: each.auth.scheme for each in operations if each.auth}
    components: Schema = {"schemas": dict(sorted(used.items()))}
    return components | ({"securitySchemes": schemes} if schemes else {})


def _references(node: Any) -> set[str]:
    """Return the names of the definitions used by a part of the document."""
    return set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(node)))


class Description:
    """The part of the document for one view at one path."""

    def __init__(self, app: Flask, rule: Rule, view: Any, schemas: Schema, definitions: Schema) -> None:
        self.app, self.rule, self.view = app, rule, view
        self.schemas, self.definitions = schemas, definitions
        self.described: operation = view.operation

    def operation(self) -> Schema:
        """Return the operation object."""
        described, blueprint = self.described, self.rule.endpoint.rpartition(".")[0]
        summary, _, rest = (self.view.__doc__ or "").partition("\n")
        tags = described.tags if described.tags is not None else [blueprint] * bool(blueprint)
        members: Schema = {
            "operationId": self.rule.endpoint.replace(".", "_"),
            "summary": summary,
            "description": " ".join(rest.split()),
            "tags": list(tags),
            "deprecated": described.deprecated,
            "security": [{described.auth.name: []}] if described.auth else [],
        }
        members = {name: value for name, value in members.items() if value}
        members |= {"parameters": list(self.parameters()), "responses": self.responses()}
        if content := self.content():
            members["requestBody"] = {"required": True, "content": content}
        return members

    def content(self) -> Schema:
        """Return the media types of the request body."""
        return {
            content_type: {"schema": self.schemas[name]}
            for name, source in self.described.inputs.items()
            for content_type in getattr(source, "content_types", ())
        }

    def responses(self) -> Schema:
        """Return the success response, additional responses, and error responses."""
        described = self.described
        success: Schema = {"description": "It is done."}
        if names := [*described.headers, *([REPLAYED] if described.idempotent else [])]:
            success["headers"] = {name: {"schema": TEXT} for name in names}
        if "answer" in self.schemas:
            success["content"] = {described.content: {"schema": self.schemas["answer"]}}
        elif described.content != "application/json":
            success["content"] = {described.content: {}}
        statuses = [*described.responses, *(IDEMPOTENCY_STATUSES if described.idempotent else [])]
        further = {str(status): self.further(status) for status in statuses}
        return {str(described.status): success, **further, "default": FAILURE}

    def further(self, status: int) -> Schema:
        """Return an additional response; its body is a problem unless the operation specifies a type."""
        phrase = HTTP_STATUS_CODES.get(status, "Error")
        if str(status) not in self.schemas:
            return (FAILURE if status >= 400 else {}) | {"description": phrase}
        media = "application/problem+json" if status >= 400 else "application/json"
        return {"description": phrase, "content": {media: {"schema": self.schemas[str(status)]}}}

    def parameters(self) -> Iterator[Schema]:
        """Yield the path, query and header parameters."""
        for converter, name in re.findall(r"<(?:([^:<>(]+)[^:<>]*:)?([^<>]+)>", self.rule.rule):
            yield {"name": name, "in": "path", "required": True, "schema": self.argument(converter, name)}
        for place, part in (("query", "query"), ("header", "headers")):
            schema = _resolve(self.schemas.get(part, {}), self.definitions)
            for name, of_field in schema.get("properties", {}).items():
                name_there = name if place == "query" else name.replace("_", "-").title()
                required = name in schema.get("required", ())
                yield {"name": name_there, "in": place, "required": required, "schema": of_field}
        if if_match := self.described.if_match:
            schema = TEXT | {"description": "The ETag that was read"}
            yield {"name": "If-Match", "in": "header", "required": if_match == "needed", "schema": schema}
        if idempotent := self.described.idempotent:
            schema = TEXT | {"description": IDEMPOTENCY_KEY, "pattern": PATTERN}
            yield {"name": HEADER, "in": "header", "required": idempotent == "required", "schema": schema}

    def argument(self, converter: str, name: str) -> Schema:
        """Return the schema of a path argument, from its converter or the view's annotation."""
        kind = self.app.url_map.converters.get(converter)
        if schema := getattr(kind, "schema", None):
            return dict(schema)
        return TypeAdapter(self.described.arguments.get(name, str)).json_schema()
