"""The text of each new file: models, service, views, tests and the checklist."""

import ast
import copy
import re
from collections.abc import Iterable, Iterator

from .cells import Notebook, Unit
from .classification import Item, Plan
from .rewriting import ORM, CannotMoveError, Rewriter

MOVED = {"function", "class", "model", "view", "load", "constant"}
FOUNDATION = {
    "Any": "from typing import Any",
    "Base": "from ..foundation.database import Base",
    "Mapped": "from sqlalchemy.orm import Mapped",
    "Path": "from pathlib import Path",
    "Problem": "from ..foundation.http import Problem",
    "Session": "from sqlalchemy.orm import Session",
    "bp": "",
    "current_app": "from flask import current_app",
    "db": "from ..foundation.database import db",
    "loaded_once": "from ..foundation.loading import loaded_once",
    "service": "from . import service",
    "transaction": "from ..foundation.database import transaction",
}
IGNORED = "  # type: ignore[import-not-found, import-untyped, unused-ignore]"
SAMPLES = {"int": "1", "float": "1.5", "uuid": "00000000-0000-4000-8000-000000000000"}
TYPES = {"int": "int", "float": "float"}


class Feature:
    """The files of a feature, generated from a plan; `questions` of items grow if code cannot be moved."""

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan = plan
        self.name = name
        self.package = plan.project.package
        self.lacking: dict[str, str] = {}  # modules by the distribution that has them
        self.code: dict[int, ast.stmt] = {}
        while self.rewrite():  # A function that cannot be moved blocks those that call it.
            pass

    # -- moving ------------------------------------------------------------------------------------

    def rewrite(self) -> bool:
        """Rewrite every movable item; return whether a new question has come up."""
        self.with_session = self._with_session()
        self.code.clear()
        for item in self.plan.items:
            if item.kind not in MOVED or any(self.plan.blockers(item)) or not self.path_is_known(item):
                continue
            try:
                rewriter = Rewriter(self.plan, item, self.module_of(item), self.with_session)
                self.code[id(item)] = rewriter.rewrite()
            except CannotMoveError as error:
                item.questions.append(str(error))
                return True
        return False

    def _with_session(self) -> set[str]:
        """Return the service functions that need a session, directly or through others."""
        functions = [item for item in self.plan.items if item.kind == "function" and not item.in_views]
        found: set[str] = set()
        while True:
            more = {
                item.name
                for item in functions
                if item.name not in found and Rewriter(self.plan, item, "service", found).uses(item.node)
            }
            if not more:
                return found
            found |= more

    def module_of(self, item: Item) -> str:
        """Return the item's destination module in the feature."""
        if item.kind == "model":
            return "models"
        return "views" if item.kind == "view" or item.in_views else "service"

    def items(self, module: str) -> list[Item]:
        """Return the items moved to a module."""
        return [item for item in self.plan.items if id(item) in self.code and self.module_of(item) == module]

    @property
    def views(self) -> list[Item]:
        """The views with a known address, moved or not."""
        found = [item for item in self.plan.items if item.kind == "view" and self.path_is_known(item)]
        return [item for item in found if self.plan.by_name[item.name] is item]

    @property
    def undecided(self) -> list[Item]:
        """The functions and classes that are not moved because of an open question."""
        found = [item for item in self.plan.items if item.kind in {"function", "class"} and item.name]
        return [item for item in found if id(item) not in self.code and any(self.plan.blockers(item))]

    # -- routes ------------------------------------------------------------------------------------

    def path_is_known(self, item: Item) -> bool:
        """Return whether an item is no view, or one whose path and methods are literals."""
        return item.kind != "view" or (item.name not in FOUNDATION and self.route(item) is not None)

    def route(self, item: Item) -> tuple[str, list[str]] | None:
        """Return the path below the feature's own, and the methods of a view."""
        assert isinstance(item.node, ast.FunctionDef | ast.AsyncFunctionDef)
        call = item.node.decorator_list[0]
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
            return None
        path, options = call.args[0], {each.arg: each.value for each in call.keywords}
        if (
            not isinstance(path, ast.Constant)
            or len(call.args) > 1
            or options.keys() - {"methods", "strict_slashes"}
        ):
            return None
        methods = [call.func.attr.upper()] if call.func.attr != "route" else ["GET"]
        if "methods" in options:
            try:
                methods = [str(each).upper() for each in ast.literal_eval(options["methods"])]
            except ValueError:
                return None
        text = str(path.value)
        own = self.prefix
        text = text[len(own) :] if text == own or text.startswith(own + "/") else text
        return ("" if text == "/" else text), methods

    @property
    def prefix(self) -> str:
        """The path of the feature."""
        return "/" + self.name.replace("_", "-")

    def sample(self, item: Item) -> tuple[str, str]:
        """Return an address of a view, and one of its methods."""
        path, methods = self.route(item) or ("", ["GET"])
        filled = re.sub(
            r"<(?:(\w+)(?:\([^)]*\))?:)?\w+>", lambda found: SAMPLES.get(found[1] or "", "a"), path
        )
        return self.prefix + filled, methods[0]

    # -- modules -----------------------------------------------------------------------------------

    def files(self) -> dict[str, str]:
        """Return the text of each file by its path in the project."""
        folder, tests = f"src/{self.package}/{self.name}", f"tests/{self.name}"
        words = self.name.replace("_", " ").capitalize()
        found = {f"{folder}/__init__.py": f'"""{words}: a feature that was a notebook."""\n'}
        if self.items("models"):
            found[f"{folder}/models.py"] = self.module("models", f"The tables of {words.lower()}.")
        if self.items("service") or self.undecided:
            found[f"{folder}/service.py"] = self.module(
                "service", f"Operations of {words.lower()}. The caller commits."
            )
        found[f"{folder}/views.py"] = self.module("views", f"{words} over HTTP.")
        found[f"{tests}/__init__.py"] = ""
        if self.views:
            found[f"{tests}/conftest.py"] = self.conftest()
            found[f"{tests}/test_views.py"] = self.tests()
        return found

    def module(self, module: str, docstring: str) -> str:
        """Return the text of a module."""
        items = self.items(module)
        if module == "service":
            items = self.ordered(items)
        parts = [self.text(item) for item in items]
        if module == "service":
            parts += [self.comment(item) for item in self.undecided]
        if module == "views":
            parts = [f'bp = Blueprint("{self.name}", __name__, url_prefix="{self.prefix}")']
            parts += [self.text(item) for item in items if item.kind != "view"]
            parts += [self.text(item) if id(item) in self.code else self.problem(item) for item in self.views]
        body = "\n\n\n".join(parts)
        lines = dict.fromkeys(self.imports(body, module))
        return (
            f'"""{docstring}"""\n\nfrom __future__ import annotations\n\n'
            + "\n".join(lines)
            + f"\n\n\n{body}\n"
        )

    @staticmethod
    def ordered(items: list[Item]) -> list[Item]:
        """Return constants, then classes, then functions: no name is used before it is defined."""
        return sorted(items, key=lambda item: ("constant", "class", "load", "function").index(item.kind))

    def text(self, item: Item) -> str:
        """Return the code of a moved item."""
        node = copy.deepcopy(self.code[id(item)])
        if item.kind == "load":
            return self.load(item, node)
        if isinstance(node, ast.FunctionDef):
            if item.kind == "view":
                self._as_view(item, node)
            lacking = self.lacking_imports(node)
            if lacking:
                start = int(ast.get_docstring(node) is not None)
                node.body[start:start] = [
                    ast.Expr(ast.Name(f"__import_{number}__")) for number in range(len(lacking))
                ]
            text = ast.unparse(node)
            for number, line in enumerate(lacking):
                text = text.replace(f"__import_{number}__", line)
            return text
        return ast.unparse(node)

    def _as_view(self, item: Item, node: ast.FunctionDef) -> None:
        path, methods = self.route(item) or ("", [])
        node.decorator_list = [ast.parse(self.decorator(item), mode="eval").body]
        for converter, name in re.findall(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>", path):
            for argument in node.args.args:
                if argument.arg == name and argument.annotation and ast.unparse(argument.annotation) == "Any":
                    hint = TYPES.get(converter, "Any") if converter and converter != "string" else "str"
                    argument.annotation = ast.Name(hint, ast.Load())
        if ast.get_docstring(node) is None:
            node.body.insert(
                0, ast.Expr(ast.Constant(f"Answer {' and '.join(methods)} {self.prefix}{path}."))
            )

    def decorator(self, item: Item) -> str:
        """Return the decorator of a view."""
        path, methods = self.route(item) or ("", ["GET"])
        if len(methods) == 1 and methods[0] in {"GET", "POST", "PUT", "PATCH", "DELETE"}:
            return f"bp.{methods[0].lower()}({path!r})"
        return f"bp.route({path!r}, methods={methods!r})"

    def load(self, item: Item, node: ast.stmt) -> str:
        """Return a function that loads a model."""
        lines = []
        if isinstance(node, ast.With):
            assign = node.body[0]
            assert isinstance(assign, ast.Assign)
            node.body = [ast.Return(assign.value)]
            lines = ast.unparse(node).splitlines()
        else:
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value
            lines = f"return {ast.unparse(node.value)}".splitlines()
        lines = [*self.lacking_imports(node), *lines]
        head = [f"def {item.name}() -> Any:", f'    """Load `{item.name}`, once in each process."""']
        return "\n".join(["@loaded_once", *head, *(f"    {line}" for line in lines)])

    def problem(self, item: Item) -> str:
        """Return a view that responds with 501 and its question, with its code as a comment."""
        assert isinstance(item.node, ast.FunctionDef | ast.AsyncFunctionDef)
        path, methods = self.route(item) or ("", [])
        questions = list(self.plan.blockers(item))
        names = re.findall(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>", path)
        parts = re.findall(r".{1,80}(?:\s+|$)|\S+", question_of(*questions[0]))
        lines = [
            f"@{self.decorator(item)}",
            f"def {item.name}({', '.join(f'{name}: object' for name in names)}) -> Any:",
            f'    """Answer {" and ".join(methods)} {self.prefix}{path} with 501, until it is decided."""',
            *(f"    # {line}" for each, text in questions for line in _wrapped(f"{each.unit.label}: {text}")),
            "    # The code of the notebook:",
            *(
                f"    #     {line}".rstrip()
                for code in self.plan.notebook.segment(item.node).splitlines()
                for line in _wrapped(code)
            ),
            f"    raise Problem(501, {' '.join(repr(part) for part in parts)})",
        ]
        return "\n".join(lines)

    def comment(self, item: Item) -> str:
        """Return an unmoved function or class as a comment below its questions."""
        questions = [f"{each.unit.label}: {text}" for each, text in self.plan.blockers(item)]
        lines = [f"`{item.name}` is not moved until this is decided:", *questions]
        lines += [f"    {line}" for line in self.plan.notebook.segment(item.node).splitlines()]
        return "\n".join(f"# {part}".rstrip() for line in lines for part in _wrapped(line))

    # -- imports -----------------------------------------------------------------------------------

    def lacking_imports(self, node: ast.AST) -> list[str]:
        """Return imports inside a function for packages that the service does not install."""
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        return [line + IGNORED for line in self._imports_of(names, lacking=True)]

    def _imports_of(self, names: set[str], *, lacking: bool) -> Iterator[str]:
        for item in self.plan.items:
            if item.kind != "import":
                continue
            assert isinstance(item.node, ast.Import | ast.ImportFrom)
            for alias in item.node.names:
                name = alias.asname or alias.name.partition(".")[0]
                module = getattr(item.node, "module", None) or alias.name
                distribution = self.plan.project.lacks(module)
                if name not in names or bool(distribution) is not lacking:
                    continue
                if distribution:
                    self.lacking.setdefault(distribution, module.partition(".")[0])
                kind = type(item.node)
                one = kind(names=[alias]) if kind is ast.Import else ast.ImportFrom(module, [alias], 0)
                yield ast.unparse(one)

    def imports(self, body: str, module: str) -> Iterator[str]:
        """Yield the imports of a module, for the names that its code uses and does not define."""
        tree = ast.parse(body)
        loads = {part.id for part in ast.walk(tree) if isinstance(part, ast.Name)}
        defined = {name for item in self.items(module) for name in item.names}
        own = [
            name for name in sorted(loads) if name in FOUNDATION and FOUNDATION[name] and name not in defined
        ]
        yield from (FOUNDATION[name] for name in own)
        if module == "views":
            yield "from flask import Blueprint"
        if module != "models":
            models = [item.name for item in self.items("models") if item.name in loads]
            yield from (f"from .models import {name}" for name in models)
        yield from self._imports_of(loads - set(own) - {"Blueprint"}, lacking=False)
        if module == "models":
            known = {each for item in self.plan.items if item.kind == "import" for each in item.names}
            given = {
                part.func.id
                for part in ast.walk(tree)
                if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)
            }
            given |= {
                part.id for part in ast.walk(tree) if isinstance(part, ast.Name) and part.id[:1].isupper()
            }
            for name in sorted(given - known - defined - set(own)):
                if name in ORM:
                    yield f"from sqlalchemy.orm import {name}"
                elif name in self.from_database(module):
                    yield f"from sqlalchemy import {name}"

    def from_database(self, module: str) -> set[str]:
        """Return the names that models take from `db`, as in `db.Column`."""
        nodes = (part for item in self.items(module) for part in ast.walk(item.node))
        return {
            part.attr
            for part in nodes
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name)
        }

    # -- tests -------------------------------------------------------------------------------------

    def conftest(self) -> str:
        """Return the tests' fixture: a service with only this feature."""
        tables = [item.name for item in self.items("models")]
        create = ""
        imports = ""
        if tables:
            imports = f"from {self.package}.{self.name}.models import {', '.join(tables)}\n"
            listed = ", ".join(f"{name}.__table__" for name in tables)
            create = (
                "    with app.app_context():\n"
                "        # After `make migration` the tables exist, and this does nothing.\n"
                f"        tables: list[Any] = [{listed}]\n"
                "        Base.metadata.create_all(db.engine, tables=tables)\n"
            )
            imports += f"from {self.package}.foundation.database import Base, db\nfrom typing import Any\n"
        return (
            '"""The service of these tests has this feature alone: its name need not be in FEATURES."""\n\n'
            "from __future__ import annotations\n\n"
            "from collections.abc import Iterator\nimport pytest\nfrom flask import Flask\n"
            f"from {self.package}.{self.name}.views import bp\n{imports}"
            f"from {self.package}.foundation.application import create_service\n"
            f"from {self.package}.foundation.database.session import engines_of\n"
            "from ..conftest import make_settings\nfrom ..foundation.databases import Databases\n\n\n"
            '@pytest.fixture(scope="session")\n'
            "def app(own_databases: Databases) -> Iterator[Flask]:\n"
            '    """A service with this feature alone, on a database to which no test commits."""\n'
            "    settings = make_settings(own_databases.migrated())\n"
            f'    app = create_service("{self.package}", settings, features=[bp])\n'
            f"{create}    yield app\n    for engine in engines_of(app):\n        engine.dispose()\n"
        )

    def tests(self) -> str:
        """Return a test for each route."""
        parts = []
        for item in self.views:
            address, method = self.sample(item)
            if id(item) in self.code:
                parts.append(
                    f"def test_{item.name}_is_served(app: Flask) -> None:\n"
                    f'    """{method} {address} reaches the view. Next: send what a client sends."""\n'
                    f"    with app.test_request_context({address!r}, method={method!r}):\n"
                    f'        assert request.endpoint == "{self.name}.{item.name}"'
                )
            else:
                parts.append(
                    f"def test_{item.name}_is_undecided(client: FlaskClient) -> None:\n"
                    f'    """{method} {address} answers 501 until its question is decided."""\n'
                    f"    answer = client.open({address!r}, method={method!r})\n\n"
                    '    assert (answer.status_code, answer.mimetype) == (501, "application/problem+json")'
                )
        return (
            f'"""The routes of {self.name.replace("_", " ")}."""\n\nfrom __future__ import annotations\n\n'
            "from flask import Flask, request\nfrom flask.testing import FlaskClient\n\n\n"
            + "\n\n\n".join(parts)
            + "\n"
        )


def question_of(item: Item, question: str) -> str:
    """Return a question with its place."""
    return f"{item.unit.label.capitalize()}: {question}"


def open_questions(notebook: Notebook, items: Iterable[Item]) -> list[tuple[Unit, str, str]]:
    """Return each question with its unit and its rule, in order."""
    found = [
        (item.unit, question, item.rule)
        for item in items
        for question in item.questions
        if item.kind != "import"
    ]
    for unit in [unit for unit in notebook.units if unit.question and unit.override != "skip"]:
        found += [(unit, unit.question, "X901" if "does not parse" in unit.question else "")]
    order = {id(unit): number for number, unit in enumerate(notebook.units)}
    return sorted(dict.fromkeys(found), key=lambda row: order[id(row[0])])


def _wrapped(line: str) -> Iterator[str]:
    """Yield parts of a line that fit into a comment."""
    while len(line) > 95:
        cut = line.rfind(" ", 40, 95)
        cut = 95 if cut < 0 else cut
        yield line[:cut]
        line = "    " + line[cut:].lstrip()
    yield line
