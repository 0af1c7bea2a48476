"""Checks of every generated project that need not run it."""

from __future__ import annotations

import ast
import configparser
import functools
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

from .processes import run

# Files of another template language, which belong to the project.
NOT_RENDERED = (".github/workflows/*.yml", "*.html", "*.mako")
JINJA = re.compile(r"\{\{-?\s*cookiecutter|\{%|^\s*#%", re.MULTILINE)


def files(project: Path) -> Iterator[Path]:
    """Yield the project's files."""
    return (path for path in sorted(project.rglob("*")) if path.is_file())


def tree(project: Path) -> set[str]:
    """Return the paths of the project's files."""
    return {path.relative_to(project).as_posix() for path in files(project)}


def check_syntax(project: Path) -> None:
    """Check the syntax of each file by its name: Python, TOML, YAML, INI or a shell script."""
    for path in files(project):
        text = path.read_text("utf-8")
        if path.suffix == ".py":
            compile(text, path, "exec")
        elif path.suffix == ".toml":
            tomllib.loads(text)
        elif path.suffix in {".yml", ".yaml"}:
            list(yaml.safe_load_all(text))
        elif path.suffix == ".ini":
            configparser.RawConfigParser(strict=False).read_string(text)
        elif text.startswith("#!/bin/sh"):
            run("sh", "-n", path, cwd=project)


def check_no_jinja(project: Path) -> None:
    """Check that no file holds a piece of this template's language."""
    for path in files(project):
        if not any(path.relative_to(project).match(pattern) for pattern in NOT_RENDERED):
            found = JINJA.search(path.read_text("utf-8"))
            assert not found, f"{path} still holds {found}"


def check_imports(project: Path) -> None:
    """Check that every import of the project's own modules names what exists, without running any."""
    (source,) = (project / "src").iterdir()
    for path in [*source.rglob("*.py"), *(project / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (
                node.level or f"{node.module}.".startswith(f"{source.name}.")
            ):
                start = path.parents[node.level - 1] if node.level else source.parent
                module = start.joinpath(*(node.module or "").split("."))
                missing = [alias.name for alias in node.names if not provides(module, alias.name)]
                assert not missing, f"{path}:{node.lineno}: {missing}"


def provides(module: Path, name: str) -> bool:
    """Return whether a module or a package has a name."""
    if (module / name).is_dir() or (module / f"{name}.py").exists():
        return True
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    return file.exists() and name in names_in(file)


@functools.cache
def names_in(file: Path) -> frozenset[str]:
    """Return the names that a module binds."""
    return frozenset(_bound(ast.parse(file.read_text())))


def _bound(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name


def is_executable(path: Path) -> bool:
    """Return whether every user may execute a file."""
    return stat.S_IMODE(path.stat().st_mode) & 0o111 == 0o111
