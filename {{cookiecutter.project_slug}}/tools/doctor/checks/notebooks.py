"""X901, and the summary of a notebook without views."""

import ast
import builtins
import re
from collections.abc import Iterator

from ..findings import Code, Finding
from ..scopes import Module, Scope
from ..sources import Source, Unparsed

# Names that IPython gives to every cell.
IPYTHON = {"In", "Out", "_", "__", "___", "display", "exit", "get_ipython", "quit"}
HISTORY = re.compile(r"_(\d+|i+\d*|[iod]h)")  # its names of earlier input and output
KNOWN = frozenset(dir(builtins)) | IPYTHON | {"__file__", "__name__", "__doc__", "__path__", "__class__"}


def check(code: Code) -> Iterator[Finding]:
    """Yield the findings of this family."""
    for module in code.index.modules:
        yield from (report_unparsed(module.source, part) for part in module.source.unparsed)
        if module.source.notebook and not module.stars:
            yield from check_names(code, module)
        if code.reach.explores(module):
            yield from summarize(code, module)


def report_unparsed(source: Source, part: Unparsed) -> Finding:
    """Return the finding for a cell or a file that is not Python."""
    message, lines = f"this does not parse: {part.reason}", (part.line, part.line)
    return Finding("X901", "note", "syntax", message, source.place(part.line), (), source, lines, "")


def check_names(code: Code, module: Module) -> Iterator[Finding]:
    """Yield names that a notebook uses but no cell defines."""
    known = KNOWN | module.source.mentioned
    missing: dict[str, list[tuple[Scope, ast.AST]]] = {}
    for scope in module.walk():
        for load in scope.loads:
            if (
                load.id not in known
                and not HISTORY.fullmatch(load.id)
                and code.index.owner(load.id, scope) is None
            ):
                missing.setdefault(load.id, []).append((scope, load))
    for name, uses in missing.items():
        scope, node = uses[0]
        yield code.finding("X901", "note", scope, node, name, f"no cell defines `{name}`", uses)


def summarize(code: Code, module: Module) -> Iterator[Finding]:
    """Yield one remark about the sessions and connections kept by a notebook without views."""
    kept = list(code.kept({"session", "connection"}, [module]))
    if kept:
        first = kept[0]
        names = ", ".join(f"`{item.named.name}`" for item in kept)
        message = f"kept from cell to cell: {names} (this notebook serves no requests)"
        uses = [(item.binding.origin, item.binding.node) for item in kept]
        yield code.finding("N101", "note", module, first.binding.node, first.named.name, message, uses)
