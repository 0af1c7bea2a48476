"""N101 to N104: sessions, connections, statements and ORM instances that outlive their request."""

import ast
from collections.abc import Iterator

from .. import vocabulary
from ..findings import Code, Event, Finding, Kept
from ..index import Named
from ..scopes import Module, Scope

OPENED = {"session", "connection", "cursor"}
NOUNS = {"session": "database session", "connection": "database connection", "cursor": "database cursor"}


def check(code: Code) -> Iterator[Finding]:
    """Yield the findings of this family."""
    kept = merge(code, list(code.kept(OPENED)))
    uses = code.uses_in_requests(named for group in kept for named in group)
    for group, objects in kept.items():
        used = [use for named in group for use in uses[named]]
        if used:
            yield report(code, "N103", objects[0], used)
        elif outlives(objects[0]) and not is_closed(code, objects[0]):
            yield report(code, "N101", objects[0], [])
    yield from check_statements(code)
    yield from check_instances(code)


def outlives(item: Kept) -> bool:
    """Return whether an object stays alive without a use, unlike that of a factory's local variable."""
    return isinstance(item.named.scope, Module) or item.named.scope.is_class


def merge(code: Code, kept: list[Kept]) -> dict[tuple[Named, ...], list[Kept]]:
    """Group a cursor or a connection with the object that created it."""
    roots = {item.named: item for item in kept}
    parents = {}
    for item in kept:
        value = item.binding.value
        root = code.root(value.func, item.binding.origin) if isinstance(value, ast.Call) else None
        parents[item.named] = root if root in roots and root != item.named else item.named
    groups: dict[Named, list[Kept]] = {}
    for item in kept:
        top = item.named
        for _ in kept:
            top = parents[top]
        groups.setdefault(top, []).append(item)
    for top, group in groups.items():
        group.sort(key=lambda item: item.named != top)
    return {tuple(item.named for item in group): group for group in groups.values()}


def report(code: Code, rule: str, item: Kept, uses: list[tuple[Scope, ast.AST]]) -> Finding:
    """Return a finding about an open session or connection."""
    noun, name = NOUNS[item.value.kind], item.named.name
    at_import = item.binding.origin in code.reach.at_import
    message = f"one {noun} for every request: `{name}`" if uses else f"{noun} opened at import: `{name}`"
    if uses and not at_import:
        message += ", opened by the first request"
    return code.finding(rule, "error", item.binding.origin, item.binding.node, name, message, uses)


def is_closed(code: Code, item: Kept) -> bool:
    """Return whether the code that opens an object closes it, too."""
    origin = item.binding.origin
    functions = (call.node.func for call in origin.calls)
    closed = (node.value for node in functions if isinstance(node, ast.Attribute) and node.attr == "close")
    return any(code.index.name_of(node, origin) == item.named for node in closed)


def check_statements(code: Code) -> Iterator[Finding]:
    """Yield a finding for each object whose statements run at import."""
    groups: dict[object, list[Event]] = {}
    for event in code.events:
        start = code.reach.path(event.scope, code.reach.at_import)[0].module
        if sends_statement(event) and not code.reach.is_beside_service(start):
            groups.setdefault(root_of(code, event), []).append(event)
    for events in groups.values():
        first = events[0]
        text = ast.unparse(first.call.node.func)
        message = f"database statement at import: `{text}()`"
        uses = [(event.scope, event.call.node) for event in events]
        level = code.fatal_before_fork("warning")
        yield code.finding("N102", level, first.scope, first.call.node, text, message, uses)


def sends_statement(event: Event) -> bool:
    """Return whether a call sends a statement to the database."""
    callee, node = event.callee, event.call.node
    if callee.kind == "method" and callee.name in vocabulary.STATEMENTS:
        # Opening a kept connection is a separate finding.
        return event.call.managed or callee.name not in {"engine.connect", "engine.raw_connection"}
    if callee.kind != "external":
        return False
    if callee.name in vocabulary.READERS:
        return True
    keywords = {keyword.arg for keyword in node.keywords}
    return vocabulary.find_kind(callee.name) == "table" and bool(keywords & {"autoload", "autoload_with"})


def root_of(code: Code, event: Event) -> object:
    """Return the engine or the session of a statement, or else the scope of the call."""
    node, scope = event.call.node, event.scope
    arguments = (*node.args, *(keyword.value for keyword in node.keywords))
    for argument in arguments:
        value = code.index.infer(argument, scope)
        if value and value.kind in {"engine", "connection", "session"}:
            return code.root(argument, scope) or scope
    root = opener(code, code.root(node.func, scope))
    return scope if root is None or code.index.is_model(code.index.infer_named(root)) else root


def opener(code: Code, named: Named | None) -> Named | None:
    """Return the engine whose method made a connection, or the name itself."""
    for binding in named.bindings if named else ():
        if isinstance(binding.value, ast.Call) and isinstance(binding.value.func, ast.Attribute):
            return code.root(binding.value.func, binding.origin) or named
    return named


def check_instances(code: Code) -> Iterator[Finding]:
    """Yield the instances of models that outlive their session."""
    # A kept object of a request is a change of a global, in the family of state.
    kept = [
        item for item in code.kept({"instance", "instances"}) if item.binding.origin in code.reach.at_import
    ]
    uses = code.uses_in_requests(item.named for item in kept)
    for item in kept:
        if uses[item.named]:
            name = item.named.name
            message = f"ORM instance kept across requests: `{name}`"
            origin = item.binding.origin
            yield code.finding("N104", "warning", origin, item.binding.node, name, message, uses[item.named])
    for scope in code.reach.in_request:
        if any(is_cache(code, decorator, scope) for decorator in scope.decorators):
            value = code.index.infer_returned(scope)
            if value and value.kind in {"instance", "instances"}:
                name = scope.name.rpartition(".")[2]
                message = f"ORM instance kept across requests by the cache of `{name}()`"
                owner = scope.parent or scope
                yield code.finding("N104", "warning", owner, scope.node, name, message, [(scope, scope.node)])


def is_cache(code: Code, decorator: ast.expr, scope: Scope) -> bool:
    """Return whether a decorator caches a function's result."""
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    value = code.index.infer(target, scope.parent or scope)
    return value is not None and value.name in vocabulary.CACHES
