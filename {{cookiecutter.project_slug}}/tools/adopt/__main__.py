"""The command's entry point: `python tools/adopt`, or `python -m tools.adopt` in the project's folder."""

import sys

if __package__:
    from .command import main

    sys.exit(main())

import runpy
from pathlib import Path

# The doctor's modules are next to this folder, in the package `tools`.
sys.path[0] = str(Path(__file__).resolve().parents[2])
runpy.run_module("tools.adopt", run_name="__main__", alter_sys=True)
