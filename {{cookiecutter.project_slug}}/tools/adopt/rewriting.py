"""Rewriting of functions, views, loads and tables: sessions, handles, transactions and annotations."""

import ast
import copy
import re
from collections.abc import Iterator

from ..doctor.scopes import CHANGES
from .classification import Item, Plan

READS_SQL = {"read_sql", "read_sql_query", "read_sql_table"}
WRITES = CHANGES | {
    "add_all",
    "merge",
    "delete",
    "execute",
    "flush",
    "bulk_save_objects",
    "bulk_insert_mappings",
}
COLUMNS = {
    "BigInteger": "int",
    "Boolean": "bool",
    "Float": "float",
    "Integer": "int",
    "SmallInteger": "int",
    "String": "str",
    "Text": "str",
    "Unicode": "str",
}
ORM = {"Mapped", "backref", "column_property", "deferred", "mapped_column", "relationship", "validates"}
NULL = ast.Constant(None)


class CannotMoveError(Exception):
    """Code that cannot be moved mechanically; the message is the question for its owner."""


class Rewriter(ast.NodeTransformer):
    """A rewriter of one item for its destination module: views, service or models."""

    def __init__(self, plan: Plan, item: Item, module: str, with_session: set[str]) -> None:
        self.plan = plan
        self.item = item
        self.module = module
        self.with_session = with_session
        self.local_sessions: set[str] = set()
        self.methods: list[bool] = [False]

    def rewrite(self) -> ast.stmt:
        """Return a rewritten copy of the item's statement."""
        node = copy.deepcopy(self.item.node)
        if isinstance(node, ast.FunctionDef):
            self.local_sessions = set(self._local_sessions(node))
            node.body = self._without_local_sessions(node.body)
            if self.item.kind == "view" or self.item.unit.override == "service":
                node.decorator_list = []
            streams = any(isinstance(part, ast.Yield | ast.YieldFrom) for part in ast.walk(node))
            if streams and self.uses(node):
                raise CannotMoveError(f"which session does the stream `{node.name}` open for itself?")
            node.body = self._with_transactions(node.body)
            for part in ast.walk(node):
                ends = {"commit", "rollback", "close", "remove", "begin"}
                if isinstance(part, ast.Attribute) and part.attr in ends and self._is_session(part.value):
                    raise CannotMoveError(f"where does the transaction of `{node.name}` begin and end?")
        self._expected = node
        found = self.visit(node)
        assert isinstance(found, ast.stmt)
        return ast.fix_missing_locations(found)

    # -- sessions ----------------------------------------------------------------------------------

    def _kind(self, node: ast.AST) -> str:
        name = node.id if isinstance(node, ast.Name) else ""
        return self.plan.kinds.get(name, "") if name in self.item.needs else ""

    def _is_session(self, node: ast.AST) -> bool:
        """Return whether an expression is the session: a global one, one of the function, or `db.session`."""
        if isinstance(node, ast.Attribute) and node.attr == "session":
            return self._kind(node.value) == "database"
        local = isinstance(node, ast.Name) and node.id in self.local_sessions
        return local or self._kind(node) in {"session", "scoped_session", "managed_session"}

    def _makes_session(self, node: ast.AST) -> bool:
        if not isinstance(node, ast.Call):
            return False
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        is_class = self.plan.origin(name).endswith(":Session") and self.plan.origin(name).startswith(
            "sqlalchemy"
        )
        return self._kind(node.func) in {"sessionmaker", "scoped_session"} or (
            is_class and name in self.item.needs
        )

    def _local_sessions(self, node: ast.FunctionDef) -> Iterator[str]:
        for part in ast.walk(node):
            match part:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if self._makes_session(value):
                    yield name
                case ast.With(items=[ast.withitem(context_expr=value, optional_vars=ast.Name(id=name))]):
                    if self._makes_session(value):
                        yield name

    def _without_local_sessions(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Return statements without the start and the end of a local session."""
        left: list[ast.stmt] = []
        for node in body:
            match node:
                case ast.Assign(value=value) if self._makes_session(value):
                    continue
                case ast.With(items=[item]) if self._makes_session(item.context_expr):
                    left += self._without_local_sessions(node.body)
                    continue
                case ast.Expr(value=ast.Call(func=ast.Attribute(attr=("close" | "remove"), value=value))):
                    if self._is_session(value):
                        continue
                case ast.Try(handlers=[], finalbody=[_]):
                    if not self._without_local_sessions(node.finalbody):
                        left += self._without_local_sessions([*node.body, *node.orelse])
                        continue
            for name in ("body", "orelse", "finalbody"):
                if isinstance(block := getattr(node, name, None), list) and not isinstance(
                    node, ast.FunctionDef
                ):
                    setattr(node, name, self._without_local_sessions(block))
            left.append(node)
        return left

    def uses(self, node: ast.AST) -> bool:
        """Return whether code uses a session: itself, by a query, or by a function that needs one."""
        return any(
            self._is_session(part) or self._is_query(part) or self._asks(part) for part in ast.walk(node)
        )

    def _asks(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id in self.with_session

    def _is_query(self, node: ast.AST) -> bool:
        """Return whether an expression is `Model.query`."""
        if not (
            isinstance(node, ast.Attribute) and node.attr == "query" and isinstance(node.value, ast.Name)
        ):
            return False
        found = self.plan.by_name.get(node.value.id)
        return bool(found and found.kind == "model")

    # -- transactions ------------------------------------------------------------------------------

    def _is_call(self, node: ast.stmt, method: str) -> bool:
        match node:
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr=attribute, value=value), args=[])):
                return attribute == method and self._is_session(value)
        return False

    def _writes(self, node: ast.AST) -> bool:
        for part in ast.walk(node):
            if (
                isinstance(part, ast.Call)
                and isinstance(part.func, ast.Attribute)
                and part.func.attr in WRITES
            ):
                return True
            if isinstance(part, ast.Attribute | ast.Subscript) and not isinstance(part.ctx, ast.Load):
                return True
        return False

    def _adds(self, node: ast.AST) -> bool:
        calls = (
            part
            for part in ast.walk(node)
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute)
        )
        functions = [part.func for part in calls if isinstance(part.func, ast.Attribute)]
        return any(self._is_session(each.value) and each.attr in WRITES - {"execute"} for each in functions)

    def _with_transactions(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Return statements with the commit replaced by the end of a `with transaction()`."""
        question = f"where does the transaction of `{self.item.name}` begin and end?"
        commits = [
            part
            for node in body
            for part in ast.walk(node)
            if isinstance(part, ast.stmt) and self._is_call(part, "commit")
        ]
        if not commits:
            if any(self._adds(node) for node in body) and self.item.kind == "view":
                raise CannotMoveError(f"`{self.item.name}` writes and never commits: is its work stored?")
            return body
        if self.item.kind != "view":
            raise CannotMoveError(f"`{self.item.name}` commits: which view ends the transaction?")
        return self._wrap(body, question)

    def _wrap(self, body: list[ast.stmt], question: str) -> list[ast.stmt]:
        own = [number for number, node in enumerate(body) if self._is_call(node, "commit")]
        nested = [node for node in body if not self._is_call(node, "commit") and self._commits(node)]
        if (own and nested) or len(own) > 1:
            raise CannotMoveError(question)
        if not own:
            return [self._descend(node, body, question) if node in nested else node for node in body]
        end = own[0]
        start = next((number for number in range(end) if self.uses(body[number])), end)
        block = body[start:end]
        if not block or any(self._writes(node) for node in body[end + 1 :] if self.uses(node)):
            raise CannotMoveError(question)
        written = False
        for node in block:
            returns = any(isinstance(part, ast.Return) for part in ast.walk(node))
            written = written or self._writes(node)
            if returns and written:  # A return before the commit would store work that was not stored.
                raise CannotMoveError(question)
        call = ast.Call(ast.Name("transaction", ast.Load()), [], [])
        return [*body[:start], ast.With([ast.withitem(call)], block), *body[end + 1 :]]

    def _commits(self, node: ast.stmt) -> bool:
        return any(isinstance(part, ast.stmt) and self._is_call(part, "commit") for part in ast.walk(node))

    def _descend(self, node: ast.stmt, body: list[ast.stmt], question: str) -> ast.stmt:
        before = body[: body.index(node)]
        if any(self._writes(each) and self.uses(each) for each in before):
            raise CannotMoveError(question)
        if isinstance(node, ast.If):
            node.body, node.orelse = self._wrap(node.body, question), self._wrap(node.orelse, question)
        elif isinstance(node, ast.Try) and not node.orelse and not node.finalbody:
            # transaction() rolls back after an exception, so the handlers need not.
            node.body = self._wrap(node.body, question)
            for handler in node.handlers:
                left = [each for each in handler.body if not self._is_call(each, "rollback")]
                if not left or any(self.uses(each) for each in left):
                    raise CannotMoveError(question)
                handler.body = left
        else:
            raise CannotMoveError(question)
        return node

    def _session(self, *, real: bool = False) -> ast.expr:
        if self.module == "service":
            return ast.Name("session", ast.Load())
        scoped = ast.Attribute(ast.Name("db", ast.Load()), "session", ast.Load())
        return ast.Call(scoped, [], []) if real else scoped

    # -- names -------------------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Rewrite `db.session`, `Model.query` and `app.logger`."""
        if self._is_session(node):
            return self._session()
        if self._is_query(node):
            return ast.Call(ast.Attribute(self._session(), "query", ast.Load()), [node.value], [])
        kind = self._kind(node.value)
        if kind == "app" and node.attr == "logger":
            return ast.Attribute(ast.Name("current_app", ast.Load()), "logger", ast.Load())
        if kind == "database" and self.module == "models":
            return ast.Name(node.attr, ast.Load())
        if kind == "database" and self.module == "views":
            return ast.Attribute(ast.Name("db", ast.Load()), node.attr, node.ctx)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Rewrite calls that receive a session, and queries by primary key."""
        match node.func:
            case ast.Attribute(value=query, attr=("get" | "get_or_404") as method) if self._is_query(query):
                if method == "get_or_404" and self.module == "service":
                    raise CannotMoveError(f"`{self.item.name}` answers 404: shall a view do it?")
                owner = self._session() if method == "get" else ast.Name("db", ast.Load())
                arguments = [query.value, *map(self.visit, node.args)]  # type: ignore[attr-defined]
                return ast.Call(ast.Attribute(owner, method, ast.Load()), arguments, node.keywords)
            case ast.Attribute(attr=method) if method in READS_SQL:
                for number, argument in enumerate(node.args):
                    if self._kind(argument) == "engine":
                        call = ast.Attribute(self._session(), "connection", ast.Load())
                        node.args[number] = ast.Call(call, [], [])
                for keyword in node.keywords:
                    if self._kind(keyword.value) == "engine":
                        call = ast.Attribute(self._session(), "connection", ast.Load())
                        keyword.value = ast.Call(call, [], [])
            case ast.Name(id=name) if name in self.with_session and name in self.item.needs:
                node.args = [self._session(real=True), *map(self.visit, node.args)]
                node.keywords = [self.visit(each) for each in node.keywords]
                node.func = self._place(name)
                return node
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Rewrite a name of the notebook as a name of the feature."""
        if self._is_session(node):
            return self._session()
        found = self.plan.by_name.get(node.id)
        if self.module == "models" and node.id == "Base":
            return node
        if node.id not in self.item.needs or not found or not isinstance(node.ctx, ast.Load):
            return node
        if found.kind == "load":
            return ast.Call(self._place(node.id), [], [])
        if node.id in self.with_session:
            raise CannotMoveError(
                f"`{self.item.name}` hands on `{node.id}`, which needs a session: how is it called?"
            )
        if found.kind in {"constant", "function", "class"}:
            return self._place(node.id)
        if found.kind in {"session", "dropped"}:
            raise CannotMoveError(f"what replaces `{node.id}` in `{self.item.name}`? {found.why}")
        return node

    def _place(self, name: str) -> ast.expr:
        found = self.plan.by_name[name]
        is_here = self.module == "service" or found.in_views
        return (
            ast.Name(name, ast.Load())
            if is_here
            else ast.Attribute(ast.Name("service", ast.Load()), name, ast.Load())
        )

    # -- functions ---------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Annotate a function with Any if the notebook has no annotation."""
        is_method = self.methods[-1]
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        is_static = any(ast.unparse(each) == "staticmethod" for each in node.decorator_list)
        for number, argument in enumerate([*arguments, *filter(None, (node.args.vararg, node.args.kwarg))]):
            is_self = is_method and not is_static and number == 0
            hint = argument.annotation
            if (hint is None and not is_self) or (hint and self._is_lacking(hint)):
                argument.annotation = ast.Name("Any", ast.Load())
        if node.returns is None or self._is_lacking(node.returns):
            node.returns = NULL if node.name == "__init__" else ast.Name("Any", ast.Load())
        self.methods.append(False)
        found = self.generic_visit(node)
        self.methods.pop()
        if node is self._expected and node.name in self.with_session:
            argument = ast.arg("session", ast.Name("Session", ast.Load()))
            names = {each.arg for each in arguments}
            if names & {"session"}:
                raise CannotMoveError(f"which session does `{node.name}` mean?")
            node.args.args.insert(0, argument)
        return found

    def _is_lacking(self, node: ast.expr) -> bool:
        names = (part.id for part in ast.walk(node) if isinstance(part, ast.Name))
        return any(
            self.plan.project.lacks(self.plan.origin(name).partition(":")[0] or "sys") for name in names
        )

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Rewrite a class; one that maps a table gets the foundation's base, and typed columns."""
        self.methods.append(True)
        if self.item.kind == "model":
            self._map(node)
        found = self.generic_visit(node)
        self.methods.pop()
        return found

    def _map(self, node: ast.ClassDef) -> None:
        if len(node.bases) != 1 or node.keywords:
            raise CannotMoveError(f"which bases and mixins does the table `{node.name}` need?")
        node.bases = [ast.Name("Base", ast.Load())]
        bound = {
            target.id
            for each in node.body
            if isinstance(each, ast.Assign)
            for target in each.targets
            if isinstance(target, ast.Name)
        }
        if "__bind_key__" in bound:
            raise CannotMoveError(f"which database has the table of `{node.name}`?")
        if "__tablename__" not in bound:
            words = re.sub(r"((?<=[a-z0-9])[A-Z]|(?!^)[A-Z](?=[a-z]))", r"_\1", node.name).lower()
            name = ast.Assign([ast.Name("__tablename__", ast.Store())], ast.Constant(words), lineno=0)
            has_docstring = ast.get_docstring(node) is not None
            node.body.insert(int(has_docstring), name)
        if self.table(node) in self.plan.project.tables():
            raise CannotMoveError(f"the project has a table `{self.table(node)}`: is it the same?")
        node.body = [self._column(each) for each in node.body]

    @staticmethod
    def table(node: ast.ClassDef) -> str:
        """Return the name of the table."""
        for each in node.body:
            if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "__tablename__":
                return ast.unparse(each.value).strip("'\"")
        return ""

    @staticmethod
    def _column(node: ast.stmt) -> ast.stmt:
        """Return `name: Mapped[...] = mapped_column(...)` for `name = Column(...)`."""
        match node:
            case ast.Assign(targets=[ast.Name() as target], value=ast.Call(func=function) as call):
                if ast.unparse(function).rpartition(".")[2] != "Column":
                    return node
                first = next(
                    (ast.unparse(each) for each in call.args if not isinstance(each, ast.Constant)), ""
                )
                name = COLUMNS.get(first.partition("(")[0].rpartition(".")[2], "Any")
                given = {each.arg: ast.unparse(each.value) for each in call.keywords}
                is_never_null = given.get("primary_key") == "True" or given.get("nullable") == "False"
                if not is_never_null and "nullable" not in given:
                    call.keywords.append(ast.keyword("nullable", ast.Constant(True)))
                hint = name if is_never_null or name == "Any" else f"{name} | None"
                annotation = ast.parse(f"Mapped[{hint}]", mode="eval").body
                call.func = ast.Name("mapped_column", ast.Load())
                return ast.AnnAssign(target, annotation, call, simple=1)
        return node
