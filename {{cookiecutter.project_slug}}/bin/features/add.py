"""The command that adds a feature: its folder, its tests, its name in app.py and its migration."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from string import Template

import {{cookiecutter.package_name}}
from {{cookiecutter.package_name}}.foundation.database.base import Base, import_models

from . import schema
from .naming import Names, names_of
from .project import APP, SOURCE, TESTS, VERSIONS, Features, all_or_nothing, run
from .refusal import Refusal

FILES = Path(__file__).with_name("files")


def add_feature(plural: str = "", singular: str = "") -> None:
    """Add a feature, or change nothing."""
    names = names_of(plural, singular)
    files = dict(_files(names))
    _refuse_taken(names)
    _refuse_clash(names)
    app = Features().with_name(names.plural)
    if schema.differs():
        raise Refusal('the models differ from the migrations: first make migration NAME="what differs"')
    with all_or_nothing(SOURCE / names.plural, TESTS / names.plural, APP, VERSIONS):
        for path, text in files.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
        APP.write_text(app, "utf-8")
        _format(*files)
        migration = schema.make_migration(f"create {names.plural.replace('_', ' ')}")
        _format(migration)
    print(f"wrote {SOURCE / names.plural}, {TESTS / names.plural}, {migration}, and a line of {APP}")
    print("next: make migrate, then make check")


def _files(names: Names) -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of each file of a feature."""
    for folder, target in (("feature", SOURCE), ("tests", TESTS)):
        for path in sorted((FILES / folder).iterdir()):
            text = Template(path.read_text("utf-8")).substitute(names.substitutes())
            yield target / names.plural / path.name.removesuffix(".txt"), text


def _format(*paths: Path) -> None:
    """Sort the imports and format, and end the command if that leaves a finding."""
    run("ruff", "check", "--quiet", "--fix", "--exit-zero", *paths)
    run("ruff", "format", "--quiet", *paths)
    run("ruff", "check", "--quiet", *paths)


def _refuse_taken(names: Names) -> None:
    name = names.plural
    places = [folder / each for folder in (SOURCE, TESTS) for each in (name, f"{name}.py")]
    for place in places:
        if place.exists():
            raise Refusal(f"{place} exists: choose another NAME")
    import_models({{cookiecutter.package_name}})
    if name in Base.metadata.tables:
        raise Refusal(f"a table {name} exists: choose another NAME")
    for path in SOURCE.rglob("*.py"):
        if name in _blueprints(ast.parse(path.read_text("utf-8"))):
            raise Refusal(f"{path} has a blueprint {name}: choose another NAME")


def _blueprints(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Blueprint") and node.args:
            yield str(getattr(node.args[0], "value", ""))


def _refuse_clash(names: Names) -> None:
    """Refuse a name that the files of a feature use for something else."""
    example = Names("examples", "example")
    for path, text in _files(example):
        used = set(_identifiers(text))
        for key, name in names.substitutes().items():
            if {name, example.substitutes()[key]} <= used:
                advice = f"choose another NAME, or add SINGULAR=my_{names.singular}"
                raise Refusal(f"{path.name} would have two things named {name}: {advice}")


def _identifiers(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        for field in ("id", "arg", "name", "asname"):
            yield str(getattr(node, field, ""))
