"""The scopes of a module: their bindings, calls, loads and changes, collected in one walk of the tree."""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .sources import Source
from .vocabulary import words

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
# Methods that change a container, or a DataFrame.
CHANGES = words(
    "add append appendleft clear discard extend extendleft insert pop popitem popleft remove reverse"
    " setdefault sort update"
)


class Binding(NamedTuple):
    """A value that a scope gives to a name. `how`: value, with, import, def, part or unknown."""

    how: str
    value: ast.AST | str | None
    origin: "Scope"  # the scope whose code binds the name
    node: ast.AST
    guarded: bool = False  # whether `if __name__ == "__main__"` stands above it


class Call(NamedTuple):
    """A call and its context."""

    node: ast.Call
    guarded: bool
    managed: bool  # whether a `with` closes the result


class Change(NamedTuple):
    """A change of the object of a name, or of the name itself if `how` is rebind."""

    target: ast.expr
    how: str
    node: ast.AST
    value: ast.expr | None
    locked: tuple[ast.expr, ...]  # the expressions of the `with` statements around it
    guarded: bool


class Scope:
    """A module, a class, or a function."""

    def __init__(self, node: ast.AST, name: str, parent: "Scope | None", module: "Module") -> None:
        self.node = node
        self.name = name
        self.parent = parent
        self.module = module
        self.bindings: defaultdict[str, list[Binding]] = defaultdict(list)
        self.attributes: defaultdict[str, list[Binding]] = defaultdict(list)  # of self, in a class
        self.declared: dict[str, str] = {}  # the names of global and nonlocal statements
        self.calls: list[Call] = []
        self.loads: list[ast.Name] = []
        self.reads: list[ast.Attribute] = []
        self.changes: list[Change] = []
        self.returns: list[ast.expr] = []
        self.tries: list[ast.Try] = []
        self.children: list[Scope] = []
        self.tested: set[str] = set()  # the names that an `if` compares with None or with false
        self.generator = False

    def __repr__(self) -> str:
        return f"<{self.module.source.shown} {self.name or 'module'}>"

    @property
    def is_class(self) -> bool:
        """True for the body of a class."""
        return isinstance(self.node, ast.ClassDef)

    @property
    def is_function(self) -> bool:
        """True for code that runs when it is called."""
        return isinstance(self.node, Function)

    @property
    def decorators(self) -> list[ast.expr]:
        """The decorators of a function or a class."""
        return getattr(self.node, "decorator_list", [])

    def walk(self) -> Iterable["Scope"]:
        """Yield this scope and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


class Module(Scope):
    """The scope of a source; `scopes` maps the node of each function and class to its scope."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.scopes: dict[ast.AST, Scope] = {}
        self.stars: list[str] = []  # the modules of `from module import *`
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.has_main = False
        super().__init__(source.tree, "", None, self)
        Walk(self).visit_all(source.tree.body)


class Walk:
    """The walk of a module's tree, and its position."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.scope: Scope = module
        self.guarded = False
        self.managed: set[int] = set()
        self.locks: tuple[ast.expr, ...] = ()

    def visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        """Visit each node."""
        for node in nodes:
            if node is not None:
                self.visit(node)

    def visit(self, node: ast.AST) -> None:
        """Visit a node with the method for its type, or the nodes below it."""
        method = METHODS.get(node.__class__)
        if method:
            method(self, node)
        else:
            self.visit_below(node)

    def visit_below(self, node: ast.AST) -> None:
        """Visit the nodes of each field."""
        for field in node._fields:
            value = getattr(node, field, None)
            if value.__class__ is list:
                for item in value:
                    if isinstance(item, ast.AST):
                        self.visit(item)
            elif isinstance(value, ast.AST):
                self.visit(value)

    def bind(self, name: str, how: str, value: ast.AST | str | None, node: ast.AST) -> None:
        """Bind a name in this scope, or in the one that a global or nonlocal statement means."""
        scope: Scope | None = self.scope
        if declared := self.scope.declared.get(name):
            scope = self.module if declared == "global" else self.scope.parent
            while scope and declared == "nonlocal" and name not in scope.bindings and scope.parent:
                scope = scope.parent
        (scope or self.module).bindings[name].append(Binding(how, value, self.scope, node, self.guarded))

    def change(self, target: ast.expr, how: str, node: ast.AST, value: ast.expr | None = None) -> None:
        """Record a change."""
        self.scope.changes.append(Change(target, how, node, value, self.locks, self.guarded))

    def assign(self, target: ast.expr, how: str, value: ast.expr | None, node: ast.AST) -> None:
        """Bind the names of a target, and record the changes of others."""
        if isinstance(target, ast.Name):
            self.bind(target.id, how, value, node)
            if target.id in self.scope.declared:
                self.change(target, "rebind", node, value)
        elif isinstance(target, ast.Tuple | ast.List):
            values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
            pairs = zip(target.elts, values, strict=True) if len(values) == len(target.elts) else ()
            for part, item in pairs or ((part, None) for part in target.elts):
                self.assign(part, how if item else "part", item, node)
        elif isinstance(target, ast.Starred):
            self.assign(target.value, "part", None, node)
        elif isinstance(target, ast.Attribute | ast.Subscript):
            owner = self.owner_of_self(target)
            if owner and isinstance(target, ast.Attribute):
                owner.attributes[target.attr].append(Binding(how, value, self.scope, node, self.guarded))
            elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                self.bind(f"{target.value.id}.{target.attr}", how, value, node)
            self.change(target, "attribute" if isinstance(target, ast.Attribute) else "item", node, value)
            self.visit_below(target)

    def owner_of_self(self, target: ast.expr) -> Scope | None:
        """Return the class of `self` in `self.name`, inside a method."""
        method, parent = self.scope, self.scope.parent
        if not (isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name)):
            return None
        if not (parent and parent.is_class and isinstance(method.node, ast.FunctionDef)):
            return None
        arguments = method.node.args.posonlyargs + method.node.args.args
        return parent if arguments and arguments[0].arg == target.value.id else None

    def enter(self, node: ast.AST, name: str, body: Iterable[ast.AST | None]) -> None:
        """Visit the body of a function or a class as a new scope."""
        outer = self.scope, self.guarded, self.locks
        path = f"{self.scope.name}.{name}" if self.scope.name else name
        self.scope = Scope(node, path, outer[0], self.module)
        outer[0].children.append(self.scope)
        self.module.scopes[node] = self.scope
        if isinstance(node, Function):
            self.locks = ()
            for argument in ast.iter_child_nodes(node.args):
                if isinstance(argument, ast.arg):
                    self.bind(argument.arg, "unknown", argument.annotation, argument)
        self.visit_all(body)
        self.scope, self.guarded, self.locks = outer

    def visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.visit_all(node.decorator_list)
        self.visit_all((*node.args.defaults, *node.args.kw_defaults))
        self.bind(node.name, "def", node, node)
        self.enter(node, node.name, node.body)

    def visit_lambda(self, node: ast.Lambda) -> None:
        self.visit_all((*node.args.defaults, *node.args.kw_defaults))
        self.enter(node, "<lambda>", [node.body])
        self.module.scopes[node].returns.append(node.body)

    def visit_class(self, node: ast.ClassDef) -> None:
        self.visit_all((*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)))
        self.bind(node.name, "def", node, node)
        self.enter(node, node.name, node.body)

    def visit_call(self, node: ast.Call) -> None:
        self.scope.calls.append(Call(node, self.guarded, id(node) in self.managed))
        in_place = any(keyword.arg == "inplace" for keyword in node.keywords)
        if isinstance(node.func, ast.Attribute) and (in_place or node.func.attr in CHANGES):
            self.change(node.func.value, "method", node, node.args[-1] if node.args else None)
        self.visit_below(node)

    def visit_name(self, node: ast.Name) -> None:
        if node.ctx.__class__ is ast.Load:
            self.scope.loads.append(node)

    def visit_attribute(self, node: ast.Attribute) -> None:
        if node.ctx.__class__ is ast.Load:
            self.scope.reads.append(node)
        self.visit(node.value)

    def visit_assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.assign(target, "value", node.value, node)

    def visit_annotated(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)
        self.assign(node.target, "value" if node.value else "unknown", node.value, node)

    def visit_augmented(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self.bind(node.target.id, "unknown", None, node)
            self.change(node.target, "rebind" if node.target.id in self.scope.declared else "local", node)
        else:
            self.assign(node.target, "unknown", None, node)

    def visit_named(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.assign(node.target, "value", node.value, node)

    def visit_delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if not isinstance(target, ast.Name):
                self.assign(target, "unknown", None, node)

    def visit_for(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self.assign(node.target, "part", None, node)
        self.visit_all((*node.body, *node.orelse))

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.visit(node.iter)
        self.assign(node.target, "part", None, node.target)
        self.visit_all(node.ifs)

    def visit_comprehensions(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
    ) -> None:
        self.visit_all(node.generators)
        self.visit_all([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])

    def visit_with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.managed.add(id(item.context_expr))
            self.visit(item.context_expr)
            if item.optional_vars:
                self.assign(item.optional_vars, "with", item.context_expr, node)
        outer = self.locks
        self.locks += tuple(item.context_expr for item in node.items)
        self.visit_all(node.body)
        self.locks = outer

    def visit_import(self, node: ast.Import) -> None:
        self.module.imports.append(node)
        for alias in node.names:
            top = alias.name.partition(".")[0]
            self.bind(alias.asname or top, "import", alias.name if alias.asname else top, node)

    def visit_import_from(self, node: ast.ImportFrom) -> None:
        self.module.imports.append(node)
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            if alias.name == "*":
                self.module.stars.append(module)
            else:
                self.bind(alias.asname or alias.name, "import", f"{module}:{alias.name}", node)

    def visit_global(self, node: ast.Global | ast.Nonlocal) -> None:
        how = "global" if isinstance(node, ast.Global) else "nonlocal"
        self.scope.declared |= dict.fromkeys(node.names, how)

    def visit_if(self, node: ast.If) -> None:
        text = {part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)}
        outer = self.guarded
        self.visit(node.test)
        if "TYPE_CHECKING" in text:
            self.visit_all(node.orelse)
            return
        if self.scope is self.module and "__name__" in text:
            self.guarded = self.module.has_main = True
        self.scope.tested |= find_tested(node.test)
        self.visit_all(node.body)
        self.guarded = outer
        self.visit_all(node.orelse)

    def visit_return(self, node: ast.Return) -> None:
        if node.value:
            self.scope.returns.append(node.value)
            self.visit(node.value)

    def visit_yield(self, node: ast.Yield | ast.YieldFrom) -> None:
        self.scope.generator = True
        self.visit_below(node)

    def visit_try(self, node: ast.Try) -> None:
        self.scope.tries.append(node)
        self.visit_below(node)

    def visit_handler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.bind(node.name, "unknown", None, node)
        self.visit_below(node)

    def visit_pattern(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self.bind(node.name, "unknown", None, node)
        self.visit_below(node)

    def visit_mapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self.bind(node.rest, "unknown", None, node)
        self.visit_below(node)

    def visit_leaf(self, node: ast.AST) -> None:
        pass


def find_tested(test: ast.expr) -> set[str]:
    """Return the names that a condition compares with None or with false: `not x`, `x is None`, `x`."""
    names = set()
    parts = test.values if isinstance(test, ast.BoolOp) else [test]
    for part in parts:
        if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.Not):
            part = part.operand
        elif isinstance(part, ast.Compare) and ast.unparse(part.comparators[0]) == "None":
            part = part.left
        if isinstance(part, ast.Name):
            names.add(part.id)
    return names


METHODS: dict[type[ast.AST], Callable[[Walk, Any], None]] = {
    ast.FunctionDef: Walk.visit_function,
    ast.AsyncFunctionDef: Walk.visit_function,
    ast.Lambda: Walk.visit_lambda,
    ast.ClassDef: Walk.visit_class,
    ast.Call: Walk.visit_call,
    ast.Name: Walk.visit_name,
    ast.Attribute: Walk.visit_attribute,
    ast.Assign: Walk.visit_assign,
    ast.AnnAssign: Walk.visit_annotated,
    ast.AugAssign: Walk.visit_augmented,
    ast.NamedExpr: Walk.visit_named,
    ast.Delete: Walk.visit_delete,
    ast.For: Walk.visit_for,
    ast.AsyncFor: Walk.visit_for,
    ast.comprehension: Walk.visit_comprehension,
    ast.ListComp: Walk.visit_comprehensions,
    ast.SetComp: Walk.visit_comprehensions,
    ast.GeneratorExp: Walk.visit_comprehensions,
    ast.DictComp: Walk.visit_comprehensions,
    ast.With: Walk.visit_with,
    ast.AsyncWith: Walk.visit_with,
    ast.Import: Walk.visit_import,
    ast.ImportFrom: Walk.visit_import_from,
    ast.Global: Walk.visit_global,
    ast.Nonlocal: Walk.visit_global,
    ast.If: Walk.visit_if,
    ast.Return: Walk.visit_return,
    ast.Yield: Walk.visit_yield,
    ast.YieldFrom: Walk.visit_yield,
    ast.Try: Walk.visit_try,
    ast.ExceptHandler: Walk.visit_handler,
    ast.MatchAs: Walk.visit_pattern,
    ast.MatchStar: Walk.visit_pattern,
    ast.MatchMapping: Walk.visit_mapping,
    ast.Constant: Walk.visit_leaf,
    ast.arg: Walk.visit_leaf,
}
