"""An index of all modules read: it resolves expressions to objects across files."""

import ast
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from . import vocabulary
from .scopes import Binding, Call, Module, Scope
from .sources import Source

DEPTH = 40  # steps per resolution; a longer chain of names is circular or not worth following


class Value(NamedTuple):
    """An object: its kind, and the name or the scope that it comes from."""

    kind: str
    name: str = ""
    scope: Scope | None = None


class Named(NamedTuple):
    """A name in the scope that owns it."""

    scope: Scope
    name: str

    @property
    def bindings(self) -> list[Binding]:
        """The values that the name is given."""
        if self.name.startswith("self."):
            return self.scope.attributes[self.name[5:]]
        return self.scope.bindings[self.name]


class Index:
    """The modules and the meanings of their names."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.modules = [Module(source) for source in sources]
        self.by_path = {module.source.path: module for module in self.modules}
        self.values: dict[tuple[int, int], Value | None] = {}
        self.found: dict[tuple[Path, str], Module | None] = {}
        paths = self.by_path
        self.tops = {path.stem for path in paths} | {part for path in paths for part in path.parent.parts}

    # -- modules -----------------------------------------------------------------------------------

    def find_module(self, name: str, importer: Module) -> Module | None:
        """Return the imported module, if it was read."""
        key = importer.source.path.parent, name
        if key not in self.found:
            self.found[key] = self.search_module(name, importer.source.path.parent)
        return self.found[key]

    def search_module(self, name: str, folder: Path) -> Module | None:
        """Search the folder of the importer, the folders above it, and src/ in these."""
        dotted = name.lstrip(".")
        level = len(name) - len(dotted)
        for _ in range(level - 1):
            folder = folder.parent
        parts = dotted.split(".") if dotted else []
        if not level and parts[0] not in self.tops:
            return None
        bases = (
            [folder]
            if level
            else [root for base in (folder, *folder.parents) for root in (base, base / "src")]
        )
        for base in bases:
            path = base.joinpath(*parts)
            for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
                if candidate in self.by_path:
                    return self.by_path[candidate]
        return None

    def imported(self, module: Module) -> Iterator[Module]:
        """Yield the modules that a module imports, with the packages above them."""
        for node in module.imports:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                base = "." * node.level + (node.module or "")
                dot = "" if base.endswith(".") else "."
                names = [base, *(f"{base}{dot}{alias.name}" for alias in node.names)]
            for name in names:
                parts = name.split(".")
                for length in range(1, len(parts) + 1):
                    found = self.find_module(".".join(parts[:length]), module) if parts[length - 1] else None
                    if found:
                        yield found

    # -- names -------------------------------------------------------------------------------------

    def owner(self, name: str, scope: Scope) -> Named | None:
        """Return a name in the scope that binds it, as seen from a scope."""
        declared = scope.declared.get(name)
        current: Scope | None = scope.module if declared == "global" else scope
        while current:
            if name in current.bindings and (not current.is_class or current is scope):
                # A name that `global` gives to the module is bound there.
                return Named(current, name)
            current = current.parent
        return None

    def follow(self, named: Named, depth: int = DEPTH) -> Named:
        """Return the name in the module that defines it, where this one imports it."""
        for binding in named.bindings:
            if binding.how == "import" and isinstance(binding.value, str) and depth:
                module, _, name = binding.value.partition(":")
                found = self.find_module(module, named.scope.module)
                if found and name and name in found.bindings:
                    return self.follow(Named(found, name), depth - 1)
        return named

    def name_of(self, node: ast.expr, scope: Scope) -> Named | None:
        """Return the name that an expression `x`, `module.x` or `self.x` means."""
        if isinstance(node, ast.Name):
            named = self.owner(node.id, scope) or self.starred(node.id, scope.module)
            return self.follow(named) if named else None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            holder = self.class_of_self(node.value.id, scope) if isinstance(node.value, ast.Name) else None
            if holder and node.attr in holder.attributes:
                return Named(holder, f"self.{node.attr}")
            if holder:
                return Named(holder, node.attr) if node.attr in holder.bindings else None
            if isinstance(node.value, ast.Name) and (
                owner := self.owner(f"{node.value.id}.{node.attr}", scope)
            ):
                return owner
            value = self.infer(node.value, scope)
            if value and value.scope:
                if value.kind == "module" and node.attr in value.scope.bindings:
                    return self.follow(Named(value.scope, node.attr))
                if value.kind == "object" and node.attr in value.scope.attributes:
                    return Named(value.scope, f"self.{node.attr}")
                if value.kind in {"object", "class"} and node.attr in value.scope.bindings:
                    return Named(value.scope, node.attr)
        return None

    def class_of_self(self, name: str, scope: Scope) -> Scope | None:
        """Return the class whose method has this name for its object."""
        method: Scope | None = scope
        while method and not (method.parent and method.parent.is_class):
            method = method.parent
        if method and isinstance(method.node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = method.node.args.posonlyargs + method.node.args.args
            if arguments and arguments[0].arg == name:
                return method.parent
        return None

    def starred(self, name: str, module: Module) -> Named | None:
        """Return a name that `from module import *` brings."""
        for star in module.stars:
            found = self.find_module(star, module)
            if found and found is not module and name in found.bindings:
                return Named(found, name)
        return None

    # -- values ------------------------------------------------------------------------------------

    def infer(self, node: ast.AST, scope: Scope, depth: int = DEPTH) -> Value | None:
        """Return the object that an expression means, or None."""
        key = id(node), id(scope)
        if key not in self.values:
            if not depth:
                return None
            self.values[key] = None  # A circular definition means no object.
            self.values[key] = self.infer_anew(node, scope, depth - 1)
        return self.values[key]

    def infer_anew(self, node: ast.AST, scope: Scope, depth: int) -> Value | None:
        match node:
            case ast.Name():
                return self.infer_name(node, scope, depth)
            case ast.Attribute():
                return self.infer_attribute(node, scope, depth)
            case ast.Call():
                return self.infer_call(node, scope, depth)
            case ast.Subscript():
                value = self.infer(node.value, scope, depth)
                return Value("instance") if value and value.kind == "instances" else self.part_of(value)
            case ast.Await() | ast.NamedExpr() | ast.Starred():
                return self.infer(node.value, scope, depth)
            case ast.IfExp():
                return self.infer(node.body, scope, depth) or self.infer(node.orelse, scope, depth)
            case ast.BoolOp():
                values = (self.infer(part, scope, depth) for part in node.values)
                return next((value for value in values if value), None)
            case ast.DictComp() | ast.ListComp() | ast.SetComp():
                return self.infer_comprehension(node, scope, depth)
            case ast.Dict() | ast.List() | ast.Set():
                return Value("container")
            case ast.Constant():
                return Value("constant")
        return None

    def infer_comprehension(
        self, node: ast.DictComp | ast.ListComp | ast.SetComp, scope: Scope, depth: int
    ) -> Value:
        """Return whether a comprehension collects the rows of a query, or makes any other container."""
        item = node.value if isinstance(node, ast.DictComp) else node.elt
        first = node.generators[0]
        if isinstance(item, ast.Name) and isinstance(first.target, ast.Name) and item.id == first.target.id:
            rows = self.infer(first.iter, scope, depth)
            if rows and rows.kind in {"instances", "query"}:
                return Value("instances")
        return Value("container")

    @staticmethod
    def part_of(value: Value | None) -> Value | None:
        """Return the kind of `value[...]`: a part of a DataFrame is a DataFrame, too."""
        return value if value and value.kind in {"dataframe", "classes"} else None

    def infer_name(self, node: ast.Name, scope: Scope, depth: int) -> Value | None:
        named = self.owner(node.id, scope) or self.starred(node.id, scope.module)
        if named:
            return self.infer_named(named, depth)
        for star in scope.module.stars:
            if vocabulary.find_kind(f"{star}.{node.id}"):
                return Value("external", f"{star}.{node.id}")
        return Value("external", node.id) if node.id in {"dict", "list", "set", "bytearray"} else None

    def infer_named(self, named: Named, depth: int = DEPTH) -> Value | None:
        """Return the object of a name; a name with several values has the first one that is known."""
        constant = None
        # The last value of a local variable is what the function returns; a global may get None again.
        bindings = reversed(named.bindings) if named.scope.is_function else named.bindings
        for binding in bindings:
            value = self.infer_binding(binding, named.scope, depth)
            if value and value.kind != "constant":
                return value
            constant = constant or value
        return constant

    def infer_binding(self, binding: Binding, owner: Scope, depth: int = DEPTH) -> Value | None:
        """Return the object that a binding gives to its name."""
        match binding.how, binding.value:
            case "import", str(text):
                return self.infer_import(text, owner.module, depth)
            case "def", ast.AST():
                scope = owner.module.scopes.get(binding.node)
                return Value("class" if scope and scope.is_class else "function", "", scope)
            case (("value" | "with"), ast.AST()):
                return self.infer(binding.value, binding.origin, depth)
            case "unknown", ast.AST() if isinstance(binding.node, ast.arg):
                return self.infer_annotation(binding, depth)
        return None

    def infer_annotation(self, binding: Binding, depth: int) -> Value | None:
        """Return the object that a parameter's annotation promises; the caller owns it."""
        assert isinstance(binding.value, ast.AST)
        value = self.infer(binding.value, binding.origin.parent or binding.origin, depth)
        if value and value.kind == "class":
            return Value("object", "", value.scope)
        kind = vocabulary.find_kind(value.name) if value and value.kind == "external" else None
        return Value(kind) if kind else None

    def infer_import(self, text: str, module: Module, depth: int) -> Value | None:
        name, _, attribute = text.partition(":")
        found = self.find_module(name, module)
        if found and found is not module and attribute in found.bindings:
            return self.infer_named(Named(found, attribute), depth - 1) if depth > 0 else None
        dot = "" if name.endswith(".") else "."
        if found and attribute:
            found = self.find_module(f"{name}{dot}{attribute}", module) or found
            return Value("module", "", found)
        if found or (attribute and (found := self.find_module(f"{name}{dot}{attribute}", module))):
            return Value("module", "", found)
        return Value("external", f"{name}.{attribute}" if attribute else name)

    def infer_attribute(self, node: ast.Attribute, scope: Scope, depth: int) -> Value | None:
        if named := self.name_of(node, scope):
            return self.infer_named(named, depth)
        value = self.infer(node.value, scope, depth)
        if not value:
            return None
        if value.kind == "external":
            return Value("external", f"{value.name}.{node.attr}")
        if value.kind == "module" and value.scope:
            return self.infer_import(f".:{node.attr}", value.scope.module, depth)
        if value.kind == "classes":
            return Value("class")
        if value.scope and value.kind not in {"function", "method"}:
            return self.infer_member(value, node.attr, depth)
        kind = vocabulary.ATTRIBUTES.get(f"{value.kind}.{node.attr}")
        return Value(kind) if kind else Value("method", f"{value.kind}.{node.attr}", value.scope)

    def infer_member(self, value: Value, name: str, depth: int) -> Value | None:
        """Return an attribute of a class or its object, which may come from a base class."""
        assert value.scope
        if name in value.scope.bindings:
            return self.infer_named(Named(value.scope, name), depth)
        if name in value.scope.attributes:
            return self.infer_named(Named(value.scope, f"self.{name}"), depth)
        for base in self.bases(value.scope, depth):
            if base.scope:
                found = self.infer_member(base._replace(kind=value.kind), name, depth - 1) if depth else None
            else:
                found = self.infer_inherited(base, name, value.kind)
            if found:
                return found
        return None

    @staticmethod
    def infer_inherited(base: Value, name: str, kind: str) -> Value | None:
        """Return an attribute that a class of a library gives to a class or an object of this kind."""
        made = vocabulary.find_kind(base.name) if base.kind == "external" else base.kind
        if made == "base" or base.name.rpartition(".")[2] in vocabulary.BASES:
            made = "class"
        if attribute := vocabulary.ATTRIBUTES.get(f"{made}.{name}"):
            return Value(attribute)
        return Value("method", f"{made}.{name}") if made and kind != "class" else None

    def bases(self, scope: Scope, depth: int = DEPTH) -> list[Value]:
        """Return the base classes of a class."""
        if not isinstance(scope.node, ast.ClassDef) or not depth:
            return []
        values = (self.infer(base, scope.parent or scope, depth) for base in scope.node.bases)
        return [value for value in values if value]

    def is_model(self, value: Value | None, depth: int = DEPTH) -> bool:
        """Return whether a value is a class of the ORM."""
        if not value or value.kind not in {"class", "base"}:
            return False
        if value.kind == "base" or not value.scope:
            return True
        if "__tablename__" in value.scope.bindings or "__table__" in value.scope.bindings:
            return True
        return any(
            self.is_model(base, depth - 1) or base.name.rpartition(".")[2] in vocabulary.BASES
            for base in self.bases(value.scope, depth)
        )

    def infer_call(self, node: ast.Call, scope: Scope, depth: int) -> Value | None:
        callee = self.infer(node.func, scope, depth)
        if not callee:
            return None
        match callee.kind:
            case "external":
                kind = vocabulary.find_kind(callee.name)
                return Value(kind) if kind else None
            case "class":
                return (
                    Value(self.kind_of_class(callee.scope, depth), "", callee.scope) if callee.scope else None
                )
            case "function":
                return self.infer_returned(callee.scope, depth)
            case "method":
                return self.infer_method(callee, node, scope, depth)
            case "sessionmaker" | "scoped_session":
                return Value("session")
        return None

    def kind_of_class(self, scope: Scope, depth: int) -> str:
        """Return the kind of a class's objects: that of a library's class which it extends, if it matters."""
        for base in self.bases(scope, depth):
            kind = self.kind_of_class(base.scope, depth - 1) if base.scope and depth else None
            kind = kind or vocabulary.find_kind(base.name)
            if kind in {"app", "blueprint", "database", "session"}:
                return kind
        return "object"

    def infer_method(self, callee: Value, node: ast.Call, scope: Scope, depth: int) -> Value | None:
        """Return what a known method returns; a query of columns has rows, and not instances."""
        kind, _, method = callee.name.partition(".")
        if method in {"query", "scalars", "execute", "scalar"} and kind.endswith("session"):
            argument = selected(node.args[0]) if node.args else None
            if not argument or not self.is_model(self.infer(argument, scope, depth)):
                return Value("rows")
            if method == "scalar":
                return Value("instance")
            return Value("query" if method in {"query", "scalars"} else "result")
        if kind == "query" and method in {"add_columns", "values", "with_entities"}:
            return Value("rows")
        if kind == "query" and callee.name not in vocabulary.RETURNS:
            return Value("query") if method not in {"count", "exists", "scalar", "delete", "update"} else None
        returned = vocabulary.RETURNS.get(callee.name)
        return Value(returned) if returned else None

    def infer_returned(self, scope: Scope | None, depth: int = DEPTH) -> Value | None:
        """Return what a function returns, unless it is a generator, by its code or its annotation."""
        if not scope or scope.generator or isinstance(scope.node, ast.AsyncFunctionDef):
            return None
        values = (self.infer(node, scope, depth) for node in scope.returns)
        known = next((value for value in values if value and value.kind != "constant"), None)
        if known or not isinstance(scope.node, ast.FunctionDef) or not scope.node.returns or not depth:
            return known
        annotation = self.infer(scope.node.returns, scope.parent or scope, depth)
        kind = vocabulary.find_kind(annotation.name) if annotation and annotation.kind == "external" else None
        return Value(kind) if kind else None

    # -- everything --------------------------------------------------------------------------------

    @cached_property
    def scopes(self) -> list[Scope]:
        """All scopes of all modules."""
        return [scope for module in self.modules for scope in module.walk()]

    def callee(self, call: Call, scope: Scope) -> Value | None:
        """Return the target of a call: an external name, a method of a kind, a function or a class."""
        return self.infer(call.node.func, scope)


def selected(node: ast.expr) -> ast.expr | None:
    """Return the first argument of the `select` in `select(User).where(...)`, or the expression itself."""
    while isinstance(node, ast.Call):
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name == "select" or not isinstance(function, ast.Attribute):
            return node.args[0] if node.args else None
        node = function.value
    return node
