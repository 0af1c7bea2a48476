"""The start of the command: `python tools/doctor`, or `python -m doctor` where its folder can be imported."""

import sys

if __package__:
    from .command import main

    sys.exit(main())

import runpy
from pathlib import Path

# Python put the package itself on the path, which hides no module but contains no package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)
runpy.run_module(Path(__file__).resolve().parent.name, run_name="__main__", alter_sys=True)
