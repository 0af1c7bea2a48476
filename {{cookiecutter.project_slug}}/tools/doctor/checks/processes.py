"""N401 to N403: threads and models that do not survive a fork."""

import ast
from collections.abc import Iterator

from .. import vocabulary
from ..findings import Code, Event, Finding, Kept, first_and_last_line
from ..index import Named

STARTED = {
    "thread.start",
    "scheduler.start",
    "executor.submit",
    "executor.map",
    "server.start_background_task",
}
MODELS = {"model", "loaded"}


def check(code: Code) -> Iterator[Finding]:
    """Yield the findings of this family."""
    yield from check_threads(code)
    yield from check_models(code)


def check_threads(code: Code) -> Iterator[Finding]:
    """Yield a finding for each thread, scheduler or pool started at import."""
    seen = set()
    for event in code.events:
        if starts(event):
            named = code.root(event.call.node.func, event.scope)
            key: object = named if named and event.callee.kind == "method" else event.call.node
            if key not in seen:
                seen.add(key)
                text = ast.unparse(event.call.node.func)
                shown = text if len(text) < 50 else f"{text[:46]} ..."
                message = f"thread, scheduler or pool started at import: `{shown}()`"
                yield code.finding("N401", "error", event.scope, event.call.node, text, message)


def starts(event: Event) -> bool:
    """Return whether a call starts threads or processes."""
    if event.callee.kind == "method":
        return event.callee.name in STARTED
    if event.callee.kind != "external" or event.call.managed:
        return False
    return event.callee.name in vocabulary.STARTS or vocabulary.find_kind(event.callee.name) == "pool"


def check_models(code: Code) -> Iterator[Finding]:
    """Yield a finding for each model trained, used or loaded at import."""
    used: dict[object, list[Event]] = {}
    for event in code.events:
        if uses_model(event):
            used.setdefault(code.root(event.call.node.func, event.scope) or event.scope, []).append(event)
    for key, events in used.items():
        first = events[0]
        name = key.name if isinstance(key, Named) else ast.unparse(first.call.node.func)
        message = f"model trained or used at import: `{ast.unparse(first.call.node.func)[:60]}()`"
        uses = [(event.scope, event.call.node) for event in events]
        level = code.fatal_before_fork("warning")
        yield code.finding("N403", level, first.scope, first.call.node, name, message, uses)
    yield from check_loads(code, used)


def uses_model(event: Event) -> bool:
    """Return whether a call trains a model or predicts."""
    kind, _, method = event.callee.name.partition(".")
    return event.callee.kind == "method" and kind in MODELS and method in vocabulary.USES


def check_loads(code: Code, used: dict[object, list[Event]]) -> Iterator[Finding]:
    """Yield a finding for each model loaded but not used at import."""
    level = "warning" if code.deployment.preload else "note"
    kept = [item for item in code.kept({"loaded"}) if item.binding.origin in code.reach.at_import]
    uses = code.uses_in_requests(item.named for item in kept)
    for item in kept:
        if item.named not in used:
            name, binding = item.named.name, item.binding
            message = f"model loaded at import: `{name}`"
            yield code.finding("N402", level, binding.origin, binding.node, name, message, uses[item.named])
    for event in code.events:
        if is_load(event) and not any(makes(item, event) for item in kept):
            text = ast.unparse(event.call.node.func)
            message = f"model loaded at import: `{text}()`"
            yield code.finding("N402", level, event.scope, event.call.node, text, message)


def is_load(event: Event) -> bool:
    """Return whether a call loads a model."""
    if event.callee.kind == "method":
        return event.callee.name in vocabulary.LOADS
    return event.callee.kind == "external" and vocabulary.find_kind(event.callee.name) == "loaded"


def makes(item: Kept, event: Event) -> bool:
    """Return whether a call creates a name's object, in its statement or in a function that returns it."""
    if event.scope.is_function and event.scope.returns:
        return True
    line = event.call.node.lineno
    first, last = first_and_last_line(item.binding.node)
    return event.scope is item.binding.origin and first <= line <= last
