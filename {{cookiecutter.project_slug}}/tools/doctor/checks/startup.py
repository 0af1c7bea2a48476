"""N301 and N302: servers started at import, and application contexts that stay pushed."""

import ast
from collections.abc import Iterator

from .. import vocabulary
from ..findings import Code, Finding
from ..index import Value
from ..reach import is_script, is_worker
from ..scopes import Call, Scope

STARTS = {"app.run", "app.serve", "server.run", "server.serve_forever", "server.start"}


def check(code: Code) -> Iterator[Finding]:
    """Yield the findings of this family."""
    yield from check_servers(code)
    yield from check_contexts(code)


def check_servers(code: Code) -> Iterator[Finding]:
    """Yield servers started at import; in a notebook a main guard is true."""
    for scope in code.reach.at_import:
        for call in scope.calls:
            in_notebook = call.guarded and scope.module.source.notebook
            if (in_notebook or not call.guarded) and starts_server(code, call, scope):
                level = "note" if in_notebook else "error"
                text = ast.unparse(call.node.func)
                message = (
                    f"server started by a cell: `{text}()`"
                    if in_notebook
                    else f"server started at import: `{text}()`"
                )
                yield code.finding("N301", level, scope, call.node, text, message)


def starts_server(code: Code, call: Call, scope: Scope) -> bool:
    """Return whether a call serves until the process exits."""
    value = code.index.callee(call, scope)
    if value:
        return value.name in STARTS or (value.kind == "external" and value.name in vocabulary.SERVERS)
    function = call.node.func
    named = (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == "app"
    )
    return named and isinstance(function, ast.Attribute) and function.attr == "run"


def check_contexts(code: Code) -> Iterator[Finding]:
    """Yield application contexts that are pushed but never popped."""
    for scope in code.index.scopes:
        if is_script(scope.module) and scope.module not in code.reach.served:
            continue
        for call in scope.calls:
            function = call.node.func
            if not isinstance(function, ast.Attribute) or function.attr != "push":
                continue
            if is_context(code, function.value, scope) and not is_popped(code, function.value, scope):
                level = find_level(code, scope)
                text = ast.unparse(function.value)
                message = f"application context pushed and never popped: `{text}.push()`"
                yield code.finding("N302", level, scope, call.node, text, message)


def find_level(code: Code, scope: Scope) -> str:
    """Return the level of a pushed context: a queue worker or a command may keep one."""
    if code.reach.explores(scope.module):
        return "note"
    reached = scope in code.reach.at_import or scope in code.reach.in_request
    return "error" if reached and not is_worker(scope.module) else "warning"


def is_context(code: Code, node: ast.expr, scope: Scope) -> bool:
    """Return whether an expression is a context of Flask."""
    value: Value | None = code.index.infer(node, scope)
    if value and value.kind == "context":
        return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in {"app_context", "test_request_context", "request_context"}
    return False


def is_popped(code: Code, node: ast.expr, scope: Scope) -> bool:
    """Return whether the module has a `pop` of the same object."""
    named = code.root(node, scope)
    if named is None or isinstance(node, ast.Call):
        return False
    reads = ((read, other) for other in scope.module.walk() for read in other.reads if read.attr == "pop")
    return any(code.root(read.value, other) == named for read, other in reads)
