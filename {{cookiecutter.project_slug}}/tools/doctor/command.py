"""The command line. Exit code: 0 without findings, 1 with findings, 2 for an invalid argument."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .catalogue import CATALOGUE
from .deployment import NoSettingsError, Setting, examine_deployment
from .examination import examine
from .findings import Finding
from .proofs import PROOFS, prove
from .recorder import record
from .reports import FORMATS, explain


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="doctor",
        description="Find what works in a notebook and fails in a service. Only --app runs the code.",
        epilog="Silence a finding on its line: # doctor: ignore[N201] -- reason",
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="a .py file, an .ipynb file, or a folder"
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="text", help="the form of the report (default: text)"
    )
    parser.add_argument(
        "--deployment", metavar="MODULE", help="a module of the project that checks its settings"
    )
    parser.add_argument(
        "--app", metavar="MODULE:NAME", help="run this application, and record its import and a request"
    )
    parser.add_argument("--url", default="/", metavar="PATH", help="the request for --app (default: /)")
    parser.add_argument("--explain", choices=CATALOGUE, metavar="RULE", help="print what a rule is about")
    parser.add_argument("--prove", metavar="URL", help="with --explain: show it happen on this PostgreSQL")
    return parser


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; an invalid one exits with 2."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.prove is not None and options.explain not in PROOFS:
        parser.error(f"--prove needs --explain with one of {', '.join(PROOFS)}")
    if options.prove is not None and not options.prove.startswith("postgresql"):
        parser.error("--prove needs the URL of a PostgreSQL: postgresql://user@host/database")
    if not (options.paths or options.app or options.explain):
        parser.error("name a file or a folder")
    for path in options.paths:
        if not path.exists():
            parser.error(f"{path} does not exist")
        if path.is_file() and path.suffix not in {".py", ".ipynb"}:
            parser.error(f"{path} is neither a .py file nor an .ipynb file")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a report, and return the exit code."""
    options = parse_arguments(arguments)
    try:
        settings = examine_deployment(options.deployment) if options.deployment else []
    except NoSettingsError as error:
        return int(error.args[0])
    if options.explain:
        sys.stdout.write(explain(options.explain))
        return run_proof(options.explain, options.prove) if options.prove else 0
    recorded = record(options.app, options.url) if options.app else []
    found, files = examine(options.paths)
    findings: list[Finding | Setting] = [*settings, *recorded, *found]
    sys.stdout.write(FORMATS[options.format](findings, files))
    return 1 if findings else 0


def run_proof(rule: str, url: str) -> int:
    """Print what a proof shows; the exit code is 1 unless it fails before the fix and passes after it."""
    text, is_proved = prove(rule, url)
    sys.stdout.write(text)
    return 0 if is_proved else 1
