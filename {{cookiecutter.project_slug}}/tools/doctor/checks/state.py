"""N201 and N404: globals that requests change, and generators whose state a fork copies."""

import ast
from collections.abc import Iterator

from .. import vocabulary
from ..findings import Code, Finding
from ..index import Named, Value
from ..scopes import Change, Module, Scope

MUTABLE = {"container", "dataframe"}
# Methods that change a container or a DataFrame.
FRAME_CHANGES = {"insert", "pop", "update"}


def check(code: Code) -> Iterator[Finding]:
    """Yield the findings of this family."""
    yield from check_changes(code)
    yield from check_generators(code)


def check_changes(code: Code) -> Iterator[Finding]:
    """Yield a finding for each global that requests change."""
    groups: dict[Named, list[tuple[Scope, Change]]] = {}
    for scope in code.reach.in_request:
        for change in scope.changes:
            named = changed_global(code, change, scope)
            if named and not is_locked(code, change, scope):
                groups.setdefault(named, []).append((scope, change))
    yield from (report_change(code, named, changes) for named, changes in groups.items())


def report_change(code: Code, named: Named, changes: list[tuple[Scope, Change]]) -> Finding:
    """Return the finding for a global: where it is created, or changed if a library creates it."""
    binding = next((item for item in named.bindings if item.origin is named.scope), named.bindings[0])
    scope, node = binding.origin, binding.node
    if binding.how == "import":
        scope, node = changes[0][0], changes[0][1].node
    uses = [(scope, change.node) for scope, change in changes]
    if any(stores_instance(code, change, scope) for scope, change in changes):
        message = f"ORM instance kept across requests: `{named.name}`"
        return code.finding("N104", "warning", scope, node, named.name, message, uses)
    message = f"requests change the global `{named.name}`"
    return code.finding("N201", "error", scope, node, named.name, message, uses)


def changed_global(code: Code, change: Change, scope: Scope) -> Named | None:
    """Return the changed global."""
    if change.how == "local":
        return None
    if change.how == "rebind":
        name = change.target.id if isinstance(change.target, ast.Name) else ""
        named = code.index.owner(name, scope)
        # A value created only on first use is a cache of one.
        return named if named and isinstance(named.scope, Module) and name not in scope.tested else None
    target: ast.expr = change.target
    if change.how == "attribute" and isinstance(target, ast.Attribute):
        return changed_attribute(code, target, scope)
    while isinstance(target, ast.Subscript | ast.Attribute):
        named = code.index.name_of(target, scope)
        if named:
            return as_global(code, named, change)
        if is_configuration(code, target, scope):
            owner = code.index.name_of(target.value, scope)
            return owner if owner and isinstance(owner.scope, Module) else None
        target = target.value
    named = code.index.name_of(target, scope)
    return as_global(code, named, change) if named else None


def is_configuration(code: Code, target: ast.expr, scope: Scope) -> bool:
    """Return whether an expression is the configuration of the application."""
    if not isinstance(target, ast.Attribute) or target.attr != "config":
        return False
    value = code.index.infer(target.value, scope)
    return value is not None and (value.kind == "app" or value.name == "flask.current_app")


def changed_attribute(code: Code, target: ast.Attribute, scope: Scope) -> Named | None:
    """Return the module's variable that `module.name = value` changes, or the class's, or the object's."""
    named = code.index.name_of(target, scope)
    if named and isinstance(target.value, ast.Name):
        value = code.index.infer(target.value, scope)
        if value and value.kind in {"module", "class"} and named.scope is value.scope:
            return named
    owner = code.index.name_of(target.value, scope)
    if owner and isinstance(owner.scope, Module) and isinstance(target.value, ast.Name | ast.Attribute):
        value = code.index.infer_named(owner)
        if value and value.kind in MUTABLE | {"app", "object"} and not is_local(code, value):
            return owner
    return None


def is_local(code: Code, value: Value) -> bool:
    """Return whether an object is a threading.local by its base class."""
    bases = code.index.bases(value.scope) if value.scope else []
    return any(vocabulary.find_kind(base.name) == "local" for base in bases)


def as_global(code: Code, named: Named, change: Change) -> Named | None:
    """Return the global of a changed container: its name, or the object that has it."""
    if not (isinstance(named.scope, Module) or named.scope.is_class):
        return None
    value = code.index.infer_named(named)
    if value is None or value.kind not in MUTABLE:
        return None
    if value.kind == "dataframe" and change.how == "method" and not changes_frame(change):
        return None
    return code.instantiated.get(named.scope) if named.name.startswith("self.") else named


def changes_frame(change: Change) -> bool:
    """Return whether a DataFrame method changes it, instead of returning another."""
    call = change.node
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return False
    in_place = any(
        keyword.arg == "inplace" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for keyword in call.keywords
    )
    return in_place or call.func.attr in FRAME_CHANGES


def is_locked(code: Code, change: Change, scope: Scope) -> bool:
    """Return whether a lock is held around a change."""
    for expression in change.locked:
        value = code.index.infer(expression, scope)
        text = ast.unparse(expression).lower()
        if (value and value.kind == "lock") or "lock" in text or "mutex" in text:
            return True
    return False


def stores_instance(code: Code, change: Change, scope: Scope) -> bool:
    """Return whether a change stores an instance of a model."""
    value = code.index.infer(change.value, scope) if change.value else None
    return value is not None and value.kind in {"instance", "instances"}


def check_generators(code: Code) -> Iterator[Finding]:
    """Yield the random generators that requests share."""
    kept = list(code.kept({"rng"}))
    uses = code.uses_in_requests(item.named for item in kept)
    for item in kept:
        if uses[item.named] and item.binding.origin in code.reach.at_import:
            name = item.named.name
            message = f"random generator made at import: `{name}`"
            level = code.fatal_before_fork("warning")
            yield code.finding(
                "N404", level, item.binding.origin, item.binding.node, name, message, uses[item.named]
            )
    yield from check_seeds(code)


def check_seeds(code: Code) -> Iterator[Finding]:
    """Yield seeds set at import for numbers drawn in requests."""
    for event in code.events:
        seeds = event.callee.kind == "external" and event.callee.name in vocabulary.SEEDS
        if seeds and event.call.node.args:
            package = event.callee.name.rpartition(".")[0]
            uses = [use for scope in code.reach.in_request for use in draws(code, scope, package)]
            if uses:
                message = f"random numbers seeded at import: `{event.callee.name}()`"
                level = code.fatal_before_fork("warning")
                yield code.finding("N404", level, event.scope, event.call.node, package, message, uses)


def draws(code: Code, scope: Scope, package: str) -> Iterator[tuple[Scope, ast.AST]]:
    """Yield the calls of a package's functions in a scope."""
    for call in scope.calls:
        value = code.index.callee(call, scope)
        drawn = value.name.rpartition(".") if value and value.kind == "external" else ("", "", "")
        if drawn[0] == package and drawn[2] not in {"default_rng", "seed"}:
            yield scope, call.node
