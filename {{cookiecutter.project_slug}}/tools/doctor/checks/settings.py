"""N501 and N601: unsafe arguments, sessions without an end, and servers that contradict the code."""

import ast
from collections.abc import Iterable, Iterator

from ..findings import Code, Finding, Use
from ..index import Named
from ..scopes import Module, Scope
from ..servers import Setting

WRITES = {"add", "bulk_save_objects", "commit", "delete", "execute", "flush", "merge"}
SESSIONS = {"session", "scoped_session", "managed_session"}
# Objects that must not exist before a fork.
INHERITED = {"N101", "N102", "N103", "N401", "N403", "N404"}


def check(code: Code) -> Iterator[Finding]:
    """Yield the findings of the family N501."""
    for scope in code.index.scopes:
        if scope.module in code.reach.served:
            yield from check_threads_of_sqlite(code, scope)
    yield from check_scoped_sessions(code)
    for scope in [*code.reach.in_request]:
        for node in scope.tries:
            yield from check_handlers(code, scope, node)


def check_threads_of_sqlite(code: Code, scope: Scope) -> Iterator[Finding]:
    """Yield SQLite connections that any thread may use."""
    for call in scope.calls:
        if any(allows_threads(keyword) for keyword in call.node.keywords):
            text = ast.unparse(call.node.func)
            message = f"SQLite's guard against threads is off: `{text}(check_same_thread=False)`"
            yield code.finding("N501", "warning", scope, call.node, text, message)


def allows_threads(keyword: ast.keyword) -> bool:
    """Return whether an argument is check_same_thread=False, or a dict that contains it."""
    pairs: list[tuple[ast.expr | None, ast.expr]] = []
    if isinstance(keyword.value, ast.Dict):
        pairs = list(zip(keyword.value.keys, keyword.value.values, strict=True))
    if keyword.arg == "check_same_thread":
        pairs.append((ast.Constant("check_same_thread"), keyword.value))
    return any(
        isinstance(key, ast.Constant)
        and key.value == "check_same_thread"
        and isinstance(value, ast.Constant)
        and value.value is False
        for key, value in pairs
    )


def check_scoped_sessions(code: Code) -> Iterator[Finding]:
    """Yield each scoped_session that is never removed."""
    kept = list(code.kept({"scoped_session"}))
    uses = code.uses_in_requests(item.named for item in kept)
    for item in kept:
        if uses[item.named] and not is_removed(code, item.named):
            name = item.named.name
            message = f"scoped_session without remove(): `{name}`"
            origin, node = item.binding.origin, item.binding.node
            yield code.finding("N501", "warning", origin, node, name, message, uses[item.named])


def is_removed(code: Code, named: Named) -> bool:
    """Return whether some code calls remove() on a scoped_session, or passes it to a library."""
    for scope in code.index.scopes:
        for read in scope.reads:
            if read.attr == "remove" and code.root(read.value, scope) == named:
                return True
    return False


def check_handlers(code: Code, scope: Scope, node: ast.Try) -> Iterator[Finding]:
    """Yield handlers that swallow a failed write without a rollback."""
    writes = [call for call in calls_in(node.body) if is_write(code, call, scope)]
    if not writes or any(has_end(part) for part in node.finalbody):
        return
    for handler in node.handlers:
        if catches_everything(handler) and not any(has_end(part) for part in handler.body):
            name = ast.unparse(writes[0].func.value) if isinstance(writes[0].func, ast.Attribute) else ""
            message = f"exception swallowed without rollback: `{name}`"
            yield code.finding("N501", "warning", scope, handler, name, message)


def calls_in(nodes: Iterable[ast.AST]) -> Iterator[ast.Call]:
    """Yield the calls in a block."""
    for node in nodes:
        yield from (part for part in ast.walk(node) if isinstance(part, ast.Call))


def is_write(code: Code, call: ast.Call, scope: Scope) -> bool:
    """Return whether a call commits or flushes a session that outlives the handler."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in {"commit", "flush"}:
        return False
    value = code.index.infer(call.func.value, scope)
    named = code.root(call.func.value, scope)
    if value is None or named is None:
        return value is not None and value.kind in SESSIONS
    if value.kind == "connection":
        return isinstance(named.scope, Module)
    return value.kind in SESSIONS and all(binding.how != "with" for binding in named.bindings)


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """Return whether a handler catches database errors."""
    if handler.type is None:
        return True
    names = {part.id for part in ast.walk(handler.type) if isinstance(part, ast.Name)}
    names |= {part.attr for part in ast.walk(handler.type) if isinstance(part, ast.Attribute)}
    return bool(names & {"BaseException", "DatabaseError", "Exception", "IntegrityError", "SQLAlchemyError"})


def has_end(node: ast.AST) -> bool:
    """Return whether code rolls back, closes or removes a session, or raises."""
    for part in ast.walk(node):
        if isinstance(part, ast.Raise):
            return True
        if isinstance(part, ast.Call):
            name = part.func.attr if isinstance(part.func, ast.Attribute) else getattr(part.func, "id", "")
            if name in {"abort", "close", "remove"} or "rollback" in name:
                return True
    return False


def check_servers(code: Code, found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield server settings that make other findings fatal."""
    # A remark is about a notebook, which no server loads.
    found = [finding for finding in found if finding.level != "note"]
    inherited = [finding for finding in found if finding.rule in INHERITED]
    threads = [finding for finding in found if finding.rule == "N401"]
    for setting, causes in ((code.deployment.preload, inherited), (code.deployment.no_threads, threads)):
        if setting and causes:
            yield contradiction(setting, causes)


def contradiction(setting: Setting, causes: list[Finding]) -> Finding:
    """Return the finding about a setting, with the findings that it makes worse."""
    uses = tuple(Use(cause.place, f"{cause.rule} {cause.object}") for cause in causes)
    line = setting.place.line
    return Finding("N601", "error", setting.text, setting.text, setting.place, uses, None, (line, line), "")
