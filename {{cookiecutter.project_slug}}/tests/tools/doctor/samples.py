"""Code samples whose lines name their expected findings: `# expect: N101`."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

from tools.doctor.examination import examine
from tools.doctor.findings import Finding

EXPECTATION = re.compile(r"# expect: ([A-Z0-9 ]+)$", re.MULTILINE)
TOOL = Path(__file__).resolve().parents[3] / "tools" / "doctor"
FLASK = "from flask import Flask\napp = Flask(__name__)\n"

Marks = Counter[tuple[str, int | None, int]]


def write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write files to a folder, and return the folder as the path to check."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"))
    return [folder]


def notebook(*cells: str) -> str:
    """Return a notebook with these code cells; a cell that starts with `#md` is prose."""
    document = {
        "cells": [
            {
                "cell_type": "markdown" if cell.startswith("#md") else "code",
                "metadata": {},
                "source": dedent(cell).strip("\n").splitlines(keepends=True),
            }
            for cell in cells
        ],
        "metadata": {"kernelspec": {"language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document)


def expected(text: str, cell: int | None = None) -> Marks:
    """Return the rules that comments expect, with cell and line."""
    marks = Marks()
    for number, line in enumerate(dedent(text).strip("\n").splitlines(), 1):
        for match in EXPECTATION.finditer(line):
            marks.update((rule, cell, number) for rule in match[1].split())
    return marks


def found(findings: Sequence[Finding]) -> Marks:
    """Return the rules of findings, with cell and line."""
    return Marks((finding.rule, finding.place.cell, finding.place.line) for finding in findings)


def diagnose(folder: Path, text: str) -> list[Finding]:
    """Return the findings in a file app.py."""
    findings, _ = examine(write(folder, {"app.py": text}))
    return findings


def run_tool(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a process, in a folder and a minimal environment."""
    command = [sys.executable, "-B", str(TOOL), *arguments]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
