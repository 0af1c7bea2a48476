"""The documents of a project: their links and pictures, and the form of the guide to failures."""

from __future__ import annotations

import ast
import functools
import itertools
import re

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from .conftest import COMBINATIONS, DEPLOYMENTS, EVERYTHING, Answers, Bake, name_of

PARTS = ["Symptom", "Cause", "Action", "Protection"]


@functools.cache  # Most documents are the same in several projects.
def parse(text: str) -> list[Token]:
    """Return the tokens of a document in GitHub's kind of Markdown."""
    return MarkdownIt("gfm-like", {"linkify": False}).parse(text)


def anchors(text: str) -> dict[str, str]:
    """Return the headings of a document by the anchors that GitHub gives them."""
    tokens, found = parse(text), dict[str, str]()
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            title = "".join(child.content for child in inline.children or ())
            anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            repeated = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in found)
            found[f"{anchor}-{repeated}" if repeated else anchor] = inline.content
    return found


def links(text: str) -> list[str]:
    """Return the addresses of a document's links."""
    children = [child for token in parse(text) for child in token.children or ()]
    return [str(child.attrs["href"]) for child in children if child.type == "link_open"]


def entries(text: str) -> dict[str, str]:
    """Return the entries of the guide to failures by their titles."""
    _, *sections = re.split(r"^### (.+)\n", text, flags=re.MULTILINE)
    return {
        title: re.split(r"^(?:## |\[)", entry, flags=re.MULTILINE)[0].strip()
        for title, entry in zip(sections[::2], sections[1::2], strict=True)
    }


@pytest.fixture
def failures(bake: Bake) -> str:
    """The guide to failures of a project with everything."""
    return (bake(**EVERYTHING) / "docs" / "failures.md").read_text("utf-8")


@pytest.mark.parametrize("deployment", ["with nothing", "with everything"])
@pytest.mark.parametrize("answers", COMBINATIONS, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(answers: Answers, deployment: str, bake: Bake) -> None:
    """Each link of the README and of docs/ leads to a file of the project, and to a heading there."""
    project = bake(**answers | DEPLOYMENTS[deployment])

    for document in [project / "README.md", *sorted((project / "docs").iterdir())]:
        for href in links(document.read_text("utf-8")):
            path, _, anchor = href.partition("#")
            if ":" in path:
                continue
            target = (document.parent / path).resolve() if path else document
            assert target.exists(), (document, href)
            if anchor:
                assert anchor in anchors(target.read_text("utf-8")), (document, href)


def test_the_readme_lists_every_public_name(bake: Bake) -> None:
    """The table of the foundation's names lists exactly the names that its packages export."""
    project = bake()
    foundation = project / "src" / "notes_service" / "foundation"
    _, _, table = (project / "README.md").read_text("utf-8").partition("| below `foundation` | names |\n")
    rows = [re.findall(r"`([\w.]+)`", row) for row in table.partition("\n\n")[0].splitlines()[1:]]

    assert len(rows) > 5
    for package, *names in rows:
        module = foundation.joinpath(*package.split("."))
        source = (module / "__init__.py" if module.is_dir() else module.with_suffix(".py")).read_text("utf-8")
        body = ast.parse(source).body
        assigned = {ast.unparse(node.targets[0]): node.value for node in body if isinstance(node, ast.Assign)}
        if "__all__" in assigned:
            assert sorted(names) == sorted(ast.literal_eval(assigned["__all__"])), package
        else:
            assert set(names) <= {
                node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)
            }


def test_every_failure_has_the_same_four_parts(failures: str) -> None:
    """Each entry of the guide to failures is a list of symptom, cause, action and protection."""
    for title, entry in entries(failures).items():
        items = re.split(r"^\* ", entry, flags=re.MULTILINE)
        labels = [item.partition(".** ")[0] for item in items]
        assert labels == ["", *(f"**{part}" for part in PARTS)], title


def test_every_protection_names_its_proof(failures: str) -> None:
    """The protection of each entry links a test, unless the service has none."""
    for title, entry in entries(failures).items():
        protection = entry.rpartition("**Protection.** ")[2]
        proofs = re.findall(r"\[([\w/]+\.py)\]", protection)
        assert proofs or protection.startswith("None "), title
        # Without an address, a reference is text.
        assert [
            proof for proof in proofs if f"\n[{proof}]: ../tests/foundation/{proof}\n" not in failures
        ] == []


def test_the_contents_list_every_failure(failures: str) -> None:
    """The table of contents links each section and each entry by its title, in their order."""
    contents, _, rest = failures.partition("\n## Contents\n\n")[2].partition("\n\n")
    indents = dict.fromkeys(entries(rest), "  ")

    assert contents.splitlines() == [
        f"{indents.get(title, '')}* [{title}](#{anchor})" for anchor, title in anchors(rest).items()
    ]


# The simplest part of Mermaid's syntax, which every renderer accepts.
LABEL = r'[^;#{}"<>]+(?:<br/>[^;#{}"<>]+)*'
NODE = r"\w+(?:\[\w+\]|\[\(\w+\)\])?"
FLOWCHART = rf'    {NODE} -->\|"{LABEL}"\| {NODE}'
STEP = rf"(?:    )?(?:(\w)->>(\w)|Note over \w): {LABEL}"
SEQUENCE = rf"    (?:participant (\w) as {LABEL}|{STEP}|(?:loop|opt) {LABEL}|end)"


@pytest.mark.parametrize("answers", COMBINATIONS, ids=name_of)
def test_every_picture_has_the_simplest_syntax(answers: Answers, bake: Bake) -> None:
    """Each Mermaid block is a flowchart or a sequence of declared participants, whose blocks are closed."""
    text = (bake(**answers) / "docs" / "OPERATIONS.md").read_text("utf-8")
    pictures = [token.content.splitlines() for token in parse(text) if token.info == "mermaid"]

    assert pictures
    for kind, *lines in pictures:
        syntax = {"flowchart LR": FLOWCHART, "sequenceDiagram": SEQUENCE}[kind]
        found = [re.fullmatch(syntax, line) for line in lines]
        assert None not in found, (kind, lines)
        if kind == "sequenceDiagram":
            declared, senders, receivers = (
                {match[number] for match in found if match and match[number]} for number in (1, 2, 3)
            )
            assert senders | receivers == declared, lines
        opened = sum(line.lstrip().startswith(("loop ", "opt ")) for line in lines)
        assert opened == [line.strip() for line in lines].count("end"), lines
