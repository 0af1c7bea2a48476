"""Controls of the proofs: code from tutorials fails where the generated project does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import BOUND, ROOT, SKIPPING_IS_FAILING
from .processes import run


@pytest.mark.matrix
def test_every_famous_failure_happens_to_the_naive_service(project: Path) -> None:
    """Every famous failure happens to the naive service."""
    # They use the servers of the project's own proofs.
    shutil.copytree(ROOT / "tests" / "controls", project / "tests" / "controls")

    env = {"PYTHONPATH": "src", **SKIPPING_IS_FAILING}
    run(".venv/bin/pytest", "-n", "2", "tests/controls", cwd=project, timeout=BOUND, env=env)
