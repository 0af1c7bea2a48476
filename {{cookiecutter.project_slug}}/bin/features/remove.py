"""The command that removes a feature: code, tests, the name in app.py, tables, and mentions in documents."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alembic.script import Script
from sqlalchemy import Table

import {{cookiecutter.package_name}}
from {{cookiecutter.package_name}}.foundation.database.base import Base, import_models

from . import history, schema
from .project import APP, PACKAGE, SOURCE, TESTS, VERSIONS, Features, all_or_nothing, remove
from .refusal import Refusal

DOCUMENTS = (Path("README.md"), Path("docs"))


class Removal(NamedTuple):
    """The migrations of a feature, why they must stay, and the one that drops its tables."""

    own: list[Script]
    reason: str
    path: Path


def remove_feature(name: str = "") -> None:
    """Remove a feature, or change nothing."""
    features = Features()
    if name not in features.names or not (SOURCE / name).is_dir():
        raise Refusal(f"NAME={name} is no feature: it is one of {', '.join(features.names) or '(none)'}")
    app = features.without_name(name)
    if importers := sorted(_importers(name)):
        raise Refusal(f"{name} is imported by {', '.join(importers)}: remove that first")
    tables = _tables(name)
    _refuse_references(tables)
    if schema.differs():
        raise Refusal('the models differ from the migrations: first make migration NAME="what differs"')
    paths = [path for path in (SOURCE / name, TESTS / name) if path.exists()]
    lost = _uncommitted(paths)
    changed = {APP: app} | dict(_without_mentions(name))
    with all_or_nothing(*paths, *changed, VERSIONS):
        removal = _prepare_removal(name, tables)
        for path, text in changed.items():
            path.write_text(text, "utf-8")
        for path in paths:
            remove(path)
        if schema.differs():
            raise Refusal(f"the models without {name} are not what the migrations lead to", code=1)
        result = _settle(removal)
    print(f"removed {', '.join(map(str, paths))}, and the name in {APP}")
    for line in lost:
        print(f"removed without a copy in git: {line}")
    print(result)


def _prepare_removal(name: str, tables: set[Table]) -> Removal | None:
    """Make the migration that drops the tables, while the models still have them."""
    if not tables:
        return None
    names = {table.name for table in tables}
    own = history.newest_of(names)
    reason = history.reason_to_keep(own)
    path = schema.make_removal(f"remove {name.replace('_', ' ')}", names)
    history.mark_as_meant(path, f"the feature {name} was removed")
    return Removal(own, reason, path)


def _settle(removal: Removal | None) -> str:
    """Delete the feature's migrations where that is possible, and return the result."""
    if removal is None:
        return "no migration: the feature had no table"
    if not removal.reason and history.delete(removal.own, removal.path):
        deleted = ", ".join(os.path.relpath(script.path) for script in removal.own)
        return f"deleted {deleted}: the database of DATABASE_URL does not have it"
    reason = removal.reason or "the migration is not of this feature alone"
    advice = "run it after the last release that uses them"
    return f"wrote {removal.path}, which drops the tables: {reason}\n{advice}"


def _importers(name: str) -> Iterator[str]:
    """Yield the files of the project that import the feature from outside of it."""
    for folder, package in ((SOURCE, PACKAGE), (TESTS, TESTS.name)):
        for path in folder.rglob("*.py"):
            inside = path.relative_to(folder).parts[0] in {name, "foundation"}
            if not inside and any(
                f"{module}.".startswith(f"{PACKAGE}.{name}.") for module in _imports(path, folder, package)
            ):
                yield str(path)


def _imports(path: Path, folder: Path, package: str) -> Iterator[str]:
    """Yield the absolute names of all that a file imports."""
    own = ".".join([package, *path.relative_to(folder).parts[:-1]])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), own)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _tables(name: str) -> set[Table]:
    """Return the tables that the feature's modules define."""
    import_models({{cookiecutter.package_name}})
    own = f"{PACKAGE}.{name}."
    mapped = [mapper for mapper in Base.registry.mappers if mapper.class_.__module__.startswith(own)]
    modules = [module for key, module in sys.modules.items() if key.startswith(own)]
    found = [table for mapper in mapped for table in mapper.tables]
    found += [value for module in modules for value in vars(module).values()]
    return {table for table in found if isinstance(table, Table) and table.metadata is Base.metadata}


def _refuse_references(tables: set[Table]) -> None:
    for table in Base.metadata.tables.values():
        if table not in tables:
            for key in table.foreign_keys:
                if key.column.table in tables:
                    raise Refusal(f"{key.parent} references {key.target_fullname}: remove that first")


def _uncommitted(paths: list[Path]) -> list[str]:
    """Return the files that git has not, or has otherwise; none where the project is in no repository."""
    command = ["git", "status", "--porcelain", "--untracked-files=all", "--", *map(str, paths)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line[3:] for line in done.stdout.splitlines()]


def _without_mentions(name: str) -> Iterator[tuple[Path, str]]:
    """Yield the documents without their parts between <!-- NAME --> and <!-- /NAME -->."""
    marked = re.compile(rf"^<!-- {name} -->\n.*?^<!-- /{name} -->\n\n?", re.MULTILINE | re.DOTALL)
    for place in DOCUMENTS:
        for path in [place, *place.rglob("*.md")] if place.exists() else []:
            if path.is_file() and (text := path.read_text("utf-8")) != (left := marked.sub("", text)):
                yield path, left
