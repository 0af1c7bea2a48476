"""The command line. Exit code: 0 for a plan, 1 if files could not be written, 2 for an invalid argument."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .cells import Notebook, NotReadableError
from .classification import Plan
from .modules import Feature
from .project import Project, WrongNameError, name_of
from .report import write_plan
from .writing import NotWrittenError, write


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="adopt", description="Plan how a notebook is moved into the service. Runs none of its code."
    )
    parser.add_argument(
        "notebook", nargs="?", type=Path, metavar="NOTEBOOK", help="an .ipynb file or a .py file"
    )
    parser.add_argument("--name", default="", help="the feature (default: from the name of the file)")
    parser.add_argument("--write", action="store_true", help="write new files, in place of a plan alone")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the folder of the project (default: this one)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan, write the files if requested, and return the exit code."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    path: Path | None = options.notebook
    if path is None:
        parser.error("NOTEBOOK is missing: make adopt NOTEBOOK=churn.ipynb")
    if not path.is_file():
        parser.error(f"{path} does not exist" if not path.exists() else f"{path} is no file")
    if path.suffix not in {".py", ".ipynb"}:
        parser.error(f"{path} is neither a .py file nor an .ipynb file")
    project = Project(options.root)
    try:
        name = options.name or name_of(path)
        project.check_name(name)
        notebook = Notebook(path)
    except (WrongNameError, NotReadableError) as error:
        parser.error(str(error))
    feature = Feature(Plan(notebook, project), name)
    files = feature.files()
    if options.write:
        try:
            files = write(feature)
        except (NotWrittenError, OSError) as error:
            sys.stderr.write(f"adopt: nothing was written: {error}\n")
            return 1
    else:
        files[f"docs/adopting-{name}.md"] = ""
    sys.stdout.write(write_plan(feature, files))
    if options.write:
        sys.stdout.write(f"\nwritten. Next: docs/adopting-{name}.md\n")
    return 0
