"""The files of the project, as the commands read and change them."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .refusal import Refusal

ROOT = Path(__file__).parents[2]
PACKAGE = "{{cookiecutter.package_name}}"
SOURCE = Path("src", PACKAGE)
TESTS = Path("tests")
APP = SOURCE / "app.py"
VERSIONS = Path("migrations", "versions")
ADVICE = f"""{APP} has no list of names FEATURES: add `FEATURES: list[str] = []`, and to the blueprints of \
create_service `*load_features(__package__ or __name__, FEATURES)`"""


def run(*command: str | Path) -> str:
    """Run a module of this environment and return its output, or end with it if the module fails."""
    python = [sys.executable, "-W", "ignore", "-m"]
    done = subprocess.run([*python, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        # ruff writes what it found to stdout; before the last line of stderr are Alembic's messages.
        last = done.stderr.strip().splitlines()[-1:]
        raise Refusal(done.stdout.strip() or "".join(last) or f"{command[0]} failed", code=1)
    return done.stdout


class Features:
    """The list FEATURES of app.py."""

    def __init__(self) -> None:
        self.text = APP.read_text("utf-8")
        self.names = _names(self.text)

    def with_name(self, name: str) -> str:
        """Return the text of app.py with one name more."""
        last, closing = _list(self.text).elts[-1:], _end(self.text, _list(self.text))
        start = self.text.rindex("\n", 0, closing) + 1
        candidates = [self.text[: closing - 1] + f'\n    "{name}",\n]' + self.text[closing:]]
        if last:
            end = _end(self.text, last[0])
            candidates = [
                self.text[:start] + f'    "{name}",\n' + self.text[start:],
                self.text[:end] + f', "{name}"' + self.text[end:],
            ]
        return _first(candidates, [*self.names, name])

    def without_name(self, name: str) -> str:
        """Return the text of app.py with one name less."""
        whole = _list(self.text)
        spellings = (rf'\n[ \t]*"{name}",[^\n]*', rf'"{name}",[ ]*', rf'(?:,[ ]*)?"{name}"')
        start, end = _start(self.text, whole), _end(self.text, whole)
        shorter = [re.sub(spelling, "", self.text[start:end], count=1) for spelling in spellings]
        left = [each for each in self.names if each != name]
        lists = shorter if left else ["[]"]
        return _first([self.text[:start] + each + self.text[end:] for each in lists], left)


def _list(text: str) -> ast.List:
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if [getattr(target, "id", None) for target in targets] == ["FEATURES"]:
            value = getattr(node, "value", None)
            if isinstance(value, ast.List):
                return value
    raise Refusal(ADVICE)


def _names(text: str) -> list[str]:
    names = [getattr(element, "value", None) for element in _list(text).elts]
    if not all(isinstance(name, str) for name in names):
        raise Refusal(ADVICE)
    return [str(name) for name in names]


def _first(texts: list[str], names: list[str]) -> str:
    """Return the first text whose list has these names."""
    for text in texts:
        with suppress(SyntaxError, Refusal):
            if _names(text) == names:
                return text
    raise Refusal(f"{APP} has a list FEATURES that is not written one name a line: change it to {names}")


def _start(text: str, node: ast.expr) -> int:
    return _offset(text, node.lineno, node.col_offset)


def _end(text: str, node: ast.expr) -> int:
    return _offset(text, node.end_lineno or 0, node.end_col_offset or 0)


def _offset(text: str, line: int, column: int) -> int:
    """Return the place of a node's line and column, which counts bytes."""
    before = text.splitlines(keepends=True)[: line - 1]
    return len("".join(before)) + len(text.splitlines()[line - 1].encode()[:column].decode())


@contextmanager
def all_or_nothing(*paths: Path) -> Iterator[None]:
    """Put files and folders back as they were if the block fails."""
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(paths):
            _copy(path, Path(folder, str(number)))
        try:
            yield
        except BaseException:
            for number, path in enumerate(paths):
                remove(path)
                _copy(Path(folder, str(number)), path)
            raise


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
