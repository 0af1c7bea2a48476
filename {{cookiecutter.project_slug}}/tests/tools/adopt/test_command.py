"""The command: exit codes, errors, and new files, which are written all or none."""

import subprocess
import sys
from pathlib import Path

import pytest
from tools.adopt.command import main

from ..doctor.samples import notebook, write
from .samples import SAMPLES

ROOT = Path(__file__).resolve().parents[3]
PROJECT = {
    "pyproject.toml": '[project]\nname = "p"\ndependencies = ["flask>=3"]\n',
    "src/shop/app.py": "FEATURES: list[str] = []\n",
    "src/shop/orders/views.py": 'from flask import Blueprint\n\nbp = Blueprint("sales", __name__)\n',
    "src/shop/files.py": "",
    "tests/carts/__init__.py": "",
    "docs/adopting-old.md": "",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project and a notebook."""
    write(tmp_path / "project", PROJECT)
    write(tmp_path, {"churn.ipynb": notebook(*SAMPLES["churn"]), "notes.txt": "", "lost.ipynb": "[]"})
    write(tmp_path, {"no.ipynb": "no JSON", "list.py": "", "bad.py": "x = (\n"})
    return tmp_path / "project"


def contents(folder: Path) -> dict[str, str]:
    """Return the files of a folder."""
    return {str(path): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


WRONG = {
    "": "NOTEBOOK is missing",
    "nope.ipynb": "does not exist",
    ".": "is no file",
    "notes.txt": "is neither a .py file nor an .ipynb file",
    "no.ipynb": "is neither a notebook nor a Python file",
    "lost.ipynb": "is neither a notebook nor a Python file",
    "churn.ipynb --name=Churn": "is not a valid name",
    "churn.ipynb --name=../churn": "is not a valid name",
    "churn.ipynb --name=" + "a" * 41: "is not a valid name",
    "churn.ipynb --name=class": "is reserved",
    "churn.ipynb --name=views": "is reserved",
    "list.py": "is reserved",
    "churn.ipynb --name=orders": "src/shop/orders exists: choose another NAME",
    "churn.ipynb --name=files": "src/shop/files.py exists: choose another NAME",
    "churn.ipynb --name=carts": "tests/carts exists: choose another NAME",
    "churn.ipynb --name=old": "docs/adopting-old.md exists: choose another NAME",
    "churn.ipynb --name=sales": "has a blueprint sales: choose another NAME",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_argument_ends_with_2(
    arguments: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invalid usage exits with 2 and one line with the reason; nothing is written or changed."""
    monkeypatch.chdir(project.parent)
    before = contents(project)

    with pytest.raises(SystemExit) as ended:
        main([*arguments.split(), "--write", "--root", "project"])

    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("adopt: error: ")
    assert WRONG[arguments] in last
    assert contents(project) == before


def test_a_plan_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --write the plan is printed with exit code 0, and nothing is written."""
    before = contents(project)

    assert main([str(project.parent / "churn.ipynb"), "--root", str(project)]) == 0

    assert "views moved: 1 of 1" in capsys.readouterr().out
    assert contents(project) == before


@pytest.mark.parametrize("fails_at", range(5))
def test_a_failed_write_leaves_nothing(
    fails_at: int, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a write fails after some files, they are removed, and the command exits with 1 and one line."""
    before, original = contents(project), Path.write_text
    written: list[Path] = []

    def write_text(path: Path, text: str, *rest: str) -> int:
        if len(written) == fails_at:
            raise OSError("the disk is full")
        written.append(path)
        return original(path, text, *rest)

    monkeypatch.setattr(Path, "write_text", write_text)

    assert main([str(project.parent / "churn.ipynb"), "--write", "--root", str(project)]) == 1

    assert capsys.readouterr().err == "adopt: nothing was written: the disk is full\n"
    assert contents(project) == before
    assert not (project / "src" / "shop" / "churn").exists()


def test_a_failed_tool_leaves_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a tool fails, the written files are removed, and its error is the one line."""
    before = contents(project)

    def fail(*_arguments: object, **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 2, "", "no ruff")

    monkeypatch.setattr(subprocess, "run", fail)

    assert main([str(project.parent / "churn.ipynb"), "--write", "--root", str(project)]) == 1

    assert "ruff failed: no ruff" in capsys.readouterr().err
    assert contents(project) == before


def test_the_folder_runs_with_python_alone(project: Path) -> None:
    """The plan needs no package: `python -S tools/adopt` prints it."""
    command = [sys.executable, "-SB", str(ROOT / "tools" / "adopt"), "../churn.ipynb"]

    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "docs/adopting-churn.md" in done.stdout


def test_the_name_comes_from_the_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The feature is named for the file, in lower case with underscores."""
    write(project.parent, {"My Model-2.py": "def f(x):\n    return x\n"})

    assert main([str(project.parent / "My Model-2.py"), "--root", str(project)]) == 0

    out = capsys.readouterr().out
    assert "src/shop/my_model_2/service.py" in out
