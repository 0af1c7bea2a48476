"""bin/install of the template and of a project: missing prerequisites, updates, concurrent runs."""

from __future__ import annotations

import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import BOUND, RAW, ROOT, copy_of_template, generate, path_without
from .processes import run

PYTHON = Path(sys.executable).resolve()
INSTALLERS = ["pip", "uv"] if shutil.which("uv") else ["pip"]


@pytest.fixture(params=["template", "project"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A template, or a project, that needs a single small package."""
    house = copy_of_template(tmp_path) if request.param == "template" else generate(tmp_path)
    (house / "requirements" / "development.txt").write_text(pin_of("iniconfig"))
    (house / "requirements" / "production.txt").write_text("")
    return house


def pin_of(package: str) -> str:
    """Return the lines that pin a package which needs no other."""
    pins = (ROOT / "requirements" / "development.txt").read_text()
    found = re.search(rf"^{package}==.*(?:\n .*)*\n", pins, re.MULTILINE)
    assert found
    return found[0]


def packages_in(house: Path) -> set[str]:
    """Return the packages of an environment, except the installer."""
    program = "import importlib.metadata as m; print(*{d.metadata['Name'] for d in m.distributions()})"
    found = run(".venv/bin/python", "-c", program, cwd=house).stdout.split()
    return set(found) - {"pip", "setuptools"}


def path_with_python(tmp_path: Path, script: str) -> str:
    """Return a PATH without uv, on which every Python that bin/install looks for is a script."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    names = re.findall(r"python3[.\d]*\b", (ROOT / "bin" / "install").read_text())
    for name in set(names):
        (stubs / name).write_text(f"#!/bin/sh\n{script}\n")
        (stubs / name).chmod(0o755)
    return f"{stubs}{os.pathsep}{path_without(tmp_path, 'uv', 'uvx')}"


def path_for(installer: str, tmp_path: Path) -> str:
    """Return a PATH with uv, or one without."""
    return os.environ["PATH"] if installer == "uv" else path_without(tmp_path, "uv", "uvx")


def test_an_old_python_is_one_line(house: Path, tmp_path: Path) -> None:
    """An old Python ends the installation with one line and without an environment."""
    older = "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])"
    script = f'[ "$1" = --version ] && exec echo Python 3.10.13\nexec {PYTHON} -c "{older}" "$2"'
    path = path_with_python(tmp_path, script)

    done = run("bin/install", cwd=house, status=1, env={"PATH": path})

    assert done.stderr == "install: Python 3.11 or newer is needed, and python3 is Python 3.10.13\n"
    assert not (house / ".venv").exists()


def test_a_missing_venv_module_is_one_line(house: Path, tmp_path: Path) -> None:
    """A missing venv module ends the installation with one line and without half an environment."""
    # Debian's python3 without python3-venv leaves half an environment behind.
    script = f'if [ "$2" = venv ]; then mkdir .venv; exit 1; fi; exec {PYTHON} "$@"'

    done = run("bin/install", cwd=house, status=1, env={"PATH": path_with_python(tmp_path, script)})

    *progress, line = done.stderr.splitlines()
    assert line.startswith("install: python3 -m venv does not work here; on Debian and Ubuntu: apt install")
    assert progress == ["install: making .venv"]
    assert not (house / ".venv").exists()


@pytest.mark.parametrize("installer", INSTALLERS)
def test_only_changed_requirements_are_installed(house: Path, installer: str, tmp_path: Path) -> None:
    """Changed requirements are installed; unchanged ones cause no output."""
    env = {"PATH": path_for(installer, tmp_path)}
    stale = house / ".venv" / ".installed"
    stale.parent.mkdir()
    stale.write_text("of other requirements\n")

    first = run("bin/install", cwd=house, timeout=BOUND, env=env)
    kept = house / ".venv" / "kept"
    kept.touch()
    second = run("bin/install", cwd=house, env=env)

    run(".venv/bin/python", "-c", "import iniconfig", cwd=house)
    assert "install: making .venv\n" in first.stderr
    assert (second.stdout, second.stderr) == ("", "")
    assert kept.exists()


@pytest.mark.parametrize("installer", INSTALLERS)
def test_an_environment_is_brought_up_to_date(house: Path, installer: str, tmp_path: Path) -> None:
    """A changed file adds, keeps and removes packages in the existing environment."""
    env = {"PATH": path_for(installer, tmp_path)}
    requirements = house / "requirements" / "development.txt"
    run("bin/install", cwd=house, timeout=BOUND, env=env)
    (house / ".venv" / "kept").touch()

    requirements.write_text(pin_of("iniconfig") + pin_of("pluggy"))
    grown = run("bin/install", cwd=house, timeout=BOUND, env=env)
    after_growing = packages_in(house)
    requirements.write_text(pin_of("pluggy"))
    run("bin/install", cwd=house, timeout=BOUND, env=env)

    assert "install: bringing .venv up to date\n" in grown.stderr
    assert (after_growing, packages_in(house)) == ({"iniconfig", "pluggy"}, {"pluggy"})
    assert (house / ".venv" / "kept").exists()


def test_two_installs_at_the_same_time_make_one_environment(house: Path) -> None:
    """Of two concurrent installs one works; the other waits, and finds nothing left to do."""
    with ThreadPoolExecutor() as threads:
        runs = [threads.submit(run, "bin/install", cwd=house, timeout=BOUND) for _ in range(4)]

    made = [done.result().stderr.count("install: making .venv") for done in runs]
    assert sorted(made) == [0, 0, 0, 1]
    assert packages_in(house) == {"iniconfig"}


def test_production_requirements_alone_can_be_installed(house: Path) -> None:
    """The production requirements are installed alone, and are not all that a later install needs."""
    (house / "requirements" / "production.txt").write_text(pin_of("pluggy"))
    (house / "requirements" / "development.txt").write_text(pin_of("pluggy") + pin_of("iniconfig"))

    run("bin/install", "production", cwd=house, timeout=BOUND)
    alone = packages_in(house)
    run("bin/install", cwd=house, timeout=BOUND)
    again = run("bin/install", "production", cwd=house)

    assert (alone, packages_in(house)) == ({"pluggy"}, {"pluggy", "iniconfig"})
    assert again.stderr == ""


@pytest.mark.parametrize("installer", INSTALLERS)
@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [(r"(sha256:)[0-9a-f]{8}", r"\g<1>00000000"), (r"( \\\n *\S+)+", "")],
    ids=["another hash", "no hash"],
)
def test_a_package_without_its_pinned_hash_is_refused(
    house: Path, installer: str, pattern: str, replacement: str, tmp_path: Path
) -> None:
    """A package with a missing or different hash is rejected."""
    requirements = house / "requirements" / "development.txt"
    requirements.write_text(re.sub(pattern, replacement, requirements.read_text()))

    done = run(
        "bin/install", cwd=house, timeout=BOUND, status=None, env={"PATH": path_for(installer, tmp_path)}
    )

    assert "hash" in done.stderr.lower()
    assert not (house / ".venv" / ".installed").exists()


def test_a_folder_that_was_moved_gets_a_new_environment(house: Path, tmp_path: Path) -> None:
    """An environment records its path, so a moved one is recreated; an existing .env is kept."""
    (house / "requirements" / "development.txt").write_text("# nothing\n")
    run("bin/install", cwd=house, timeout=BOUND)

    moved = house.rename(tmp_path / "moved")
    done = run("bin/install", cwd=moved, timeout=BOUND)

    assert done.stderr == "install: making .venv\n"


@pytest.mark.parametrize(
    ("text", "is_filled"),
    [(None, True), ("A=1\nSECRET_KEY=\n", True), ("SECRET_KEY=mine\n", False), ("A=1\n", False)],
)
def test_a_missing_key_is_made(text: str | None, is_filled: bool, house: Path) -> None:
    """Without .env, or with an empty key in it, the installation makes a key; it changes no other .env."""
    (house / "requirements" / "development.txt").write_text("# nothing\n")
    (house / ".env.example").write_text("A=1\nSECRET_KEY=\n")
    if text is not None:
        (house / ".env").write_text(text)

    for _ in range(2):
        run("bin/install", cwd=house, timeout=BOUND)

    found = (house / ".env").read_text()
    assert bool(re.fullmatch(r"A=1\nSECRET_KEY=[\w-]{64}\n", found)) is is_filled
    assert is_filled or found == text


def test_arguments_of_the_test_command_are_pytests() -> None:
    """The test command passes its arguments to pytest."""
    done = run("bin/test", "--version", cwd=ROOT)

    assert done.stdout.startswith("pytest ")


def test_the_callers_search_path_leads_nowhere(house: Path, tmp_path: Path) -> None:
    """With CDPATH in the caller's environment, the installation changes no other folder."""
    home = tmp_path / "home"
    for name in ("bin", "requirements", ".venv"):
        (home / name).mkdir(parents=True)
    (home / ".env.example").write_text("KEPT=1\n")
    before = sorted(home.rglob("*"))

    run("bin/install", cwd=house, timeout=BOUND, env={"CDPATH": str(home)})

    assert sorted(home.rglob("*")) == before
    assert packages_in(house) == {"iniconfig"}


def elsewhere_of(installer: str, folder: Path) -> dict[str, str]:
    """Return variables of a caller who puts packages into a folder, or into no environment."""
    if installer == "uv":
        return {"UV_SYSTEM_PYTHON": "1"}
    places = {"PIP_PREFIX": str(folder), "PIP_ROOT": str(folder), "PIP_TARGET": str(folder)}
    return places | {"PIP_USER": "1", "PYTHONHOME": str(folder)}


@pytest.mark.parametrize("installer", INSTALLERS)
def test_the_callers_places_for_packages_are_not_taken(house: Path, tmp_path: Path, installer: str) -> None:
    """Variables that lead pip or uv elsewhere do not change where the installation puts packages."""
    folder = tmp_path / "elsewhere"
    env = {"PATH": path_for(installer, tmp_path)} | elsewhere_of(installer, folder)

    run("bin/install", cwd=house, timeout=BOUND, env=env)

    assert packages_in(house) == {"iniconfig"}
    assert not folder.exists()


def test_a_configuration_that_puts_packages_elsewhere_is_named(house: Path, tmp_path: Path) -> None:
    """When pip's configuration puts packages elsewhere, the installation fails with that reason."""
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[install]\ntarget = {tmp_path / 'elsewhere'}\n")
    env = {"PATH": path_for("pip", tmp_path), "PIP_CONFIG_FILE": str(configuration)}

    failed = run("bin/install", cwd=house, timeout=BOUND, env=env, status=1)

    assert "pip has put the packages elsewhere; see: python3 -m pip config list" in failed.stderr


def test_options_of_make_come_from_the_command_line_alone(tmp_path: Path) -> None:
    """A variable of the caller's environment that has the name of an option changes no command."""
    project = generate(tmp_path)
    options = re.findall(
        r"[A-Z]+", re.findall(r"^OPTIONS = (.*)$", (project / "Makefile").read_text(), re.MULTILINE)[0]
    )
    rules = ("cli", "dev", "doctor", "downgrade")
    env = dict.fromkeys(options, "of-another-program")

    plain = run("make", "--dry-run", *rules, cwd=project).stdout

    assert run("make", "--dry-run", *rules, cwd=project, env=env).stdout == plain
    given = [f"{name}={value}" for name, value in env.items()]
    assert "of-another-program" in run("make", "--dry-run", *rules, *given, cwd=project).stdout


SCRIPTS = [ROOT / ".ci" / "run", *(ROOT / "bin").iterdir(), *(RAW / "bin").iterdir()]


@pytest.mark.parametrize(
    "script",
    [script for script in SCRIPTS if script.is_file()],
    ids=lambda path: f"{path.parents[1].name}-{path.name}",
)
def test_no_script_searches_for_its_folder(script: Path) -> None:
    """A shell script that changes its folder ignores CDPATH."""
    text = script.read_text("utf-8")
    if text.startswith("#!/bin/sh") and re.search(r"\bcd ", text):
        assert "unset CDPATH" in text.partition("cd ")[0]
