"""A check of the wording: misspellings, and the words and phrases in `words.txt`.

`words.txt` is a dictionary for codespell, which finds its single words. Its other keys are phrases and
first words of docstrings, which codespell cannot find. A baseline file allows the findings that exist. It
counts them by file name and word, so that a line or a file can move without an edit of the baseline.
Files with `words` in their name are not checked, because they quote the words.
"""

import argparse
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

from codespell_lib import main as codespell

LIST = Path(__file__).with_name("words.txt")
NO_MISSPELLINGS = "checkin,connexion"  # an event of SQLAlchemy's pools, and a package
GAP = r"\s+(?:[#;]+\s+)?"  # a phrase can continue on the next line of a comment
HEADER = "# Findings that are allowed: count, file name, word. `bin/words --update` rewrites this file.\n"

Counts = Counter[tuple[str, str]]


class Finding(NamedTuple):
    """A word at its place, and the better one."""

    path: Path
    line: int
    word: str
    suggestion: str

    @property
    def key(self) -> tuple[str, str]:
        """The file name and the word."""
        return self.path.name, self.word


def is_checked(path: Path) -> bool:
    """Return whether the check reads this path: not a folder, a quotation of the words, or generated text."""
    unchecked = {"LICENSE", "__pycache__", "requirements"} & set(path.parts)
    # The checklist of `make adopt` quotes the names of a notebook.
    return path.is_file() and not re.search(r"words|^adopting-", path.name) and not unchecked


def list_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files to check among paths of files and folders, which need not exist."""
    return sorted({file for path in paths for file in (path, *path.rglob("*")) if is_checked(file)})


def find_words(files: Sequence[Path], names: str) -> Iterator[Finding]:
    """Yield each misspelling and each listed word, except words that a comma-separated list allows."""
    options = [f"--dictionary=-,{LIST}", "--builtin", "clear", "--check-hidden", "--disable-colors"]
    options += ["--ignore-words-list", f"{NO_MISSPELLINGS},{names}", "--uri-ignore-words-list", "*"]
    with redirect_stdout(io.StringIO()) as output:
        codespell(*options, "--", *map(str, files))
    for match in re.finditer(r"^(.+?):(\d+): (.+?) ==> (.+)$", output.getvalue(), re.MULTILINE):
        yield Finding(Path(match[1]), int(match[2]), match[3].lower(), match[4].lower())


def read_phrases() -> dict[str, str]:
    """Return the list's phrases, with suggestions."""
    entries = dict(line.split("->") for line in LIST.read_text("utf-8").splitlines())
    return {key: value.rstrip(",") for key, value in entries.items() if not key.replace("'", "").isalpha()}


def find_phrases(files: Iterable[Path]) -> Iterator[Finding]:
    """Yield each listed phrase, and each docstring that begins with a listed word."""
    phrases = read_phrases()
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(phrases).replace(' ', GAP)})(?!\w)", re.IGNORECASE)
    for file in files:
        text = file.read_text("utf-8", errors="replace")
        for match in pattern.finditer(text):
            phrase = re.sub(GAP, " ", match[0]).lower()
            yield Finding(file, text.count("\n", 0, match.start()) + 1, phrase, phrases[phrase])


def read_baseline(path: Path) -> Counts:
    """Return how often each word may occur in each file."""
    lines = path.read_text("utf-8").splitlines()[1:] if path.exists() else []
    rows = (line.split(" ", 2) for line in lines)
    return Counter({(name, word): int(count) for count, name, word in rows})


def write_baseline(path: Path, counts: Counts) -> None:
    """Write how often each word may occur in each file."""
    rows = (f"{count} {name} {word}\n" for (name, word), count in sorted(counts.items()))
    path.write_text(HEADER + "".join(rows), "utf-8")


def list_new(findings: Iterable[Finding], counts: Counts, allowed: Counts) -> list[str]:
    """Return a line per finding in files with more of the word than the baseline allows."""
    return [
        f"{finding.path}:{finding.line}: {finding.word} ==> {finding.suggestion}"
        for finding in findings
        if counts[finding.key] > allowed[finding.key]
    ]


def list_stale(counts: Counts, allowed: Counts, baseline: Path) -> list[str]:
    """Return a line per number in the baseline that exceeds the findings."""
    return [
        f"{baseline}: {word} in {name}: {count} allowed, {counts[name, word]} found: run bin/words --update"
        for (name, word), count in allowed.items()
        if count > counts[name, word]
    ]


def list_growing(counts: Counts, allowed: Counts) -> set[str]:
    """Return the words that exceed the baseline over all files."""
    totals = Counter[str]()
    for (_, word), count in counts.items():
        totals[word] += count
    for (_, word), count in allowed.items():
        totals[word] -= count
    return set(+totals)


def check(findings: Sequence[Finding], baseline: Path, *, exact: bool) -> list[str]:
    """Return a line for each problem; exact: a baseline that allows more than is found is a problem."""
    counts, allowed = Counter(finding.key for finding in findings), read_baseline(baseline)
    return list_new(findings, counts, allowed) + (list_stale(counts, allowed, baseline) if exact else [])


def update(findings: Sequence[Finding], baseline: Path) -> list[str]:
    """Write the baseline, unless it exists and allows less of a word; then return a line for each problem."""
    counts, allowed = Counter(finding.key for finding in findings), read_baseline(baseline)
    growing = list_growing(counts, allowed) if baseline.exists() else set()
    if not growing:
        write_baseline(baseline, counts)
    return list_new([finding for finding in findings if finding.word in growing], counts, allowed)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Check the wording of files.")
    parser.add_argument("--update", action="store_true", help="rewrite the baseline, with no more of a word")
    parser.add_argument("--exact", action="store_true", help="fail if the baseline allows more than is found")
    parser.add_argument("--names", default="", metavar="A,B", help="words that are names here")
    parser.add_argument("baseline", type=Path)
    parser.add_argument("paths", type=Path, nargs="*", metavar="path")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the files, or update the baseline; write a line for each problem, and return the exit code."""
    options = parse_arguments(arguments)
    files = list_files(options.paths)
    if not files:
        sys.exit("words: no file to check")  # codespell would check the current folder
    findings = sorted([*find_words(files, options.names), *find_phrases(files)])
    if options.update:
        problems = update(findings, options.baseline)
    else:
        problems = check(findings, options.baseline, exact=options.exact)
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
