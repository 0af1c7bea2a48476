"""The check of paths: read, index, check, and drop silenced findings."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from .checks import notebooks, processes, sessions, settings, startup, state
from .findings import Code, Finding
from .servers import read_deployment
from .sources import find_sources


def examine(paths: Sequence[Path]) -> tuple[list[Finding], int]:
    """Return the findings in files and folders, in order, and the number of files read."""
    sources = find_sources(paths)
    code = Code(sources, read_deployment(paths))
    found: list[Finding] = []
    for family in (sessions, state, startup, processes, settings, notebooks):
        found += family.check(code)
    left = drop_ignored(found)
    left += drop_ignored(settings.check_servers(code, left))
    return sorted(left, key=lambda finding: (finding.place.path, finding.lines, finding.rule)), len(sources)


def drop_ignored(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that no comment with a reason silences."""
    left = []
    for finding in findings:
        ignore = finding.source.ignore_at(*finding.lines) if finding.source else None
        if ignore is None or finding.rule not in ignore.rules:
            left.append(finding)
        elif not ignore.reason:
            example = f"# doctor: ignore[{finding.rule}] -- reason"
            hint = f"{finding.message}; the ignore comment needs a reason: `{example}`"
            left.append(finding._replace(message=hint))
    return left
