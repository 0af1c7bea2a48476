"""The code that runs at import and in requests: a call graph from both."""

import ast
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from . import vocabulary
from .index import Index, Value
from .scopes import Call, Module, Scope

# Files and folders of code that no server loads.
SCRIPTS = re.compile(
    r"(^|/)(alembic|benchmarks?|bin|docs?|examples?|migrations|scripts|tools)/|(^|/)(env|fabfile|manage|noxfile|setup)\.py$"
)
# Files of code loaded by processes other than the server.
WORKERS = re.compile(r"(^|/)(celery\w*|cli|commands?|manage|tasks|\w*worker\w*)\.py$")


class Step(NamedTuple):
    """A step to a function: from the scope that calls it, at a node."""

    caller: Scope | None
    node: ast.AST


class Reach:
    """The scopes that run at import and in requests, each with the step that leads there."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.views = dict(self.find_views())
        self.has_app = {module for module in index.modules if self.makes_app(module)}
        self.served = self.find_served()
        self.at_import = self.follow(self.import_roots(), self.called_at_import)
        self.in_request = self.follow(self.request_roots(), self.called_in_request)

    # -- modules -----------------------------------------------------------------------------------

    def makes_app(self, module: Module) -> bool:
        """Return whether a module creates an application or has a view."""
        if any(scope.module is module for scope in self.views):
            return True
        kinds = {"app", "blueprint"}
        if takes_arguments(module):
            return False
        calls = (self.index.infer(call.node, scope) for scope in module.walk() for call in scope.calls)
        return any(value is not None and value.kind in kinds for value in calls)

    def find_served(self) -> set[Module]:
        """Return the modules that a server loads, as far as their imports tell."""
        modules = self.index.modules
        served = {module for module in modules if module in self.has_app or self.is_asked_for(module)}
        queue = deque(served)
        while queue:
            for found in self.index.imported(queue.popleft()):
                if found not in served:
                    served.add(found)
                    queue.append(found)
        packages = {module.source.path.parent for module in served}
        for module in modules:
            inside = module.source.path.with_name("__init__.py") in self.index.by_path
            if inside and module.source.path.parent in packages and not is_script(module):
                served.add(module)
        return served

    def is_asked_for(self, module: Module) -> bool:
        """Return whether a file was named, or could be served where nothing else is."""
        if module.source.notebook or is_script(module):
            return False
        # A file that defines nothing is an analysis.
        return module.source.explicit or (not self.has_app and bool(module.children))

    def explores(self, module: Module) -> bool:
        """Return whether this is a notebook without an application."""
        return module.source.notebook and module not in self.served

    def is_beside_service(self, module: Module) -> bool:
        """Return whether this notebook uses the service's notebook session.

        No server loads it, even if it creates applications for demonstration.
        """
        imported = (node.module or "" for node in module.imports if isinstance(node, ast.ImportFrom))
        return module.source.notebook and any(name.endswith(".foundation.notebook") for name in imported)

    # -- views -------------------------------------------------------------------------------------

    def find_views(self) -> Iterator[tuple[Scope, str]]:
        """Yield the functions called by requests, with their names."""
        for scope in self.index.scopes:
            if scope.is_class and self.is_view_class(scope):
                yield from ((method, method.name) for method in scope.children if method.is_function)
            for decorator in scope.decorators:
                if scope.is_function and self.makes_view(decorator, scope):
                    yield scope, scope.name
            for call in scope.calls:
                yield from self.added_views(call, scope)

    def makes_view(self, decorator: ast.expr, scope: Scope) -> bool:
        """Return whether a decorator registers a function for requests."""
        call = decorator if isinstance(decorator, ast.Call) else None
        target = call.func if call else decorator
        if isinstance(target, ast.Name):
            return target.id == "expose"
        if not isinstance(target, ast.Attribute) or target.attr not in vocabulary.VIEWS:
            return False
        if target.attr in vocabulary.PATHS and call:
            path = call.args[0] if call.args else None
            return isinstance(path, ast.Constant | ast.JoinedStr | ast.Name | ast.BinOp | ast.Attribute)
        value = self.index.infer(target.value, scope.parent or scope)
        return value is None or value.kind in {"app", "blueprint", "external", "method", "object"}

    def added_views(self, call: Call, scope: Scope) -> Iterator[tuple[Scope, str]]:
        """Yield the function in `add_url_rule` and similar calls."""
        function = call.node.func.func if isinstance(call.node.func, ast.Call) else call.node.func
        if not isinstance(function, ast.Attribute) or function.attr not in {
            "add_url_rule",
            *vocabulary.VIEWS,
        }:
            return
        if function is call.node.func and function.attr in vocabulary.PATHS:
            return  # It registers the function that its result is called with.
        for argument in (*call.node.args, *(keyword.value for keyword in call.node.keywords)):
            value = (
                self.index.infer(argument, scope) if isinstance(argument, ast.Name | ast.Attribute) else None
            )
            if value and value.kind == "function" and value.scope:
                yield value.scope, value.scope.name

    def is_view_class(self, scope: Scope, depth: int = 6) -> bool:
        """Return whether the methods of a class answer requests."""
        for base in self.index.bases(scope):
            if base.name in vocabulary.VIEW_CLASSES:
                return True
            if base.scope and depth and self.is_view_class(base.scope, depth - 1):
                return True
        return False

    # -- the graph ---------------------------------------------------------------------------------

    def import_roots(self) -> Iterator[Scope]:
        """Yield the served modules, and the factories that a server calls."""
        for module in self.index.modules:
            if module in self.served:
                yield module
                yield from (child for child in module.children if self.is_factory(child))

    def is_factory(self, scope: Scope) -> bool:
        """Return whether a function returns an application."""
        if not isinstance(scope.node, ast.FunctionDef) or scope in self.views:
            return False
        returned = self.index.infer_returned(scope)
        return returned is not None and returned.kind == "app"

    def request_roots(self) -> Iterator[Scope]:
        """Yield the views, and the wrappers that decorators put around them."""
        for view in self.views:
            yield view
            for decorator in view.decorators:
                target = decorator.func if isinstance(decorator, ast.Call) else decorator
                value = self.index.infer(target, view.parent or view)
                if value and value.kind == "function" and value.scope:
                    yield from (scope for scope in value.scope.walk() if scope is not value.scope)

    def follow(
        self, roots: Iterable[Scope], called: Callable[[Scope], Iterable[tuple[Scope, ast.AST]]]
    ) -> dict[Scope, Step]:
        """Return each scope that is reached from roots, with the first step that leads to it."""
        steps = {root: Step(None, root.node) for root in roots}
        queue = deque(steps)
        while queue:
            caller = queue.popleft()
            for scope, node in called(caller):
                if scope not in steps:
                    steps[scope] = Step(caller, node)
                    queue.append(scope)
        return steps

    def called_at_import(self, scope: Scope) -> Iterator[tuple[Scope, ast.AST]]:
        """Yield the code that runs with this code: class bodies, called functions, decorators."""
        yield from ((child, child.node) for child in scope.children if child.is_class)
        for call in scope.calls:
            if not call.guarded:
                yield from self.targets(self.index.callee(call, scope), call.node)
        for child in scope.children:
            for decorator in child.decorators:
                yield from self.targets(self.index.infer(decorator, scope), decorator)

    def called_in_request(self, scope: Scope) -> Iterator[tuple[Scope, ast.AST]]:
        """Yield the code that runs with this code, including functions defined inside it."""
        yield from ((child, child.node) for child in scope.children)
        for call in scope.calls:
            yield from self.targets(self.index.callee(call, scope), call.node)
            for argument in call.node.args:
                value = self.index.infer(argument, scope) if isinstance(argument, ast.Name) else None
                if value and value.kind == "function":
                    yield from self.targets(value, call.node)

    def targets(self, value: Value | None, node: ast.AST) -> Iterator[tuple[Scope, ast.AST]]:
        """Yield the code that a call of a value runs."""
        if value and value.scope and value.kind == "function":
            yield value.scope, node
        if value and value.scope and value.kind == "class":
            named = self.index.infer_member(value, "__init__", 4)
            if named and named.scope and named.kind == "function":
                yield named.scope, node

    def path(self, scope: Scope, steps: dict[Scope, Step]) -> list[Scope]:
        """Return the scopes from a root to this one."""
        found: list[Scope] = []
        current: Scope | None = scope
        while current and current not in found:
            found.append(current)
            current = steps[current].caller if current in steps else None
        return found[::-1]


def is_script(module: Module) -> bool:
    """Return whether a file is a separate program."""
    path = "/".join(module.source.path.parts[-3:])
    return module.has_main or bool(SCRIPTS.search(path))


def takes_arguments(module: Module) -> bool:
    """Return whether the import reads arguments of the command line, which no server's process has."""
    functions = (call.node.func for call in module.calls if not call.guarded)
    parses = any(isinstance(node, ast.Attribute) and node.attr == "parse_args" for node in functions)
    return parses or (not module.has_main and any(read.attr == "argv" for read in module.reads))


def is_worker(module: Module) -> bool:
    """Return whether a process other than the server loads a module."""
    return bool(WORKERS.search(module.source.shown.replace("\\", "/")))
