"""The command's entry point: `python tools/doctor`, or `python -m doctor` if its folder is importable."""

import sys

if __package__:
    from .command import main

    sys.exit(main())

import runpy
from pathlib import Path

# Python puts the package itself on the path, which hides no module but contains no package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)
runpy.run_module(Path(__file__).resolve().parent.name, run_name="__main__", alter_sys=True)
