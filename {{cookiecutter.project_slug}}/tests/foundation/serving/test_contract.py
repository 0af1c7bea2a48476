"""The file openapi.json matches the API, or the check shows the difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from {{cookiecutter.package_name}}.foundation.serving import contract

from ..databases import Databases
from ..fixtures import make_settings
from ..sample.app import create_app


@pytest.fixture(autouse=True)
def sample_project(own_databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the program on the sample service, in an empty folder."""
    settings = make_settings(own_databases.sampled())
    monkeypatch.setattr(contract, "load_settings", lambda: settings)
    monkeypatch.setattr(contract, "create_app", create_app)
    monkeypatch.chdir(tmp_path)


def test_the_file_has_the_document() -> None:
    """The file contains the document, and the check then finds no difference."""
    assert contract.main() == 0

    assert "/samples/{sample_id}" in json.loads(Path("openapi.json").read_text())["paths"]
    assert contract.main("--check") == 0


def test_a_change_of_the_api_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A document that differs from the file is an error that shows the difference, and changes nothing."""
    contract.main()
    file = Path("openapi.json")
    changed = file.read_text().replace('"/samples"', '"/others"')
    file.write_text(changed)

    assert contract.main("--check") == 1

    printed = capsys.readouterr().out
    assert '-    "/others": {\n+    "/samples": {\n' in printed
    assert "make openapi" in printed
    assert file.read_text() == changed


def test_without_a_file_nothing_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """A project without the file has nothing to compare."""
    assert contract.main("--check") == 0
    assert capsys.readouterr().out == ""
