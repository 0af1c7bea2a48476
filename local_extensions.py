"""Refuse answers that cannot work, before anything is written; quote the others.

cookiecutter loads this module for every bake, whether hooks are accepted or not. A
`FailedHookException` raised while the answers are collected ends it with one line and leaves
nothing on disk; the same check in a hook would print a traceback and come too late for `../`.
`cruft update` keeps an old copy of this module in memory, so the filters' names never change.
"""

from __future__ import annotations

import json
import keyword
import re
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment
from jinja2.ext import Extension

HERE = Path(__file__).resolve().parent
PROJECT = HERE / "{{cookiecutter.project_slug}}"
TEXT = "one line of text, at most {} characters, without {{{{, {{%, {{#, and without a #% at its start"
SLUG = "lower-case letters and digits with single hyphens, at most {} characters, as in notes-service"
PACKAGE = (
    "a letter, then letters and digits with single underscores, lower-case, at most {}, as in notes_service"
)
LONGEST = {"project_name": 60, "project_slug": 40, "package_name": 40, "description": 200, "author": 100}
WORKS = {"project_slug": SLUG, "package_name": PACKAGE}

PINS = "".join(
    (PROJECT / "requirements" / f"{name}.txt").read_text("utf-8") for name in ("development", "notebook")
)
INSTALLED = {name.replace("-", "_") for name in re.findall(r"^([a-z0-9-]+)==", PINS, re.MULTILINE)}
# A package would hide a module of the same name, or be hidden by it. Neither INSTALLED nor
# `sys.stdlib_module_names` lists these: files and folders of the project, modules whose distribution has
# another name, and standard modules of some Python versions.
TAKEN = {path.stem for path in PROJECT.iterdir()} | set(
    "codespell_lib dotenv google importlinter markdown_it mypyc opentelemetry pip pkg_resources py setuptools"
    " uwsgi uwsgidecorators xdist zope annotationlib compression test type"
    " argon2 attr bs4 dateutil ipykernel_launcher jupyter mpl_toolkits pylab pythonjsonlogger rpds websocket"
    " yaml zmq".split()
)
# Emoji and some scripts need these two; the other characters of their category hide or reorder text.
JOINERS = {"\u200c", "\u200d"}


class BadAnswer(FailedHookException):  # type: ignore[misc]  # cookiecutter has no types
    """An answer cannot work; the message names the question and says what would."""

    def __init__(self, field: str, answer: object, why: str) -> None:
        shown = ascii(answer if len(str(answer)) <= 60 else str(answer)[:60] + "...")
        works = WORKS.get(field, TEXT).format(LONGEST[field])
        super().__init__(f"{field}: {shown} {why}; what works is {works}")


def refuse_bad_answers(answers: Mapping[str, object]) -> str:
    """Raise `BadAnswer` for the first answer that cannot work."""
    for field in LONGEST:
        check(field, answers.get(field))
    return "none is bad"


def check(field: str, answer: object) -> None:
    """Raise `BadAnswer` unless the answer to a question of free text can work."""
    if not isinstance(answer, str) or not answer.strip():
        raise BadAnswer(field, answer, "is empty" if isinstance(answer, str) else "is no text")
    if len(answer) > LONGEST[field]:
        raise BadAnswer(field, answer, f"is {len(answer)} characters long")
    if reason := _fault_of_name(field, answer) if field in WORKS else _fault_of_text(answer):
        raise BadAnswer(field, answer, reason)


def _fault_of_text(text: str) -> str | None:
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in JOINERS:
            return f"contains the invisible character U+{ord(character):04X}"
    if marks := re.search(r"\{[{%#]|^\s*#%", text):
        return f"contains {marks.group().strip()}, which belongs to the template's language"
    return None


def _fault_of_name(field: str, name: str) -> str | None:
    shape = r"[a-z0-9]+(-[a-z0-9]+)*" if field == "project_slug" else r"[a-z][a-z0-9]*(_[a-z0-9]+)*"
    if not re.fullmatch(shape, name):
        return "has another form"
    if name.replace("-", "_") in INSTALLED:
        return "is the name of something that the service installs"
    if field == "package_name" and (keyword.iskeyword(name) or keyword.issoftkeyword(name)):
        return "is a word of the Python language"
    if field == "package_name" and (name in TAKEN or name in sys.stdlib_module_names):
        return "is the name of a module or folder that the service needs"
    return None


def importable(slug: str) -> str:
    """Return the package name for a slug; it starts with `service_` where the slug alone cannot work."""
    name = slug.replace("-", "_")
    if re.match(r"[0-9]", name) or _fault_of_name("package_name", name) not in {None, "has another form"}:
        name = f"service_{name}"[: LONGEST["package_name"]].rstrip("_")
    return name


def quoted(text: str) -> str:
    """Return the inside of a quoted string that means `text` in TOML, YAML and JSON alike.

    Emoji stay as they are: the surrogate escapes that `tojson` writes for them are no TOML.
    """
    return json.dumps(text, ensure_ascii=False)[1:-1]


class Answers(Extension):
    """The filters of this module, and answers that are never run as templates.

    cookiecutter renders an answer given as `name=value`, but not one that is typed.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters.update(
            refuse_bad_answers=refuse_bad_answers, importable=importable, quoted=quoted
        )

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Return a source of the template unchanged, and an answer as an expression of its text.

        A project's file has a name, and its path is rendered in an environment with a loader. Then
        `refuse_bad_answers` checks the text of each answer, and its message names the question.
        """
        if name or self.environment.loader or source in own_sources():
            return source
        return "{{ " + ascii(source) + " }}"


def own_sources() -> list[object]:
    """Return the sources that the template itself has cookiecutter render before the project's files.

    They are read each time, because `cruft update` checks out another version below this module.
    An answer that repeats one of them is rendered, and its result is checked.
    """
    values = json.loads((HERE / "cookiecutter.json").read_text("utf-8")).values()
    hooks = (path.read_text("utf-8") for path in (HERE / "hooks").glob("*.py"))
    return [*values, *hooks, PROJECT.name]
