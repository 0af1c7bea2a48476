"""The proofs of the generated project are not empty: what tutorials write fails where it does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from .conftest import ROOT, generate, run


def test_every_famous_failure_happens_to_the_naive_service(workshop: Callable[[], Path]) -> None:
    project = generate(workshop())
    run("make", "install", cwd=project, timeout=600)
    # They use the harness of the project's own proofs.
    shutil.copytree(ROOT / "tests" / "controls", project / "tests" / "controls")

    run(".venv/bin/pytest", "tests/controls", cwd=project, timeout=900, env={"FORBID_SKIPS": "1"})
