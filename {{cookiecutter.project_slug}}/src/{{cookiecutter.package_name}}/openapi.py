"""The OpenAPI document, made from the types of the views, and a page that shows it."""

from __future__ import annotations

import base64
import hashlib
import re
import typing as t

from flask import Blueprint, Flask, Response, current_app, render_template
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from .api import BIGGEST_ID, View
from .edge import SECURITY_HEADERS

bp = Blueprint("openapi", __name__)

Schema = dict[str, t.Any]
PROBLEM: Schema = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


@bp.get("/openapi.json")
def openapi_json() -> Schema:
    """Serve the document."""
    return document(current_app)


@bp.get("/docs")
def docs() -> Response:
    """Serve a page about it that needs no other host and no script."""
    page = render_template("docs.html", document=document(current_app))
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = SECURITY_HEADERS["Content-Security-Policy"] + f"; style-src 'sha256-{digest}'"
    return Response(page, headers={"Content-Security-Policy": policy})


def document(app: Flask) -> Schema:
    """Return the OpenAPI 3.1 document of every view that is an `api.operation`."""
    operations = [
        (rule, view)
        for rule in app.url_map.iter_rules()
        if hasattr(view := app.view_functions[rule.endpoint], "hints")
    ]
    models = dict.fromkeys(pair for _, view in operations for pair in _models_of(view))
    references, definitions = models_json_schema(list(models), ref_template="#/components/schemas/{model}")
    paths: dict[str, Schema] = {}
    for rule, view in operations:
        path = paths.setdefault(re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule), {})
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            path[method.lower()] = _operation(rule, view, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": app.name.replace("_", " ").title(), "version": "1"},
        "paths": paths,
        "components": {"schemas": {**definitions.get("$defs", {}), "Problem": PROBLEM}},
    }


def _operation(rule: Rule, view: t.Any, references: t.Any) -> Schema:
    hints, answer = view.hints, _answer_of(view)
    success: Schema = {"description": "It is done."}
    if view.headers:
        success["headers"] = {name: {"schema": {"type": "string"}} for name in view.headers}
    if answer:
        success["content"] = _json(references[answer, "serialization"])
    problem = {"$ref": "#/components/schemas/Problem"}
    described: Schema = {
        "operationId": rule.endpoint.replace(".", "_"),
        "summary": (view.__doc__ or "").partition("\n")[0],
        "parameters": [
            *map(_path_parameter, sorted(rule.arguments)),
            *_query_parameters(hints.get("query")),
            *_if_match(view.if_match),
        ],
        "responses": {
            str(view.status): success,
            "default": {
                "description": "It failed; the status says why.",
                "content": {"application/problem+json": {"schema": problem}},
            },
        },
    }
    if "body" in hints:
        described["requestBody"] = {
            "required": True,
            "content": _json(references[hints["body"], "validation"]),
        }
    return described


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _path_parameter(name: str) -> Schema:
    schema = {"type": "integer", "minimum": 1, "maximum": BIGGEST_ID}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(model: type[BaseModel] | None) -> list[Schema]:
    if model is None:
        return []
    schema = model.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": part,
        }
        for name, part in schema["properties"].items()
    ]


def _if_match(wanted: str | None) -> list[Schema]:
    parameter = {
        "name": "If-Match",
        "in": "header",
        "required": wanted == "needed",
        "schema": {"type": "string", "description": "The ETag that was read"},
    }
    return [parameter] if wanted else []


def _models_of(
    view: View,
) -> list[tuple[type[BaseModel], t.Literal["validation", "serialization"]]]:
    hints, answer = t.cast(t.Any, view).hints, _answer_of(view)
    found: list[tuple[type[BaseModel], t.Literal["validation", "serialization"]]] = []
    if "body" in hints:
        found.append((hints["body"], "validation"))
    if answer:
        found.append((answer, "serialization"))
    return found


def _answer_of(view: t.Any) -> type[BaseModel] | None:
    """Return the model that the view's annotation says it returns, alone or first of a pair."""
    returned = view.hints.get("return")
    first = (t.get_args(returned) or (returned,))[0]
    return first if isinstance(first, type) and issubclass(first, BaseModel) else None
