"""The proofs behind a real PgBouncer, which an owner's machine may lack."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import BOUND, SKIPPING_IS_FAILING
from .processes import run

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
pytestmark = [
    pytest.mark.matrix,
    pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed"),
]


def test_the_service_works_behind_pgbouncer(project: Path) -> None:
    """No request and no migration fails behind PgBouncer in transaction mode, and no lock remains."""
    command = (".venv/bin/pytest", "tests/foundation/proofs/test_pgbouncer.py")

    done = run(
        *command,
        cwd=project,
        timeout=BOUND,
        env={"PYTHONPATH": "src", "PROOF_SCALE": "10", **SKIPPING_IS_FAILING},
    )

    assert " passed" in done.stdout
