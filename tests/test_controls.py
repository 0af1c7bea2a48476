"""The proofs of the generated project are not empty: code of tutorials fails where it does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import BOUND, ROOT, generate
from .processes import run


@pytest.mark.matrix
def test_every_famous_failure_happens_to_the_naive_service(workshop: Callable[[], Path]) -> None:
    """Every famous failure happens to the naive service."""
    project = generate(workshop())
    run("make", "install", cwd=project, timeout=BOUND)
    # They use the servers of the project's own proofs.
    shutil.copytree(ROOT / "tests" / "controls", project / "tests" / "controls")

    run(".venv/bin/pytest", "tests/controls", cwd=project, timeout=BOUND, env={"FORBID_SKIPS": "1"})
