"""bin/install of both houses: what it does on machines that lack something, and the second time."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, copy_of_template, generate, path_without, run

PYTHON = Path(sys.executable).resolve()
INSTALLERS = ["pip", "uv"] if shutil.which("uv") else ["pip"]


@pytest.fixture(params=["template", "project"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A template, or a project, that needs a single small package."""
    house = copy_of_template(tmp_path) if request.param == "template" else generate(tmp_path)
    requirements = house / "requirements" / "development.txt"
    pins = (ROOT / "requirements" / "development.txt").read_text()
    found = re.search(r"^iniconfig==.*(?:\n .*)*\n", pins, re.MULTILINE)
    assert found
    requirements.write_text(found[0])
    return house


def path_with_python(tmp_path: Path, script: str) -> str:
    """Return a PATH without uv, on which every Python that is looked for is a script."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    names = re.findall(r"python3[.\d]*\b", (ROOT / "bin" / "install").read_text())
    for name in set(names):
        (stubs / name).write_text(f"#!/bin/sh\n{script}\n")
        (stubs / name).chmod(0o755)
    return f"{stubs}{os.pathsep}{path_without(tmp_path, 'uv', 'uvx')}"


def path_for(installer: str, tmp_path: Path) -> str:
    """Return a PATH on which uv is found, or is not."""
    return os.environ["PATH"] if installer == "uv" else path_without(tmp_path, "uv", "uvx")


def test_an_old_python_is_one_line(house: Path, tmp_path: Path) -> None:
    older = "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])"
    script = f'[ "$1" = --version ] && exec echo Python 3.10.13\nexec {PYTHON} -c "{older}" "$2"'
    path = path_with_python(tmp_path, script)

    done = run("bin/install", cwd=house, status=1, env={"PATH": path})

    assert done.stderr == "install: Python 3.11 or newer is needed, and python3 is Python 3.10.13\n"
    assert not (house / ".venv").exists()


def test_a_missing_venv_module_is_one_line(house: Path, tmp_path: Path) -> None:
    # Debian's python3 without python3-venv leaves half an environment behind.
    script = f'if [ "$2" = venv ]; then mkdir .venv; exit 1; fi; exec {PYTHON} "$@"'

    done = run("bin/install", cwd=house, status=1, env={"PATH": path_with_python(tmp_path, script)})

    *progress, line = done.stderr.splitlines()
    assert line.startswith("install: python3 -m venv does not work here; on Debian and Ubuntu: apt install")
    assert progress == ["install: making .venv"]
    assert not (house / ".venv").exists()


@pytest.mark.parametrize("installer", INSTALLERS)
def test_what_changed_is_installed_and_what_did_not_is_left_alone(
    house: Path, installer: str, tmp_path: Path
) -> None:
    env = {"PATH": path_for(installer, tmp_path)}
    stale = house / ".venv" / ".installed"
    stale.parent.mkdir()
    stale.write_text("of other requirements\n")

    first = run("bin/install", cwd=house, timeout=300, env=env)
    kept = house / ".venv" / "kept"
    kept.touch()
    second = run("bin/install", cwd=house, env=env)

    run(".venv/bin/python", "-c", "import iniconfig", cwd=house)
    assert "install: making .venv\n" in first.stderr
    assert (second.stdout, second.stderr) == ("", "")
    assert kept.exists()


@pytest.mark.parametrize("installer", INSTALLERS)
@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [(r"(sha256:)[0-9a-f]{8}", r"\g<1>00000000"), (r"( \\\n *\S+)+", "")],
    ids=["another hash", "no hash"],
)
def test_a_package_that_is_not_the_one_that_was_pinned_is_refused(
    house: Path, installer: str, pattern: str, replacement: str, tmp_path: Path
) -> None:
    requirements = house / "requirements" / "development.txt"
    requirements.write_text(re.sub(pattern, replacement, requirements.read_text()))

    done = run(
        "bin/install", cwd=house, timeout=300, status=None, env={"PATH": path_for(installer, tmp_path)}
    )

    assert "hash" in done.stderr.lower()
    assert not (house / ".venv" / ".installed").exists()


def test_a_template_that_was_moved_installs_its_tools_again(tmp_path: Path) -> None:
    template = copy_of_template(tmp_path)
    (template / "requirements" / "development.txt").write_text("# nothing\n")
    run("bin/install", cwd=template, timeout=300)

    moved = template.rename(tmp_path / "moved")
    done = run("bin/install", cwd=moved, timeout=300)

    assert done.stderr == "install: making .venv\n"


def test_arguments_of_the_test_command_are_pytests() -> None:
    done = run("bin/test", "--version", cwd=ROOT)

    assert done.stdout.startswith("pytest ")
