"""Writing of new files, all or none; code that lint or mypy rejects becomes a question."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..doctor.examination import examine
from .modules import Feature
from .report import write_checklist

STYLE = re.compile(r"(?:A|C4|E|FURB|N|PERF|PIE|PTH|RET|RUF|SIM|T20|UP|W)\d|S301$")  # silenced on its line


class NotWrittenError(Exception):
    """A failure of the tools or the disk; no written file remains."""


@contextmanager
def all_or_nothing(root: Path, paths: list[str]) -> Iterator[None]:
    """Remove the files, and folders that become empty, if the block fails."""
    folders = {root / folder for path in paths for folder in Path(path).parents}
    new = {folder for folder in folders if not folder.exists()}
    try:
        yield
    except BaseException:
        for path in paths:
            (root / path).unlink(missing_ok=True)
        for folder in sorted(new, reverse=True):
            if folder.exists():
                for left in folder.rglob("*.pyc"):
                    left.unlink()
                if not any(folder.iterdir()):
                    folder.rmdir()
        raise


def write(feature: Feature) -> dict[str, str]:
    """Write the files of a feature, formatted and checked, and return their texts."""
    root = feature.plan.project.root
    checklist = f"docs/adopting-{feature.name}.md"
    paths = [*all_files(feature), checklist]
    with all_or_nothing(root, paths):
        while True:
            files = feature.files()
            for path in paths:
                if path not in files:
                    (root / path).unlink(missing_ok=True)
            for path, text in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text, "utf-8")
            if not _ask(feature, root, [path for path in files if files[path]]):
                break
            feature.lacking.clear()
            while feature.rewrite():
                pass
        files[checklist] = write_checklist(feature)
        (root / checklist).parent.mkdir(exist_ok=True)
        (root / checklist).write_text(files[checklist], "utf-8")
    return files


def all_files(feature: Feature) -> list[str]:
    """Return every path that may be written below the folders of a feature."""
    source, tests = f"src/{feature.package}/{feature.name}", f"tests/{feature.name}"
    names = [f"{source}/{name}.py" for name in ("__init__", "models", "service", "views")]
    return names + [f"{tests}/{name}.py" for name in ("__init__", "conftest", "test_views")]


def _run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(  # noqa: S603  # The project's own tools.
        [sys.executable, "-m", *command], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode not in {0, 1}:
        raise NotWrittenError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[:300]}")
    return done


def _ask(feature: Feature, root: Path, paths: list[str]) -> bool:
    """Format and check the files; turn each finding into a question, and return whether there is one."""
    _run(root, "ruff", "check", "--quiet", "--fix", "--exit-zero", "--unfixable", "T20", *paths)
    _run(root, "ruff", "format", "--quiet", *paths)
    found = False
    report = json.loads(_run(root, "ruff", "check", "--output-format", "json", *paths).stdout or "[]")
    for each in report:
        if not STYLE.match(str(each["code"])):
            path = Path(each["filename"]).resolve().relative_to(root.resolve())
            found |= _question(
                feature, str(path), each["location"]["row"], f"{each['message']} ({each['code']})"
            )
    if found:
        return True
    for line in _run(root, "mypy", "--no-error-summary", "--hide-error-context", *paths).stdout.splitlines():
        if match := re.match(r"(\S+?):(\d+): error: (.*)", line):
            found |= _question(feature, match[1], int(match[2]), f"mypy: {match[3]}")
    folder = root / "src" / feature.package / feature.name
    for finding in examine([folder])[0]:
        path = Path(finding.place.path).resolve().relative_to(root.resolve())
        found |= _question(feature, str(path), finding.place.line, f"{finding.rule}: {finding.message}")
    if not found:
        _run(root, "ruff", "check", "--quiet", "--add-noqa", *paths)
    return found


def _question(feature: Feature, path: str, line: int, message: str) -> bool:
    """Add a question to the item at a line of a new file."""
    text = (feature.plan.project.root / path).read_text("utf-8")
    for node in ast.parse(text).body:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
        if first <= line <= (node.end_lineno or 0):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            name = getattr(node, "name", "") or getattr(targets[0], "id", "")
            for item in feature.plan.items:
                if id(item) in feature.code and name in item.names:
                    item.questions.append(f"how is `{name}` written so that it passes the checks? {message}")
                    return True
    raise NotWrittenError(f"{path}:{line}: {message}")
