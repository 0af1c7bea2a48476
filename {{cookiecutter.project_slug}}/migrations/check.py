"""A check of migrations for statements that break or block the release that serves while they run.

Squawk checks the SQL of a migration for PostgreSQL by the rules in .squawk.toml. A migration marks
a statement as meant, with the reason: `meant = {"DROP TABLE notes": "no release has read it since June"}`.
Run as a module it checks the given migrations, or all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

WHOLE = "upgrade()"  # marks a whole migration as meant
SQUAWK = (str(Path(sys.executable).with_name("squawk")), "--reporter", "json")


class _Output(list[str]):
    """A list of the statements that Alembic writes."""

    write = list.append

    def flush(self) -> None:
        """Do nothing: it is a list."""


def problems(script: Script) -> Iterator[tuple[str, str]]:
    """Yield the unsafe statements of a migration that are not meant, with the reasons."""
    meant = getattr(script.module, "meant", {})
    if meant.get(WHOLE):
        return
    output: Any = _Output()
    options = {"as_sql": True, "literal_binds": True, "output_buffer": output}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    try:
        with Operations.context(context), context.begin_transaction():
            script.module.upgrade()
    except Exception as error:
        yield WHOLE, f"can't be rendered as SQL to be checked ({error!r})"
        return
    for statement, reason in unsafe(output):
        if not meant.get(statement):
            yield statement, reason


def unsafe(statements: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the statements that squawk finds unsafe in one migration, with its reasons."""
    lines = [(line, number) for number, text in enumerate(statements) for line in text.splitlines()]
    text = "\n".join(line for line, _ in lines)
    result = subprocess.run(SQUAWK, input=text, capture_output=True, text=True, check=False)  # noqa: S603
    if not result.stdout:
        raise SystemExit(f"migration check: squawk fails: {result.stderr}")
    reasons: dict[int, list[str]] = {}
    broken = set()
    for found in json.loads(result.stdout):
        number = lines[min(found["line"], len(lines) - 1)][1]
        reasons.setdefault(number, []).append(f"{found['message']} ({found['rule_name']})")
        if found["rule_name"] == "syntax-error":
            broken.add(number)
    for number, messages in reasons.items():
        yield " ".join(statements[number].split()).rstrip(";"), " ".join(messages)
    if broken:  # It has looked no further.
        yield from unsafe([text for number, text in enumerate(statements) if number not in broken])


def main(paths: Sequence[str]) -> int:
    """Print the problems of migrations, and return whether there are any."""
    wanted = {Path(path).resolve() for path in paths}
    code = 0
    for script in ScriptDirectory.from_config(Config(toml_file="pyproject.toml")).walk_revisions():
        if wanted and Path(script.path).resolve() not in wanted:
            continue
        for statement, reason in problems(script):
            code, mark = 1, {statement: "why"}
            print(  # noqa: T201
                f"{os.path.relpath(script.path)}: unsafe while the previous release serves:\n"
                f"    {statement}\n    {reason}\n"
                f"    Make it in two steps (docs/OPERATIONS.md, Schema changes), or write: meant = {mark}"
            )
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
