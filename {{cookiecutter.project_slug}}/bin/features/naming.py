"""The names of a feature in code, in the database and in addresses."""

from __future__ import annotations

import builtins
import keyword
import re
from dataclasses import dataclass
from pathlib import Path

from .refusal import Refusal

LONGEST = 40  # PostgreSQL truncates identifiers at 63 bytes, and that of a foreign key holds two names.

# Modules that each feature has, folders, and addresses that the foundation serves.
RESERVED = {"models", "service", "views", "tests", "docs", "health", "livez", "metrics", "openapi", "readyz"}

SINGULARS = dict(line.split() for line in Path(__file__).with_name("singulars.txt").read_text().splitlines())
# The first ending that fits is replaced.
ENDINGS = {
    r"(ss|us|is)$": r"\1",  # a singular: address, status, analysis
    r"ies$": "y",
    r"(ss|sh|ch|x|zz|[^aeo]us)es$": r"\1",
    r"s$": "",
}


@dataclass(frozen=True)
class Names:
    """The names of a feature, made from its plural and its singular."""

    plural: str
    singular: str

    def substitutes(self) -> dict[str, str]:
        """Return what the placeholders of the files stand for."""
        return {
            "plural": self.plural,
            "singular": self.singular,
            "Model": "".join(part.capitalize() for part in self.singular.split("_")),
            "path": "/" + self.plural.replace("_", "-"),
            "words": self.plural.replace("_", " "),
            "Words": self.plural.replace("_", " ").capitalize(),
            "word": self.singular.replace("_", " "),
        }


def names_of(plural: str, singular: str = "") -> Names:
    """Return the names of a feature, or refuse what cannot be one."""
    if not plural:
        raise Refusal("NAME is missing: make feature NAME=orders")
    _refuse_spelling(plural)
    if plural in RESERVED or _is_word_of_python(plural):
        raise Refusal(f"{plural!r} is reserved: choose another NAME")
    singular = singular or singularize(plural)
    _refuse_spelling(singular)
    if _is_word_of_python(singular):
        raise Refusal(f"{singular!r} is a word of Python: choose another NAME, or add SINGULAR=my_{singular}")
    return Names(plural, singular)


def _refuse_spelling(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise Refusal(f"{name!r} is no name: use a plural in lower case, such as orders or order_items")
    if len(name) > LONGEST:
        raise Refusal(f"{name!r} is too long for names in PostgreSQL: use at most {LONGEST} letters")


def _is_word_of_python(name: str) -> bool:
    return keyword.iskeyword(name) or keyword.issoftkeyword(name) or hasattr(builtins, name)


def singularize(plural: str) -> str:
    """Return the singular of a plural's last word; a word that is no plural stays as it is."""
    first, underscore, last = plural.rpartition("_")
    return first + underscore + _singular(last)


def _singular(word: str) -> str:
    if word in SINGULARS:
        return SINGULARS[word]
    for ending, replacement in ENDINGS.items():
        if re.search(ending, word):
            return re.sub(ending, replacement, word)
    return word
