"""The list of all settings and their effective values. Exit code: 0, or 78 if one is missing or invalid."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from sqlalchemy import make_url

from ..configuration import ConfigurationError, ServiceSettings, read_environment, refusals
from .project import settings_class

HIDDEN = "**********"
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")


def describe(kind: type[ServiceSettings]) -> tuple[list[str], int]:
    """Return the lines of the list, and the number of problems."""
    settings: ServiceSettings | None = None
    problems: Sequence[str] = ()
    try:
        settings = read_environment(kind)
        problems = [*map(str, refusals(settings))]
    except ConfigurationError as error:
        problems = error.problems
    by_name = {problem.partition(" ")[0]: problem for problem in problems}
    lines = []
    for name, field in kind.model_fields.items():
        lines.append(by_name.pop(name.upper(), "") or f"{name.upper()}={_value(settings, name, field)}")
        default = _hide(name, field, _shown(_default(field)))
        kind_of_value = _type(field.annotation) + ("; required" if field.is_required() else "")
        lines.append(f"    {kind_of_value}{default and '; default '}{default}")
        if field.description:
            lines.append(f"    {field.description}")
    return [*lines, *by_name.values()], len(problems)


def _default(field: FieldInfo) -> object:
    return None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})


def _value(settings: ServiceSettings | None, name: str, field: FieldInfo) -> str:
    given = os.environ.get(name.upper()) or _shown(_default(field))
    return _hide(name, field, given if settings is None else _shown(getattr(settings, name)))


def _hide(name: str, field: FieldInfo, value: str) -> str:
    """Return the value, with stars for a secret; in a database URL only the password is secret."""
    if name == "database_url" and value:
        return make_url(value).set(query={}).render_as_string(hide_password=True)
    types = set(_types(field.annotation))
    is_named = SECRET.search(name.upper()) and types != {bool}
    is_secret = not field.repr or is_named or SecretStr in types
    return HIDDEN if value and is_secret else value


def _shown(value: object) -> str:
    """Return a value as it is written in the environment."""
    if isinstance(value, tuple | list | set | frozenset):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _types(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union, without their validators."""
    if get_origin(annotation) is Annotated:
        yield from _types(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _types(each)
    else:
        yield annotation


def _type(annotation: Any) -> str:
    names: list[str] = []
    for each in _types(annotation):
        if get_origin(each) is Literal:
            names += map(str, get_args(each))
        elif each is not type(None):
            names.append(each.__name__ if isinstance(each, type) else str(each))
    return " | ".join(names)


def main() -> int:
    """Print the value, type and description of each setting, then the problems of other variables."""
    lines, problems = describe(settings_class())
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return os.EX_CONFIG if problems else 0


if __name__ == "__main__":
    sys.exit(main())
