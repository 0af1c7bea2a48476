"""The OpenAPI document as the file openapi.json, so that API changes are visible in review.

Run as a module, it writes the file; with --check, it compares the existing file. Exit code: 0, or 1 if it
differs.
"""

import difflib
import json
import sys
from pathlib import Path

from ..http.openapi import document
from .project import create_app, load_settings

FILE = Path("openapi.json")
SHOWN = 40  # lines of a diff


def main(*arguments: str) -> int:
    """Write or compare the file, and return the exit code."""
    compares = arguments == ("--check",)
    if compares and not FILE.exists():
        return 0
    text = json.dumps(document(create_app(load_settings())), indent=2) + "\n"
    if not compares:
        FILE.write_text(text)
        return 0
    if (kept := FILE.read_text()) == text:
        return 0
    lines = difflib.unified_diff(
        kept.splitlines(), text.splitlines(), FILE.name, "the service", lineterm="", n=2
    )
    shown = [line for line, _ in zip(lines, range(SHOWN), strict=False)]
    print(*shown, f"{FILE} is not the API of the service: look at the change, then make openapi", sep="\n")  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
