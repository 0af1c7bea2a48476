"""Report formats: text, JSON, SARIF, and annotations for GitHub Actions."""

import json
import textwrap
from collections.abc import Callable, Sequence

from .catalogue import CATALOGUE
from .deployment import Setting
from .findings import Finding
from .sources import Place

Findings = Sequence[Finding | Setting]
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
GITHUB_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}
SHOWN_USES = 6


def text(findings: Findings, files: int) -> str:
    """Return a text report: each finding with its uses, and the reason and fix once per rule."""
    explained: set[str] = set()
    lines: list[str] = []
    for finding in findings:
        if isinstance(finding, Setting):
            lines += [f"{finding.name} {finding.problem}", f"    {finding.fix}", ""]
            continue
        lines.append(f"{finding.place}: {finding.rule} {finding.level}: {finding.message}")
        lines += [f"    used at {use.place} in {use.where}" for use in finding.uses[:SHOWN_USES]]
        if len(finding.uses) > SHOWN_USES:
            lines.append(f"    and {len(finding.uses) - SHOWN_USES} more times")
        if finding.rule not in explained:
            explained.add(finding.rule)
            lines += reasons(finding.rule)
        lines.append("")
    return "\n".join([*lines, f"findings: {len(findings)} (files read: {files})", ""])


def explain(rule: str) -> str:
    """Return the entry of the catalogue for a rule."""
    return "\n".join([f"{rule}: {CATALOGUE[rule].title}", *reasons(rule), ""])


def reasons(rule: str) -> list[str]:
    """Return why a rule matters, and the fix."""
    return [wrap("Why: ", CATALOGUE[rule].why), wrap("Fix: ", CATALOGUE[rule].fix)]


def wrap(label: str, paragraph: str) -> str:
    """Return a labelled paragraph wrapped for a terminal."""
    return textwrap.fill(label + paragraph, 110, initial_indent="    ", subsequent_indent=" " * 9)


def as_json(findings: Findings, files: int) -> str:
    """Return one list of findings."""
    return write([record(finding) for finding in findings])


def write(document: object) -> str:
    """Return a document as JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def record(finding: Finding | Setting) -> dict[str, object]:
    """Return a finding as a JSON object."""
    if isinstance(finding, Setting):
        place = dict.fromkeys(Place._fields)
        known = {"rule": finding.name, "level": "error", "title": finding.problem, "object": finding.name}
        return {**known, "message": finding.problem, **place, "uses": [], "why": "", "fix": finding.fix}
    hazard = CATALOGUE[finding.rule]
    return {
        "rule": finding.rule,
        "level": finding.level,
        "title": hazard.title,
        "object": finding.object,
        "message": finding.message,
        **finding.place._asdict(),
        "uses": [{**use.place._asdict(), "where": use.where} for use in finding.uses],
        "why": hazard.why,
        "fix": hazard.fix,
        "fingerprint": finding.fingerprint,
    }


def sarif(findings: Findings, files: int) -> str:
    """Return a log in SARIF 2.1.0; a cell's line is counted in its cell, as SARIF knows no cells."""
    rules = [
        {
            "id": rule,
            "shortDescription": {"text": hazard.title},
            "fullDescription": {"text": hazard.why},
            "help": {"text": hazard.fix},
        }
        for rule, hazard in CATALOGUE.items()
    ]
    driver = {"name": "doctor", "rules": rules}
    run = {"tool": {"driver": driver}, "results": [result(finding) for finding in findings]}
    return write({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def result(finding: Finding | Setting) -> dict[str, object]:
    """Return a finding as a SARIF result."""
    if isinstance(finding, Setting):
        message = {"text": f"{finding.name} {finding.problem}: {finding.fix}"}
        return {"ruleId": finding.name, "level": "error", "message": message, "locations": []}
    cell = f" (cell {finding.place.cell})" if finding.place.cell else ""
    return {
        "ruleId": finding.rule,
        "level": finding.level,
        "message": {"text": finding.message + cell},
        "locations": [location(finding.place)],
        "relatedLocations": [{**location(use.place), "message": {"text": use.where}} for use in finding.uses],
        "partialFingerprints": {"doctor/v1": finding.fingerprint},
    }


def location(place: Place) -> dict[str, object]:
    """Return a place as a SARIF location."""
    region = {"startLine": place.line, "startColumn": place.column}
    artifact = {"uri": place.path.replace("\\", "/")}
    return {"physicalLocation": {"artifactLocation": artifact, "region": region}}


def github(findings: Findings, files: int) -> str:
    """Return a workflow command per finding, which GitHub shows next to the line."""
    lines = []
    for finding in findings:
        if isinstance(finding, Setting):
            lines.append(
                f"::error title={escape(finding.name)}::{escape(f'{finding.problem}: {finding.fix}')}"
            )
            continue
        cell = f" (cell {finding.place.cell})" if finding.place.cell else ""
        place = f"file={escape(finding.place.path)},line={finding.place.line},col={finding.place.column}"
        message = escape(f"{finding.message}{cell}. {CATALOGUE[finding.rule].fix}")
        lines.append(f"::{GITHUB_LEVELS[finding.level]} {place},title={finding.rule}::{message}")
    return "".join(f"{line}\n" for line in lines)


def escape(part: str) -> str:
    """Return a part of a workflow command without its delimiters."""
    for character, code in {"%": "%25", "\r": "%0D", "\n": "%0A"}.items():
        part = part.replace(character, code)
    return part


FORMATS: dict[str, Callable[[Findings, int], str]] = {
    "text": text,
    "json": as_json,
    "sarif": sarif,
    "github": github,
}
