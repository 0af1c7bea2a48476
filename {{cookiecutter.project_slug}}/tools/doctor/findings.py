"""Findings, and the code under check."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from .catalogue import CATALOGUE
from .index import Index, Named, Value
from .reach import Reach, Step
from .scopes import Binding, Call, Module, Scope
from .servers import Deployment
from .sources import Place, Source

# The rules whose uses are calls at import; those of the others are in requests.
AT_IMPORT = {"N102", "N403"}


class Use(NamedTuple):
    """A use of a finding's object, and the functions that lead to it."""

    place: Place
    where: str


class Finding(NamedTuple):
    """A hazard: one per object, with all its uses."""

    rule: str
    level: str
    object: str
    message: str
    place: Place
    uses: tuple[Use, ...]
    source: Source | None
    lines: tuple[int, int]  # an ignore comment can stand on any of these
    scope: str

    @property
    def fingerprint(self) -> str:
        """A value that does not change when lines move."""
        text = "\0".join((self.rule, self.place.path, self.scope, self.object))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Kept(NamedTuple):
    """An object that the process keeps under a name."""

    named: Named
    binding: Binding
    value: Value


class Event(NamedTuple):
    """A call at import."""

    call: Call
    scope: Scope
    callee: Value


class Code:
    """All code read, and the facts derived from it."""

    def __init__(self, sources: Iterable[Source], deployment: Deployment) -> None:
        self.index = Index(sources)
        self.reach = Reach(self.index)
        self.deployment = deployment

    def finding(
        self,
        rule: str,
        level: str,
        scope: Scope,
        node: ast.AST,
        subject: str,
        message: str,
        uses: Iterable[tuple[Scope, ast.AST]] = (),
    ) -> Finding:
        """Return a finding at a node of a scope."""
        source = scope.module.source
        steps = self.reach.at_import if rule in AT_IMPORT else self.reach.in_request
        places = dict.fromkeys(Use(s.module.source.place(n), self.where(s, steps)) for s, n in uses)
        lines = first_and_last_line(node)
        return Finding(
            rule, level, subject, message, source.place(node), tuple(places), source, lines, scope.name
        )

    def where(self, scope: Scope, steps: dict[Scope, Step]) -> str:
        """Return the functions that lead from a view, or from an import, to this scope."""
        names = [part.name.rpartition(".")[2] for part in self.reach.path(scope, steps) if part.name]
        return " → ".join(names) or "import"

    def fatal_before_fork(self, level: str) -> str:
        """Return `error` if the server loads the code before it forks, else this level."""
        return "error" if self.deployment.preload else level

    @cached_property
    def events(self) -> list[Event]:
        """All calls at import with a known callee."""
        found = []
        for scope in self.reach.at_import:
            for call in scope.calls:
                callee = None if call.guarded else self.index.callee(call, scope)
                if callee:
                    found.append(Event(call, scope, callee))
        return found

    def kept(self, kinds: set[str], owners: Iterable[Scope] | None = None) -> Iterator[Kept]:
        """Yield the process's long-lived objects of some kinds."""
        for owner in self.owners if owners is None else owners:
            names = [Named(owner, name) for name in owner.bindings]
            names += [Named(owner, f"self.{name}") for name in owner.attributes if owner in self.instantiated]
            for named in names:
                for binding in named.bindings:
                    value = (
                        self.index.infer_binding(binding, owner) if self.is_kept(binding, owners) else None
                    )
                    if value and value.kind in kinds:
                        yield Kept(named, binding, value)
                        break

    def is_kept(self, binding: Binding, owners: Iterable[Scope] | None) -> bool:
        """Return whether a binding holds an object beyond the statement, at import or in a request."""
        if binding.how != "value" or binding.guarded:
            return False
        return (
            owners is not None
            or binding.origin in self.reach.at_import
            or binding.origin in self.reach.in_request
        )

    @cached_property
    def owners(self) -> list[Scope]:
        """The scopes whose names live as long as the process: modules, classes, application factories."""
        roots = (scope for scope in self.reach.at_import if scope.is_class or isinstance(scope, Module))
        factories = (
            scope for scope in self.reach.at_import if scope.is_function and self.reach.is_factory(scope)
        )
        return [*roots, *factories, *(self.instantiated.keys() - self.reach.at_import.keys())]

    @cached_property
    def instantiated(self) -> dict[Scope, Named]:
        """The classes with an object that a module keeps, and the name of the first one."""
        found: dict[Scope, Named] = {}
        for module in self.index.modules:
            if module in self.reach.at_import:
                for name, bindings in module.bindings.items():
                    for binding in bindings:
                        if binding.how == "value" and isinstance(binding.value, ast.Call):
                            value = self.index.infer_binding(binding, module)
                            if value and value.scope and value.kind not in {"class", "function", "module"}:
                                found.setdefault(value.scope, Named(module, name))
        return found

    def uses_in_requests(self, names: Iterable[Named]) -> dict[Named, list[tuple[Scope, ast.AST]]]:
        """Return where requests load each of these names."""
        uses: dict[Named, list[tuple[Scope, ast.AST]]] = {named: [] for named in names}
        words = {named.name.rpartition(".")[2] for named in uses}
        for scope in self.reach.in_request:
            loads = [*scope.loads, *(read for read in scope.reads if read.attr in words)]
            for node in loads:
                aliases = isinstance(node, ast.Name) and (node.id in words or self.is_import(node.id, scope))
                if aliases or isinstance(node, ast.Attribute):
                    named = self.index.name_of(node, scope)
                    if named in uses:
                        uses[named].append((scope, node))
        return uses

    def is_import(self, name: str, scope: Scope) -> bool:
        """Return whether a name may be the alias of an imported one."""
        return any(
            binding.how == "import"
            for owner in (scope, scope.module)
            for binding in owner.bindings.get(name, ())
        )

    def root(self, node: ast.AST | str | None, scope: Scope) -> Named | None:
        """Return the name at the start of `name.attribute[item].call()`."""
        while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Await):
            if isinstance(node, ast.Attribute) and (named := self.index.name_of(node, scope)):
                return named
            node = node.func if isinstance(node, ast.Call) else node.value
        return self.index.name_of(node, scope) if isinstance(node, ast.Name) else None


def first_and_last_line(node: ast.AST) -> tuple[int, int]:
    """Return the lines of a node; of a block, only the first."""
    first = int(getattr(node, "lineno", 1))
    return first, first if hasattr(node, "body") else int(getattr(node, "end_lineno", first) or first)


def title(rule: str) -> str:
    """Return the title of a rule."""
    return CATALOGUE[rule].title
