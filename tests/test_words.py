"""The wording check, which the template and each project run on the template's text."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from .conftest import COMBINATIONS, EVERYTHING, RAW, Answers, Bake, generate, name_of
from .processes import run

FOUNDATION = RAW / "tests" / "foundation"
BASELINE = "words_baseline.txt"


def check(folder: Path, *arguments: str, status: int = 0) -> list[str]:
    """Run the check in a folder, and return the lines that it writes."""
    done = run(sys.executable, FOUNDATION / "words.py", *arguments, cwd=folder, status=status)
    assert done.stderr == ""
    return done.stdout.splitlines()


def write(folder: Path, **texts: str) -> Path:
    """Write files, whose names have an underscore for the dot."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def with_tools(project: Path) -> Path:
    """Give a project the Python and the packages of this test run in place of an installation."""
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (project / "bin" / "install").write_text("#!/bin/sh\n")
    return project


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("one\nit is for Nobody\n", 2, "nobody"),
        ("It is nobody's.\n", 1, "nobody's"),
        ("one\ntwo\nlasts for ever.\n", 3, "for ever"),
        ("Lasts for\n    ever.\n", 1, "for ever"),
        ("# It lasts for\n# ever.\n", 1, "for ever"),
        ("; By\n; hand\n", 1, "by hand"),
        ('def f():\n    """What it returns."""\n', 2, '"""what'),
        ("recieve\n", 1, "recieve"),
    ],
    ids=[
        "word",
        "genitive",
        "phrase",
        "wrapped",
        "in a comment",
        "in an ini file",
        "docstring",
        "misspelling",
    ],
)
def test_a_finding_names_place_word_and_suggestion(text: str, line: int, word: str, tmp_path: Path) -> None:
    """One line holds the file, the line, the word and the suggestion."""
    (problem,) = check(write(tmp_path, a_txt=text), BASELINE, "a.txt", status=1)

    assert re.fullmatch(rf"a\.txt:{line}: {re.escape(word)} ==> [a-z].+", problem)


@pytest.mark.parametrize(
    "text",
    [
        "behind a proxy",
        "two at once",
        "nobodys_port and mender",
        "forever",
        "for every",
        "stand by handlers",
        'f("""x""")\nWhat follows',
        "https://somebody@example.org/nobody",
    ],
)
def test_text_without_a_listed_word_passes(text: str, tmp_path: Path) -> None:
    """A technical term, a part of a longer word and an address are not findings."""
    assert check(write(tmp_path, a_py=text), BASELINE, ".") == []


def test_quotations_and_generated_text_are_not_checked(tmp_path: Path) -> None:
    """The list, the check and its tests quote the words; requirements and LICENSE are written elsewhere."""
    for name in ("LICENSE", "test_words.py", "requirements/production.txt", "__pycache__/a.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("nobody")
    write(tmp_path, a_txt="fine")

    assert check(tmp_path, BASELINE, ".") == []


def test_no_file_to_check_is_an_error(tmp_path: Path) -> None:
    """An invalid path does not count as clean."""
    done = run(sys.executable, FOUNDATION / "words.py", BASELINE, "gone", cwd=tmp_path, status=1)

    assert done.stderr == "words: no file to check\n"


def test_the_baseline_allows_what_was_there(tmp_path: Path) -> None:
    """Lines and files move freely, but one more finding fails, with every place of the word in that file."""
    write(tmp_path, a_txt="nobody\n")
    check(tmp_path, "--update", BASELINE, ".")
    write(tmp_path, a_txt="\n\nnobody\n")
    (tmp_path / "a.txt").rename(write(tmp_path / "moved") / "a.txt")

    assert check(tmp_path, "--exact", BASELINE, ".") == []
    write(tmp_path / "moved", a_txt="nobody\nnobody\n", b_txt="nobody")
    places = [line.rpartition(": ")[0] for line in check(tmp_path, BASELINE, ".", status=1)]
    assert places == ["moved/a.txt:1", "moved/a.txt:2", "moved/b.txt:1"]


def test_the_baseline_shrinks_and_does_not_grow(tmp_path: Path) -> None:
    """A baseline that allows too much fails an exact check; an update allows no word more often."""
    write(tmp_path, a_txt="nobody told us\n", b_txt="told\n")
    check(tmp_path, "--update", BASELINE, ".")
    write(tmp_path, a_txt="told\ntold\n", b_txt="\n")

    stale = check(tmp_path, "--exact", BASELINE, ".", status=1)[-2:]
    assert stale == [
        f"{BASELINE}: nobody in a.txt: 1 allowed, 0 found: run bin/words --update",
        f"{BASELINE}: told in b.txt: 1 allowed, 0 found: run bin/words --update",
    ]
    assert check(tmp_path, "--update", BASELINE, ".") == []
    assert check(tmp_path, "--exact", BASELINE, ".") == []

    before = (tmp_path / BASELINE).read_text()
    write(tmp_path, b_txt="nobody\n")
    assert check(tmp_path, "--update", BASELINE, ".", status=1)[0].startswith("b.txt:1: nobody ==> ")
    assert (tmp_path / BASELINE).read_text() == before


def test_a_larger_baseline_passes_unless_exact(tmp_path: Path) -> None:
    """A project can have fewer findings than the template, because answers remove lines."""
    write(tmp_path, a_txt="nobody\n")
    check(tmp_path, "--update", BASELINE, ".")
    write(tmp_path, a_txt="\n")

    assert check(tmp_path, BASELINE, ".") == []


def test_the_list_is_a_dictionary() -> None:
    """Each line has a key in lower case and a suggestion; keys are sorted and listed once."""
    lines = (FOUNDATION / "words.txt").read_text("utf-8").splitlines()

    keys = [line.partition("->")[0] for line in lines]
    assert all(re.fullmatch(r'("""|[a-z])[a-z\' ]+->[a-z].+,', line) for line in lines)
    # Phrases for docstrings are the last lines.
    assert keys == sorted(set(keys), key=lambda key: (key.startswith('"'), key))


@pytest.mark.parametrize("answers", [*COMBINATIONS, EVERYTHING], ids=name_of)
def test_a_project_passes_its_own_check(answers: Answers, bake: Bake, tmp_path: Path) -> None:
    """The template's baseline allows the findings of every project."""
    project = with_tools(Path(shutil.copytree(bake(**answers), tmp_path / "project")))

    assert run("bin/words", cwd=project).stdout == ""


def test_only_the_templates_files_are_checked(tmp_path: Path) -> None:
    """A finding in a file of the template fails, and one in a file of the project's owner does not."""
    project = with_tools(generate(tmp_path))
    for name in (
        "README.md",
        "src/notes_service/app.py",
        "src/notes_service/notes/views.py",
        "tests/conftest.py",
    ):
        with (project / name).open("a") as file:
            file.write("# recieve\n")
    assert run("bin/words", cwd=project).stdout == ""

    for name in (
        "Makefile",
        "docs/OPERATIONS.md",
        "migrations/env.py",
        "bin/serve",
        "gunicorn.conf.py",
        "uwsgi.ini",
    ):
        with (project / name).open("a") as file:
            file.write("; recieve\n")
    found = run("bin/words", cwd=project, status=1).stdout
    assert sorted(re.findall(r"^(.+?):\d+: recieve ==> receive$", found, re.MULTILINE)) == [
        "Makefile",
        "bin/serve",
        "docs/OPERATIONS.md",
        "gunicorn.conf.py",
        "migrations/env.py",
        "uwsgi.ini",
    ]


def test_names_of_a_project_are_no_findings(tmp_path: Path) -> None:
    """The package and the folder of a project can be called like a listed word or a misspelling."""
    project = generate(tmp_path, {"project_name": "Mend Recieve", "package_name": "mend"})

    assert run("bin/words", cwd=with_tools(project)).stdout == ""
