"""A running service matches its OpenAPI document: schemathesis sends valid and invalid requests."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from .conftest import BOUND
from .owners import edit
from .processes import run, serve

pytestmark = pytest.mark.matrix

SOURCE = Path("src", "notes_service")
# The statuses that schemathesis must expect, and its checks that do not apply here.
CONFIGURATION = """
[reports]
directory = "reports"

[checks.missing_required_header]
expected-statuses = [401, 403, 422, 428] # A missing If-Match is 428 (RFC 6585).

[checks.positive_data_acceptance]
# A cursor that fits its pattern need not be one, and an If-Match that is well-formed need not match.
expected-statuses = ["2xx", 401, 404, 409, 412, 422, 428]

[checks.ensure_resource_availability]
# A repeated Idempotency-Key gets the first answer, and its note may have been deleted since.
enabled = false

[[operations]]
# schemathesis 4.32.5 reads `prefixItems` of an inline response as the `items` of an older draft, and fails.
include-path = "/catalogue/tenant"
enabled = false

[[operations]]
# It sends a list of another type as text, and a text is what the form takes.
include-path = "/catalogue/login"
checks.negative_data_rejection.enabled = false

[[operations]]
# In a query 1.0 is a whole number, too.
include-path = "/catalogue/things"
include-method = "GET"
checks.negative_data_rejection.enabled = false
"""
# gunicorn itself answers a line of more than 8,190 bytes, in HTML.
HOOKS = """
import schemathesis


@schemathesis.hook
def filter_query(context, query):
    return len(str(query)) < 1000
"""


def test_every_kind_of_operation_does_what_its_document_says(project: Path, tmp_path: Path) -> None:
    """The example and a feature with every kind of operation accept, refuse and answer as documented."""
    feature = project / SOURCE / "catalogue"
    feature.mkdir()
    (feature / "__init__.py").write_text('"""Every kind of operation."""\n')
    shutil.copy(project / "tests/foundation/sample/catalogue.py", feature / "views.py")
    edit(project / SOURCE / "app.py", '    "notes",\n', '    "notes",\n    "catalogue",\n')
    run("make", "migrate", cwd=project, timeout=BOUND, env={"PYTHONPATH": "src"})
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    (tmp_path / "hooks.py").write_text(HOOKS)
    tool = Path(sys.executable).with_name("schemathesis")

    with serve("bin/serve", cwd=project, log=tmp_path / "log") as server:
        server.wait_until_ready()
        address = f"http://127.0.0.1:{server.port}/openapi.json"
        env = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": os.fspath(tmp_path)}
        options = ("--seed=1", "--header=Authorization: Bearer ada")
        run(tool, "run", address, *options, cwd=tmp_path, timeout=BOUND, env=env)
