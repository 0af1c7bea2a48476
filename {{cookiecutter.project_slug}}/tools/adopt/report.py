"""The plan as text, and the checklist as Markdown."""

from collections.abc import Iterable

from .cells import Unit
from .modules import Feature, open_questions

NO_VIEWS = "docs/notebooks.md, From a CSV file to an endpoint, shows how to add one to views.py"
PLACES = {
    "import": "imports",
    "function": "service.py",
    "class": "service.py",
    "constant": "service.py",
    "load": "service.py, @loaded_once",
    "model": "models.py",
    "view": "views.py",
    "setting": "setting",
    "session": "dropped",
    "dropped": "dropped",
    "decision": "decision",
    "skipped": "skipped",
}


def place_of(feature: Feature, unit: Unit) -> str:
    """Return the destinations of a cell's parts, and the reasons."""
    if unit.override == "skip":
        return "skipped (# adopt: skip)"
    if unit.question:
        return f"decision ({unit.question})"
    found: dict[str, list[str]] = {}
    for item in feature.plan.items:
        if item.unit is unit:
            place = PLACES[item.kind]
            if item.kind == "function" and item.in_views:
                place = "views.py"
            blocked = (
                item.kind in {"function", "class", "constant", "load", "model", "view"}
                and id(item) not in feature.code
            )
            if blocked:
                place = "decision"
            asks = item.name in feature.with_session
            why = "an open question" if blocked else "a query, the session first" if asks else item.why
            text = f"{item.name}: {why}" if item.name and item.kind != "import" else why
            found.setdefault(place, [])
            if text and text not in found[place]:
                found[place].append(text)
    if not found:
        return "dropped: a command of IPython, or only comments"
    return "; ".join(f"{place} ({', '.join(texts)})" if texts else place for place, texts in found.items())


def write_plan(feature: Feature, files: Iterable[str]) -> str:
    """Return one line per cell, the questions, and the files that WRITE=1 would write."""
    notebook = feature.plan.notebook
    lines = [
        f"{unit.label:>8}  {unit.first_line[:60]!r} -> {place_of(feature, unit)}" for unit in notebook.units
    ]
    questions = open_questions(notebook, feature.plan.items)
    lines += ["", f"decisions: {len(questions)}"]
    lines += [f"  {unit.label}: {text}" + (f" [{rule}]" if rule else "") for unit, text, rule in questions]
    moved = sum(id(item) in feature.code for item in feature.views)
    views = sum(item.kind == "view" for item in feature.plan.items)
    lines += ["", f"views moved: {moved} of {views}" if views else f"no views: {NO_VIEWS}"]
    lines += [
        f'package: add "{name}" to dependencies in pyproject.toml, then make lock' for name in feature.lacking
    ]
    lines += ["files:", *(f"  {path}" for path in files)]
    return "\n".join(lines) + "\n"


def write_checklist(feature: Feature) -> str:
    """Return the checklist of the owner's remaining work."""
    plan, name = feature.plan, feature.name
    lines = [
        f"# Adopting {name}",
        "",
        f"`make adopt` moved the mechanical part of `{plan.notebook.source.path.name}`. This is left:",
        "",
        f'- [ ] Add `"{name}",` to FEATURES in `src/{feature.package}/app.py`.',
    ]
    if feature.items("models"):
        lines += [f'- [ ] Run `make migration NAME="create {name.replace("_", " ")}"`, then `make migrate`.']
    for distribution, module in feature.lacking.items():
        lines += [
            f'- [ ] Add `"{distribution}",` to dependencies in pyproject.toml and run `make lock`. '
            f"Then move the imports of `{module}` to the top of their modules, without the `type: ignore`."
        ]
    for item in plan.items:
        if item.kind == "setting":
            lines += [f"- [ ] Make a setting for `{item.name}` ({item.unit.label}): {item.why}."]
        elif item.kind == "constant" and "setting" in item.why:
            lines += [
                f"- [ ] `{item.name}` ({item.unit.label}) is a constant:"
                " make it a setting if it differs between machines."
            ]
        elif item.kind == "load" and id(item) in feature.code:
            lines += [
                f"- [ ] Put the file that `{item.name}()` loads ({item.unit.label}) where the service runs."
            ]
    for item in feature.views:
        address, method = feature.sample(item)
        lines += [f"- [ ] `{method} {address}`: send in its test what a client sends, and check the answer."]
    if not feature.views:
        lines += [f"- [ ] The notebook has no routes: {NO_VIEWS}."]
    questions = open_questions(plan.notebook, plan.items)
    lines += ["", "## Decisions", ""] if questions else []
    lines += [
        f"- [ ] {unit.label}: {text}" + (f" ({rule}: `make doctor EXPLAIN={rule}`)" if rule else "")
        for unit, text, rule in questions
    ]
    return "\n".join(lines) + "\n"
