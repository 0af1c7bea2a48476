#!/usr/bin/env python3
"""Print what the doctor finds in well-kept packages, and its cost, as a multiple of `ast.parse`.

`python benchmarks/doctor.py [PACKAGE...]` fetches packages with pip into a temporary folder, reads them,
and runs none of their code. Read each finding: it is a false positive unless its line has the hazard.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "{{cookiecutter.project_slug}}" / "tools"))

from doctor.examination import examine  # noqa: E402

PACKAGES = [
    "apache-airflow-providers-fab",
    "apache-superset",
    "flask-admin",
    "flask-appbuilder",
    "flask-security",
    "indico",
    "udata",
]


def fetch(package: str, folder: Path) -> None:
    """Unpack the modules of a package's newest wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), package], check=True)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".py")])
        wheel.unlink()


def parse_all(files: list[Path]) -> float:
    """Return the seconds of processor time that `ast.parse` takes for all files."""
    texts = [file.read_bytes() for file in files]
    started = time.process_time()
    for text in texts:
        try:
            ast.parse(text)
        except SyntaxError:
            continue
    return time.process_time() - started


def measure(package: str) -> tuple[int, int]:
    """Print the findings in a package, and return the numbers of findings and of modules."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fetch(package, folder)
        files = [
            file for file in folder.rglob("*.py") if not re.search(r"/tests?/|/test_|conftest", str(file))
        ]
        parsing = parse_all(files)
        started = time.process_time()
        findings, modules = examine([folder])
        cost = (time.process_time() - started) / parsing
        sys.stdout.write(
            f"{package}: {modules} modules, {len(findings)} findings, {cost:.1f} times ast.parse\n"
        )
        for finding in findings:
            place = str(finding.place).replace(f"{folder}/", "")
            sys.stdout.write(f"    {place}: {finding.rule} {finding.level}: {finding.message}\n")
    return len(findings), modules


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    results = [measure(package) for package in sys.argv[1:] or PACKAGES]
    sys.stdout.write(
        f"all: {sum(count for _, count in results)} modules, {sum(count for count, _ in results)} findings\n"
    )
