"""The command line: `add NAME [SINGULAR]`, or `remove NAME`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from . import add, remove
from .refusal import Refusal

COMMANDS: dict[str, Callable[..., None]] = {"add": add.add_feature, "remove": remove.remove_feature}

try:
    COMMANDS[sys.argv[1]](*sys.argv[2:])
except Refusal as refusal:
    print(f"feature: {refusal.problem}", file=sys.stderr)
    raise
