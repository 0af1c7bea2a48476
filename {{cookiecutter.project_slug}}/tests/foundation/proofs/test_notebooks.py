"""The template's notebooks run from the first cell to the last, in a new kernel and on a real database.

Their cells assert their results. `make notebook` and `make prove` install the kernel.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect

from ..databases import PROJECT, Databases
from ..processes import run

FOLDER = PROJECT / "notebooks"
# The owner may delete them, and the page.
NOTEBOOKS = [
    name for name in ("quickstart", "from-notebook-to-endpoint") if (FOLDER / f"{name}.ipynb").exists()
]

PAGES = [file.read_text("utf-8") for file in (PROJECT / "docs").glob("notebooks.md")]
EXPERIMENT = re.compile(
    r"^## (\w+)$.+?^```python\n(.+?)^```\n\n^```text\n(.+?)^```", re.MULTILINE | re.DOTALL
)
EXPERIMENTS = [found for page in PAGES for found in EXPERIMENT.findall(page)]


def tables(url: str) -> set[str]:
    """Return the names of a database's tables."""
    return set(inspect(create_engine(url, poolclass=NullPool)).get_table_names())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_a_new_kernel(name: str, own_databases: Databases, tmp_path: Path) -> None:
    """Every cell succeeds, depends on no earlier run, and leaves no table behind."""
    url = own_databases.migrated()
    before = tables(url)
    places = dict.fromkeys(("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"), str(tmp_path))
    env = {"DATABASE_URL": url, "PYTHONPATH": str(PROJECT / "src"), "MPLCONFIGDIR": str(tmp_path), **places}
    file = FOLDER / f"{name}.ipynb"

    run(sys.executable, "-m", "jupyter", "execute", file, "--timeout=300", cwd=FOLDER, env=env)

    assert tables(url) == before


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_no_output(name: str) -> None:
    """A notebook is stored without outputs, which may contain client data."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]

    run_before = [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert run_before == []


@pytest.mark.parametrize(("title", "code", "output"), EXPERIMENTS, ids=[title for title, *_ in EXPERIMENTS])
def test_an_experiment_prints_what_the_page_shows(
    title: str, code: str, output: str, own_databases: Databases, tmp_path: Path
) -> None:
    """Every experiment of docs/notebooks.md prints what the page shows."""
    env = {"DATABASE_URL": own_databases.migrated(), "PYTHONPATH": str(PROJECT / "src")}

    assert run(sys.executable, "-c", code, cwd=tmp_path, env=env).stdout == output


@pytest.mark.parametrize("page", PAGES, ids=["notebooks"][: len(PAGES)])
def test_every_word_of_the_page_has_a_picture_and_an_experiment(page: str) -> None:
    """The page has a picture and an experiment for process, thread, fork, request and transaction."""
    assert [title for title, *_ in EXPERIMENTS] == ["Process", "Thread", "Fork", "Request", "Transaction"]
    assert page.count("```mermaid") == len(EXPERIMENTS)
