"""The cells of a notebook, or the statement groups of a file, and the names that they define."""

import ast
import json
import re
import tokenize
from pathlib import Path
from typing import Any

from ..doctor.examination import examine
from ..doctor.findings import Code
from ..doctor.servers import read_deployment
from ..doctor.sources import CELL, Source, enumerate_cells, read_notebook

OVERRIDE = re.compile(r"#\s*adopt:\s*(skip|service)\b")
WRITES_FILE = re.compile(r"\s*%%(?:write)?file\s+(?:-a\s+)?(\S+)")
# Text that may be a secret: credentials in a URL, a value with such a name, a token.
SECRETS = [
    (re.compile(r"(://)[^/\s\"']*@"), r"\1...@"),
    (
        re.compile(
            r"(?i)(\w*(?:secret|passw|token|api_?key|credential|private_?key)\w*[\"'\]]*\s*[:=]+\s*)([\"']).*?\2"
        ),
        r"\1\2...\2",
    ),
    (re.compile(r"(?i)(#.*(?:secret|password|token|api.?key)\s*(?:is|:|=)\s*)\S+"), r"\1..."),
    (re.compile(r"\b(?:sk-|AKIA|gh[pousr]_|xox.-|AIza|eyJ)[\w.-]{8,}"), "..."),
    (re.compile(r"([\"'])(?=[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[\w+/=-]{32,}\1"), r"\1...\1"),
]


class NotReadableError(Exception):
    """A file that is neither a notebook nor code; the message is one line."""


class Unit:
    """A cell of a notebook, or a group of statements of a file."""

    def __init__(self, label: str, text: str, statements: list[ast.stmt], question: str = "") -> None:
        self.label = label
        self.text = text
        self.statements = statements
        self.question = question
        found = OVERRIDE.search(text)
        self.override = found[1] if found else ""

    @property
    def first_line(self) -> str:
        """The first line of its code, without secrets."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        code = [line for line in lines if not line.startswith("#")]
        return redact((code or lines or [""])[0])


class TextSource(Source):
    """A source that keeps the text of each cell."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.resolve(), str(path), explicit=True, notebook=path.suffix == ".ipynb")
        self.texts: dict[int, str] = {}

    def add(self, text: str, offset: int = 0) -> None:
        """Parse a text whose first line has the number `offset` + 1."""
        self.texts[offset // CELL] = text
        super().add(text, offset)


class Notebook:
    """The units of a notebook in order, the index of its names, and the doctor's rule for each object."""

    def __init__(self, path: Path) -> None:
        self.source = TextSource(path)
        try:
            if self.source.notebook:
                self.units = self._cells(json.loads(path.read_bytes()))
            else:
                with tokenize.open(path) as file:
                    self.source.add(file.read())
                self.units = self._groups()
        except (OSError, SyntaxError, UnicodeError, ValueError, AttributeError, KeyError, TypeError):
            raise NotReadableError(f"{path} is neither a notebook nor a Python file") from None
        self.code = Code([self.source], read_deployment([path]))
        self.index = self.code.index
        self.module = self.index.modules[0]
        self.rules = {finding.object: finding.rule for finding in examine([path])[0]}

    def _cells(self, document: dict[str, Any]) -> list[Unit]:
        texts = dict(enumerate_cells(document))
        for _ in read_notebook(self.source, document):
            pass  # A file that a cell writes is a question.
        questions = {part.line // CELL: not_parsed(part.reason) for part in self.source.unparsed}
        units = []
        for number, text in texts.items():
            body = [node for node in self.source.tree.body if node.lineno // CELL == number]
            written = WRITES_FILE.match(text)
            question = (
                f"it writes {written[1]}: is that file adopted with NOTEBOOK={written[1]}?" if written else ""
            )
            units.append(Unit(f"cell {number}", text, body, questions.get(number, question)))
        return [unit for unit in units if unit.text.strip()]

    def _groups(self) -> list[Unit]:
        lines, groups = self.source.texts[0].splitlines(), list[list[ast.stmt]]()
        for node in self.source.tree.body:
            last = groups[-1][-1] if groups else None
            alone = isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)
            follows = last and _first(node) == (last.end_lineno or 0) + 1
            if (
                groups
                and follows
                and not alone
                and not isinstance(last, ast.FunctionDef | ast.ClassDef | ast.If)
            ):
                groups[-1].append(node)
            else:
                groups.append([node])
        units = []
        for group in groups:
            first, end = _first(group[0]), group[-1].end_lineno or 0
            while first > 1 and lines[first - 2].startswith("#"):
                first -= 1
            units.append(Unit(f"line {_first(group[0])}", "\n".join(lines[first - 1 : end]), group))
        errors = [
            Unit(f"line {part.line}", self.source.texts[0], [], not_parsed(part.reason))
            for part in self.source.unparsed
        ]
        return units + errors

    def segment(self, node: ast.stmt) -> str:
        """Return the code of a statement, without secrets."""
        lines = self.source.texts[node.lineno // CELL].splitlines()
        return redact("\n".join(lines[_first(node) % CELL - 1 : (node.end_lineno or 0) % CELL]))


def _first(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def not_parsed(reason: str) -> str:
    """Return the question about code that is not Python."""
    return f"it does not parse ({reason}): what does it do?"


def redact(text: str) -> str:
    """Return a text without possible secrets."""
    for pattern, replacement in SECRETS:
        text = pattern.sub(replacement, text)
    return text
