"""The start of the command: `python tools/adopt`, or `python -m tools.adopt` in the folder of the project."""

import sys

if __package__:
    from .command import main

    sys.exit(main())

import runpy
from pathlib import Path

# The doctor's modules are beside this folder, in the package `tools`.
sys.path[0] = str(Path(__file__).resolve().parents[2])
runpy.run_module("tools.adopt", run_name="__main__", alter_sys=True)
