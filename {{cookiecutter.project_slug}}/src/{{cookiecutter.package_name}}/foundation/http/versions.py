"""ETags of rows, and the If-Match check of writes."""

from flask import request

from ..database import Versioned
from .errors import CHANGED, Problem

WEAKENED = "The ETag is weak (W/): a proxy has changed it, perhaps one that compresses. Send the strong one."


def etag(row: Versioned) -> str:
    """Return the ETag of a row."""
    return f'"{row.version}"'


def refuse_other_version(row: Versioned) -> None:
    """Reject a request with 412 if its If-Match names another version of the row."""
    version = str(row.version)
    if request.if_match and not request.if_match.contains(version):
        # If-Match compares strongly (RFC 9110, 13.1.1).
        raise Problem(412, WEAKENED if request.if_match.contains_weak(version) else CHANGED)
