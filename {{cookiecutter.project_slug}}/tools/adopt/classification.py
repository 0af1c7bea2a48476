"""The kind of each statement of a notebook, and the open questions before it can be moved."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..doctor import vocabulary
from ..doctor.checks.notebooks import HISTORY, KNOWN
from ..doctor.scopes import Binding, Scope
from .cells import Notebook, Unit, redact
from .project import Project

PLOTS = {"IPython", "altair", "bokeh", "folium", "matplotlib", "plotly", "pylab", "seaborn"}
REPLACED = {
    "app": "create_service() of the foundation builds the application",
    "base": "the foundation has Base",
    "blueprint": "the feature has its blueprint `bp`",
    "database": "the foundation has db",
    "engine": "the foundation has the engine, from DATABASE_URL",
    "managed_session": "each request has its session, db.session",
    "metadata": "migrations make the tables: make migration",
    "scoped_session": "each request has its session, db.session",
    "session": "each request has its session, db.session",
    "sessionmaker": "each request has its session, db.session",
}
SESSIONS = {"session", "scoped_session", "managed_session"}
CALLS = {
    "run": "make serve and make dev start it",
    "create_all": "make migration makes the tables",
    "drop_all": "make migration makes the tables",
    "init_app": "the foundation has it",
    "register_blueprint": "the name in FEATURES registers the blueprint",
}
SECRET = re.compile(r"(?i)secret|passw|token(?!iz)|api_?key|credential|private_?key|dsn")
DATABASE = re.compile(r"(?i)^(?:postgres\w*|mysql|sqlite|oracle|mssql|mariadb)(?:\+\w+)?://")
NEEDS_FILES = {"render_template", "render_template_string", "send_from_directory", "flash"}


@dataclass
class Item:
    """A statement: the names that it defines, and its destination."""

    names: tuple[str, ...]
    kind: str  # import, function, class, model, view, load, constant, setting, session, decision or dropped
    node: ast.stmt
    unit: Unit
    why: str = ""
    questions: list[str] = field(default_factory=list)
    rule: str = ""
    needs: set[str] = field(default_factory=set)
    in_views: bool = False  # whether a function uses HTTP, and belongs in views.py

    @property
    def name(self) -> str:
        """The first name that it defines."""
        return self.names[0] if self.names else ""


class Plan:
    """The items of a notebook, in order, with their open questions."""

    def __init__(self, notebook: Notebook, project: Project) -> None:
        self.notebook = notebook
        self.project = project
        self.index = notebook.index
        self.module = notebook.module
        self.scopes: dict[str, Scope] = {}
        self.items = [Item((), "", node, unit) for unit in notebook.units for node in unit.statements]
        self.by_name: dict[str, Item] = {}
        self.kinds: dict[str, str] = {}  # the doctor's findings about each object
        for item in self.items:
            self._classify(item)
            for name in item.names:
                self.by_name.setdefault(name, item)
        self._override()
        self._find_needs()
        self._ask()

    # -- kinds -------------------------------------------------------------------------------------

    def _classify(self, item: Item) -> None:
        node = item.node
        match node:
            case ast.Import() | ast.ImportFrom():
                names = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
                self._set(item, names, "import", "")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._classify_function(item, node)
            case ast.ClassDef():
                self._classify_class(item, node)
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                self._classify_value(item, name, value)
            case ast.With(body=[ast.Assign(targets=[ast.Name(id=name)], value=value)]) if self._is_load(
                value
            ):
                self._set(item, [name], "load", "loaded once in each process")
            case ast.Expr(value=ast.Call(func=function)):
                last = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
                self._set(item, [], "dropped", CALLS.get(last, "runs once in the notebook"))
                self._touch_load(item, function)
            case ast.Expr():
                self._set(item, [], "dropped", "shows a value")
            case ast.If() if "__name__" in ast.unparse(node.test):
                self._set(item, [], "dropped", "make serve and make dev start it")
            case ast.Pass():
                self._set(item, [], "dropped", "a command of IPython")
            case _:
                names = [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
                bound = [name for name in names if self._binds(name, node)]
                if re.match(r"\w+\.(config|secret_key)\b", ast.unparse(node)):
                    self._set(item, [], "dropped", "settings come from the environment: settings.py")
                else:
                    self._set(item, list(dict.fromkeys(bound)), "computed", "runs once in the notebook")

    def _set(self, item: Item, names: list[str], kind: str, why: str) -> None:
        item.names, item.kind, item.why = tuple(names), kind, why
        rules = [self.notebook.rules[name] for name in names if name in self.notebook.rules]
        item.rule = rules[0] if rules else ""

    def _binds(self, name: str, node: ast.stmt) -> bool:
        found = self.module.bindings.get(name, [])
        return any(node.lineno <= getattr(each.node, "lineno", 0) <= (node.end_lineno or 0) for each in found)

    def _classify_function(self, item: Item, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.scopes[node.name] = self.module.scopes[node]
        for decorator in node.decorator_list:
            function = decorator.func if isinstance(decorator, ast.Call) else decorator
            value = (
                self.index.infer(function.value, self.module) if isinstance(function, ast.Attribute) else None
            )
            if isinstance(function, ast.Attribute) and value and value.kind in {"app", "blueprint"}:
                if function.attr not in vocabulary.PATHS:
                    self._set(item, [node.name], "decision", f"a function of @{ast.unparse(function)}")
                    item.questions.append(
                        f"what replaces the hook `{node.name}` of @{ast.unparse(function)}?"
                    )
                    return
                self._set(item, [node.name], "view", "a view on the feature's blueprint")
        if item.kind != "view":
            self._set(item, [node.name], "function", "a pure function")
        elif len(node.decorator_list) > 1 or isinstance(node, ast.AsyncFunctionDef):
            item.questions.append(f"how is `{node.name}` served, with several decorators or as async?")

    def _classify_class(self, item: Item, node: ast.ClassDef) -> None:
        scope = self.scopes[node.name] = self.module.scopes[node]
        value = self.index.infer_named(self.index.owner(node.name, self.module))  # type: ignore[arg-type]
        declares = {"__tablename__", "__table__"} & scope.bindings.keys()
        bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        if self.notebook.code.reach.is_view_class(scope):
            self._set(item, [node.name], "decision", "a class of views")
            item.questions.append(f"which views does the class `{node.name}` become, one for each method?")
        elif bases & vocabulary.BASES and not declares:
            self._set(item, [node.name], "dropped", REPLACED["base"])
        elif self.index.is_model(value):
            self._set(item, [node.name], "model", "a table")
        else:
            self._set(item, [node.name], "class", "a class without state")

    def _is_load(self, value: ast.AST | None) -> bool:
        found = self.index.infer(value, self.module) if value else None
        return bool(found and found.kind == "loaded")

    def _classify_value(self, item: Item, name: str, value: ast.expr) -> None:
        found = self.index.infer(value, self.module)
        kind = found.kind if found else ""
        self.kinds[name] = kind
        text = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
        if kind == "loaded":
            self._set(item, [name], "load", "loaded once in each process")
        elif kind in REPLACED:
            self._set(item, [name], "session" if kind in SESSIONS else "dropped", REPLACED[kind])
        elif SECRET.search(name) or DATABASE.match(text) or redact(repr(text)) != repr(text):
            setting = "DATABASE_URL" if DATABASE.match(text) else name.upper()
            self._set(item, [name], "setting", f"{setting} in the environment, never in code")
            item.questions.append(f"which field of Settings in settings.py gives `{name}` ({setting})?")
        elif re.search(r"\bos\.(environ|getenv)\b|\bgetenv\(", ast.unparse(value)):
            self._set(item, [name], "setting", "a variable of the environment")
            item.questions.append(f"which field of Settings in settings.py gives `{name}`?")
        elif is_literal(value):
            place = "://" in text or re.search(r"/|\.\w{2,7}$", text)
            self._set(
                item,
                [name],
                "constant",
                "a constant; a setting if it differs between machines" if place else "a constant",
            )
        else:
            self._set(item, [name], "computed", "computed once in the notebook")

    def _touch_load(self, item: Item, function: ast.expr) -> None:
        """Add a question about a method that changes an object after its load."""
        root = function.value if isinstance(function, ast.Attribute) else None
        if isinstance(root, ast.Name) and (found := self.by_name.get(root.id)) and found.kind == "load":
            found.questions.append(
                f"does the function that loads `{root.id}` call `{ast.unparse(function)}`?"
            )
            item.why = f"a question about {root.id}"

    def _override(self) -> None:
        for item in self.items:
            if item.unit.override == "skip":
                item.kind, item.why, item.questions = "skipped", "# adopt: skip", []
            elif item.unit.override == "service" and item.kind == "view":
                item.kind, item.why = "function", "# adopt: service"

    # -- names -------------------------------------------------------------------------------------

    def _find_needs(self) -> None:
        changed = self._changed()
        for item in self.items:
            scopes: list[Scope] = []
            if item.kind in {"function", "class", "model", "view", "decision"} and item.name in self.scopes:
                scopes = list(self.module.scopes[item.node].walk())
                nodes = [load for scope in scopes for load in scope.loads]
                outside = [*getattr(item.node, "decorator_list", []), *getattr(item.node, "bases", [])]
                arguments = getattr(item.node, "args", None)
                outside += [*arguments.defaults, *filter(None, arguments.kw_defaults)] if arguments else []
                if item.kind == "view" or item.unit.override == "service":
                    outside = []
                nodes += [part for each in outside for part in ast.walk(each) if isinstance(part, ast.Name)]
                owners = {id(load): scope for scope in scopes for load in scope.loads}
                for load in nodes:
                    named = self.index.owner(load.id, owners.get(id(load), self.module))
                    if named is None or named.scope is self.module:
                        item.needs.add(load.id)
                # A global that a function only changes is read nowhere else.
                item.needs |= {name for name, functions in changed.items() if item.name in functions}
                bound = {name for scope in scopes for name in scope.bindings}
                for name in sorted(item.needs & bound & self.by_name.keys()):
                    item.questions.append(f"which `{name}` is meant, the local or the global one?")
            elif item.kind in {"load", "constant"}:
                item.needs = {part.id for part in ast.walk(item.node) if isinstance(part, ast.Name)}
                item.needs -= {*item.names, *_with_names(item.node)}

    def users(self, name: str) -> tuple[list[str], list[str]]:
        """Return the views and the other functions that need a name, directly or through others."""
        views, others = list[str](), list[str]()
        for item in self.items:
            if item.kind in {"view", "function", "class", "model"} and name in self.closure(item):
                (views if item.kind == "view" else others).append(item.name)
        return views, others

    def closure(self, item: Item) -> set[str]:
        """Return the names that an item needs, directly or through others."""
        found, queue = set[str](), list(item.needs)
        while queue:
            name = queue.pop()
            if name not in found:
                found.add(name)
                queue += self.by_name[name].needs if name in self.by_name else []
        return found

    # -- questions ---------------------------------------------------------------------------------

    def _ask(self) -> None:
        changed = self._changed()
        for item in self.items:
            for name in item.names:
                bindings = [each for each in self.module.bindings[name] if each.how != "import"]
                own = [each for each in bindings if each.origin is self.module]
                views, others = self.users(name)
                users = [*views, *others]
                if item.kind in {"skipped", "import"}:
                    continue
                if name in changed and users:
                    item.rule = item.rule or "N201"
                    item.questions.append(
                        f"`{name}` is changed by {_list(changed[name])}, and each process has its own copy:"
                        " a table, or a value of the request?"
                    )
                elif item.kind == "computed" and users:
                    self._ask_computed(item, name, views, others)
                elif (
                    len(own) > 1
                    and self._is_other(own)
                    and (users or item.kind in {"function", "view", "class"})
                ):
                    labels = [self._label(each) for each in own]
                    item.questions.append(f"which definition of `{name}` is meant: {_list(labels)}?")
            if item.kind == "computed":
                item.kind = "decision" if item.questions else "dropped"
        for item in self.items:
            self._ask_about_uses(item)

    def _ask_computed(self, item: Item, name: str, views: list[str], others: list[str]) -> None:
        kind = self.kinds.get(name, "")
        uses = f"{len(views)} route{'s' * (len(views) != 1)} ({_list(views)})" if views else _list(others)
        if kind in {"connection", "cursor"}:
            item.questions.append(
                f"`{name}` is one connection for all requests, used by {uses}: which query replaces it?"
            )
            item.rule = item.rule or "N103"
        elif re.search(r"\.classes\b", ast.unparse(item.node)):
            item.questions.append(f"`{name}` is read from the database: which columns does its model have?")
        elif kind == "model":
            item.rule = item.rule or "N403"
            item.questions.append(
                f"`{name}` is trained in the notebook, used by {uses}: which file has the trained model?"
            )
        else:
            item.questions.append(
                f"`{name}` is computed when the notebook runs, and used by {uses}:"
                " compute it in each request, load it once in each process with @loaded_once, or use a table?"
            )

    def _changed(self) -> dict[str, list[str]]:
        """Return the globals changed by functions, each with these functions."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name, top in self.scopes.items():
            for scope in top.walk():
                for change in scope.changes:
                    root: ast.AST = change.target
                    while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
                        root = root.func if isinstance(root, ast.Call) else root.value
                    named = self.index.owner(root.id, scope) if isinstance(root, ast.Name) else None
                    kept = self.by_name.get(root.id) if isinstance(root, ast.Name) else None
                    if not named or not kept or named.scope is not self.module or change.how == "local":
                        continue
                    is_value = kept.kind in {"load", "constant", "computed", "setting"}
                    if is_value and name not in found[kept.name]:
                        found[kept.name].append(name)
        return found

    def _is_other(self, bindings: list[Binding]) -> bool:
        return len({ast.dump(each.node) if isinstance(each.node, ast.AST) else "" for each in bindings}) > 1

    def _label(self, binding: Binding) -> str:
        line = getattr(binding.node, "lineno", 0)
        for unit in self.notebook.units:
            if any(node.lineno <= line <= (node.end_lineno or 0) for node in unit.statements):
                return unit.label
        return "another cell"

    def _ask_about_uses(self, item: Item) -> None:
        """Add questions about names in a function that cannot be moved."""
        if item.kind not in {"function", "class", "model", "view", "load", "constant"}:
            return
        for name in sorted(item.needs):
            known = name in KNOWN or HISTORY.fullmatch(name)
            if name not in self.by_name and not known:
                item.rule = item.rule or "X901"
                item.questions.append(f"what is `{name}`? It is used, and no cell defines it")
            origin = self.origin(name)
            top = origin.partition(":")[0].partition(".")[0]
            if origin and (not top or self.notebook.source.path.with_name(f"{top}.py").exists()):
                item.questions.append(f"`{name}` comes from a file beside this one: where does that go?")
            if origin.startswith("flask:"):
                item.in_views = item.kind == "function"
                if origin == "flask:session":
                    item.questions.append(
                        "what replaces the cookies of flask.session? The service keeps none"
                    )
                elif origin.removeprefix("flask:") in NEEDS_FILES:
                    item.questions.append(f"which files does `{name}` need, or shall the answer be JSON?")
            elif item.kind in {"class", "constant"} and self.project.lacks(origin.partition(":")[0] or "sys"):
                item.questions.append(
                    f"`{item.name}` needs a package at import: is {origin.partition(':')[0]} installed?"
                )

    def origin(self, name: str) -> str:
        """Return `module` or `module:name` of a name that is imported, or nothing."""
        found = [each.value for each in self.module.bindings.get(name, []) if each.how == "import"]
        return str(found[0]) if found else ""

    def blockers(self, item: Item) -> Iterator[tuple[Item, str]]:
        """Yield the open questions of an item and of everything that it needs, each once."""
        seen: set[str] = set()
        for each in [
            item,
            *(self.by_name[name] for name in sorted(self.closure(item)) if name in self.by_name),
        ]:
            for question in [] if each.kind == "import" else each.questions:
                if question not in seen:
                    seen.add(question)
                    yield each, question
            if each.kind == "skipped" and each is not item and each.name not in seen:
                seen.add(each.name)
                yield each, f"what replaces `{each.name}`, which is skipped?"


def is_literal(value: ast.expr) -> bool:
    """Return whether an expression is a literal."""
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _with_names(node: ast.stmt) -> set[str]:
    found = [item.optional_vars for item in node.items] if isinstance(node, ast.With) else []
    return {part.id for part in found if isinstance(part, ast.Name)}


def _list(words: list[str]) -> str:
    return ", ".join(dict.fromkeys(words))
