"""Findings about settings, from a program of the project that prints them as JSON."""

import json
import subprocess
import sys
from typing import NamedTuple


class Setting(NamedTuple):
    """A problem with the settings, and its fix."""

    name: str
    problem: str
    fix: str


class NoSettingsError(Exception):
    """The program could not build any settings; it printed why. Its exit code is the argument."""


def examine_deployment(module: str) -> list[Setting]:
    """Return the findings that a module of the project prints when it runs with --json."""
    command = [sys.executable, "-m", module, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - the project's own module
    if done.returncode not in {0, 1}:
        raise NoSettingsError(done.returncode)
    return [Setting(item["name"], item["problem"], item["fix"]) for item in json.loads(done.stdout)]
