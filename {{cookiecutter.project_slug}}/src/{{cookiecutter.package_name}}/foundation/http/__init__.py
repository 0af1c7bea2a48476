"""Requests and responses in Flask: typed input, pagination, problem+json, probes, the OpenAPI document."""

from ..database.base import StorableText
from .api import BIGGEST_ID, operation
from .authentication import Authentication
from .errors import Problem, problem
from .inputs import Input, Upload
from .pages import Page, PageQuery
from .versions import etag, refuse_other_version

__all__ = [
    "BIGGEST_ID",
    "Authentication",
    "Input",
    "Page",
    "PageQuery",
    "Problem",
    "StorableText",
    "Upload",
    "etag",
    "operation",
    "problem",
    "refuse_other_version",
]
