"""The project's tutorial and its page about authentication, followed to the letter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from .conftest import BOUND, SKIPPING_IS_FAILING, Workshop, generate
from .owners import edit
from .processes import WebServer, run, serve, wait_until

pytestmark = pytest.mark.matrix

SOURCE = Path("src", "notes_service")
TUTORIAL, AUTHENTICATION = Path("docs", "tutorial.md"), Path("docs", "authentication.md")
ADDRESS = "127.0.0.1:8000"
SERVER = "make dev\n"
# The linked environment has another project's sources in its path.
ENVIRONMENT = {"PYTHONPATH": "src", **SKIPPING_IS_FAILING}
BLOCK = re.compile(r"(?:^`([^`\n]+)`\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EAGER = ".options(selectinload(Book.author))"


class Block(NamedTuple):
    """A block of the document: its file, if one is named above it, its language and its text."""

    path: str
    language: str
    text: str


def without_spaces(text: str) -> str:
    """Return the text without spaces and line ends: the document shows JSON in one line."""
    return "".join(text.split())


class Reader:
    """A developer who does in a project what the document says."""

    def __init__(self, project: Path, server: WebServer) -> None:
        self.project = project
        self.server = server

    def follow(self, blocks: list[Block]) -> None:
        """Write each file, make each change, run each command, and compare its output."""
        for block, following in zip(blocks, [*blocks[1:], Block("", "", "")], strict=True):
            if block.language == "python":
                self.write(block)
            elif block.language == "diff":
                self.change(block)
            elif block.language == "sh" and block.text != SERVER:
                self.run(block.text, shown="" if following.language else following.text)

    def write(self, block: Block) -> None:
        path = self.project / block.path
        assert not path.exists(), path
        path.write_text(block.text, "utf-8")

    def change(self, block: Block) -> None:
        """Replace the lines of each hunk, which are in the file once."""
        (path,) = self.project.glob(block.path.replace("…", "*"))
        for hunk in block.text.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before, after = ("".join(line[1:] or line for line in lines if line[0] != sign) for sign in "+-")
            text = "\n" + path.read_text("utf-8")
            assert text.count("\n" + before) == 1, f"{path}: {before}"
            path.write_text(text.replace("\n" + before, "\n" + after)[1:], "utf-8")

    def run(self, text: str, shown: str) -> None:
        """Run commands; requests, which come last, are repeated until the server has reloaded."""
        local = text.replace(ADDRESS, f"127.0.0.1:{self.server.port}")
        commands, curl, requests = local.partition("curl")
        expected = re.compile(".*".join(map(re.escape, without_spaces(shown).split("…"))))
        before = self.shell(commands)

        def is_printed() -> bool:
            # A request that comes while the server reloads may fail.
            printed = before + (self.shell(f"set +e\n{curl}{requests}\ntrue") if requests else "")
            return expected.search(without_spaces(printed)) is not None

        if requests:
            wait_until(is_printed, f"{text} prints {shown}")
        else:
            assert is_printed(), f"{text} printed {before}"

    def shell(self, commands: str) -> str:
        """Return what the commands print."""
        done = run("sh", "-ec", commands, cwd=self.project, timeout=BOUND, env=ENVIRONMENT)
        return done.stdout + done.stderr


def follow(document: Path, default: Path, folder: Path) -> Path:
    """Return a project in which a document was followed from its first line to its last."""
    project = generate(folder)
    (project / ".venv").symlink_to(default / ".venv")
    blocks = [Block(*found) for found in BLOCK.findall((project / document).read_text("utf-8"))]
    assert blocks[0].text == SERVER
    (project / document).unlink()  # An owner may delete it, and every check passes.
    with serve("make", "dev", cwd=project, log=folder / "log", env=ENVIRONMENT) as server:
        server.wait_until_ready()
        Reader(project, server).follow(blocks)
        assert "Traceback" not in server.log
    return project


@pytest.fixture(scope="module")
def followed(default: Path, workshop: Workshop) -> Path:
    """A project in which the tutorial was followed."""
    return follow(TUTORIAL, default, workshop())


def test_following_the_tutorial_ends_with_a_green_check(followed: Path) -> None:
    """Every command of the tutorial succeeds, `make check` at its end included, and prints what is shown."""
    assert (followed / SOURCE / "books" / "commands.py").exists()


def test_without_eager_loading_the_tutorials_test_fails(followed: Path) -> None:
    """Without `selectinload` a page of books runs a statement for each author, and a test fails."""
    edit(followed / SOURCE / "books" / "service.py", EAGER, "")

    command = (".venv/bin/pytest", "tests/books/test_relation.py")
    failed = run(*command, cwd=followed, timeout=BOUND, env=ENVIRONMENT, status=1)

    assert "assert 4 == 2" in failed.stdout
    assert "1 failed, 1 passed" in failed.stdout


def test_following_the_page_about_authentication(default: Path, workshop: Workshop) -> None:
    """Every command of the page succeeds, `make check` at its end included, and prints what is shown."""
    project = follow(AUTHENTICATION, default, workshop())

    assert (project / SOURCE / "accounts" / "authentication.py").exists()
