"""Python code in files and notebooks: one syntax tree each, and the position of each node."""

import ast
import json
import os
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

# A node of a notebook has the number of its cell, multiplied by this, in its line number.
CELL = 1_000_000
NOT_READ = {"__pycache__", "build", "dist", "node_modules", "site-packages", "venv"}
TESTS = {"test", "tests", "testing"}
TOP_LEVEL_AWAIT = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
# Cell magics whose cell is Python. Other magics have no Python cell.
PYTHON_MAGICS = {"capture", "prun", "python", "python3", "time", "timeit"}
SHELL = re.compile(r"(\s*)(?:[!?]|%(?!time\b|timeit\b)|(?:pip3?|conda|mamba)\s+install\b)")
TIMED = re.compile(r"(\s*)%time(?:it)?\s+(?:-\w+\s*\d*\s+)*(.*)")
ASSIGNED = re.compile(r"(\s*[\w, ]+=\s*)[!%]")
IGNORE = re.compile(r"#\s*doctor:\s*ignore\[([A-Z0-9,\s]+)\](?:\s*(?:--|:)\s*(\S.*))?")


class Place(NamedTuple):
    """A position in a file; `cell` counts all cells of a notebook from 1."""

    path: str
    cell: int | None
    line: int
    column: int

    def __str__(self) -> str:
        cell = f":cell {self.cell}" if self.cell else ""
        return f"{self.path}{cell}:{self.line}:{self.column}"


class Ignore(NamedTuple):
    """A comment that silences rules on its line."""

    rules: frozenset[str]
    reason: str


class Unparsed(NamedTuple):
    """A part of a source that is not Python."""

    line: int
    reason: str


class Source:
    """A file, a notebook, or a file that a cell of a notebook writes."""

    def __init__(self, path: Path, shown: str, *, explicit: bool = False, notebook: bool = False) -> None:
        self.path = path
        self.shown = shown
        self.explicit = explicit
        self.notebook = notebook
        self.tree = ast.Module(body=[], type_ignores=[])
        self.unparsed: list[Unparsed] = []
        self.mentioned: set[str] = set()  # the names in unparsable code
        self.ignores: dict[int, Ignore] = {}

    def add(self, text: str, offset: int = 0) -> None:
        """Parse a text whose first line has the number `offset` + 1."""
        try:
            tree = parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 1
            self.unparsed.append(Unparsed(offset + line, getattr(error, "msg", str(error))))
            self.mentioned |= set(re.findall(r"\w+", text))
            return
        if offset:
            for statement in tree.body:
                ast.increment_lineno(statement, offset)
        self.tree.body += tree.body
        if "doctor:" in text:
            self.ignores |= {offset + line: ignore for line, ignore in find_ignores(text)}

    def place(self, node: ast.AST | int) -> Place:
        """Return the position of a node, or of a line."""
        column = getattr(node, "col_offset", 0)
        cell, line = divmod(node if isinstance(node, int) else getattr(node, "lineno", 1), CELL)
        return Place(self.shown, cell or None, line, column + 1)

    def ignore_at(self, first: int, last: int) -> Ignore | None:
        """Return the ignore comment on one of these lines, or on the line above them."""
        return next((self.ignores[line] for line in range(first - 1, last + 1) if line in self.ignores), None)


def parse(text: str) -> ast.Module:
    """Return the syntax tree of Python, or of a cell with IPython's commands."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Warnings about the checked file do not concern this command.
        tree = compile(text, "<source>", "exec", TOP_LEVEL_AWAIT, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    return tree


def find_ignores(text: str) -> Iterator[tuple[int, Ignore]]:
    """Yield the ignore comments with their line numbers, without those inside strings."""
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type == tokenize.COMMENT and (match := IGNORE.search(token.string)):
            rules = frozenset(match[1].replace(",", " ").split())
            yield token.start[0], Ignore(rules, match[2] or "")


def find_sources(paths: Iterable[Path]) -> list[Source]:
    """Return the sources of files and folders, in order and each once."""
    sources: dict[Path, Source] = {}
    for path in paths:
        files = [path] if path.is_file() else list_files(path)
        for file in files:
            for source in read(file, explicit=file == path):
                sources.setdefault(source.path, source)
    return list(sources.values())


def list_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files and notebooks of a folder; tests are not served, and are left out."""
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if name[0] != "."
            and name not in NOT_READ | TESTS
            and not Path(directory, name, "pyvenv.cfg").exists()
        )
        yield from (
            Path(directory, name)
            for name in sorted(names)
            if name.endswith((".py", ".ipynb")) and not re.match(r"test_|conftest\.|.*_test\.py$", name)
        )


def read(path: Path, *, explicit: bool) -> Iterator[Source]:
    """Yield the source of a file, and one for each file that a notebook writes."""
    resolved = path.resolve()
    source = Source(resolved, str(path), explicit=explicit, notebook=path.suffix == ".ipynb")
    try:
        if source.notebook:
            yield source
            yield from read_notebook(source, json.loads(path.read_bytes()))
        else:
            with tokenize.open(path) as file:
                source.add(file.read())
            yield source
    except (OSError, SyntaxError, UnicodeError, ValueError, AttributeError, TypeError) as error:
        source.unparsed.append(Unparsed(1, " ".join(str(error).split())))
        if not source.notebook:
            yield source


def read_notebook(source: Source, document: dict[str, object]) -> Iterator[Source]:
    """Add the cells of a notebook to its source, and yield the files that its cells write."""
    metadata: dict[str, dict[str, str]] = document.get("metadata") or {}  # type: ignore[assignment]
    language = metadata.get("kernelspec", {}).get("language") or metadata.get("language_info", {}).get("name")
    if not (language or "python").lower().startswith(("python", "ipython")):
        return
    for number, text in enumerate_cells(document):
        offset = number * CELL
        first = text.lstrip().partition("\n")[0].split()
        if first and first[0].startswith("%%"):
            blank = "\n" * (len(text) - len(text.lstrip()) + 1)
            body = text.lstrip().partition("\n")[2]
            if first[0] in {"%%writefile", "%%file"} and first[-1].endswith(".py"):
                written = Source(source.path.parent / first[-1], source.shown, explicit=source.explicit)
                written.add(blank + body, offset)
                yield written
            if first[0][2:] not in PYTHON_MAGICS:
                continue
            text = blank + body
        try:
            parse(text)
        except (SyntaxError, ValueError):
            text = clean(text)
        source.add(text, offset)


def enumerate_cells(document: dict[str, object]) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each code cell, in the formats 3 and 4."""
    sheets: list[dict[str, object]] = document.get("worksheets") or [document]  # type: ignore[assignment]
    cells: list[dict[str, object]] = [cell for sheet in sheets for cell in sheet["cells"]]  # type: ignore[attr-defined]
    for number, cell in enumerate(cells, 1):
        text = cell.get("source", cell.get("input", ""))
        if cell.get("cell_type") == "code":
            yield number, text if isinstance(text, str) else "".join(text)  # type: ignore[arg-type]


def clean(text: str) -> str:
    """Replace IPython's commands in a cell, each by a line of Python."""
    lines, continued = [], False
    for line in text.split("\n"):
        command = SHELL.match(line)
        if continued:
            continued = line.rstrip().endswith("\\")
            lines.append("")
        elif command:
            continued = line.rstrip().endswith("\\")
            lines.append(f"{command[1]}pass")
        elif timed := TIMED.fullmatch(line):
            lines.append(timed[1] + (timed[2] or "pass"))
        elif assigned := ASSIGNED.match(line):
            lines.append(f"{assigned[1]}None")
        elif re.fullmatch(r"\s*[\w.]+\?{1,2}\s*", line):
            lines.append(re.sub(r"\S.*", "pass", line))
        else:
            lines.append(line)
    return "\n".join(lines)
