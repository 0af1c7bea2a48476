"""What can be said of every generated project without running it."""

from __future__ import annotations

import configparser
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

from .conftest import run

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
    """Check that each file is what its name says: Python, TOML, YAML, INI or a shell script."""
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


def is_executable(path: Path) -> bool:
    """Tell whether everybody may run a file."""
    return stat.S_IMODE(path.stat().st_mode) & 0o111 == 0o111
