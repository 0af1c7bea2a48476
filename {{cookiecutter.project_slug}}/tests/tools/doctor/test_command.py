"""The command: output formats, exit codes, and comments that silence findings."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tools.doctor.command import main

from .samples import FLASK, notebook, write

ROOT = Path(__file__).resolve().parents[3]
BAD = FLASK + "seen = {}\n@app.get('/<name>')\ndef index(name):\n    seen[name] = 1\n\napp.run()\n"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Run the command, and return its exit code and its output."""
    return main([str(argument) for argument in arguments]), capsys.readouterr().out


def run_apart(
    command: list[str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with only this environment."""
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_text_explains_each_rule_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text has a line and the uses per finding, a reason and a fix per rule, and a count."""
    write(tmp_path, {"app.py": BAD + "app.run()\n"})

    code, text = run(capsys, tmp_path)

    assert code == 1
    assert f"{tmp_path}/app.py:3:1: N201 error: requests change the global `seen`\n" in text
    assert f"    used at {tmp_path}/app.py:6:5 in index\n" in text
    assert (text.count(" N301 "), text.count("Why: "), text.count("Fix: ")) == (2, 2, 2)
    assert text.endswith("findings: 3 (files read: 1)\n")
    assert max(map(len, text.replace(str(tmp_path), "").splitlines())) <= 110


def test_json_is_one_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON is a list of findings with every field; without findings it is empty."""
    write(tmp_path, {"app.py": BAD, "good/app.py": FLASK})

    code, text = run(capsys, tmp_path / "app.py", "--format", "json")
    first, second = json.loads(text)

    assert code == 1
    assert (first["rule"], first["level"], first["object"], first["line"]) == ("N201", "error", "seen", 3)
    assert (first["cell"], first["column"], first["path"]) == (None, 1, f"{tmp_path}/app.py")
    assert [(use["line"], use["where"]) for use in first["uses"]] == [(6, "index")]
    assert first["why"]
    assert first["fix"]
    assert second["rule"] == "N301"
    assert run(capsys, tmp_path / "good", "--format", "json") == (0, "[]\n")


def test_a_fingerprint_survives_a_move(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding keeps its fingerprint when its line moves, and each finding has its own."""
    write(tmp_path, {"app.py": BAD})
    before = json.loads(run(capsys, tmp_path, "--format", "json")[1])
    write(tmp_path, {"app.py": "# moved\n\n" + BAD})
    after = json.loads(run(capsys, tmp_path, "--format", "json")[1])

    assert [item["fingerprint"] for item in before] == [item["fingerprint"] for item in after]
    assert len({item["fingerprint"] for item in before}) == len(before)


def test_sarif_has_rules_results_and_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The SARIF log has the fields that code scanning needs, and every result refers to a rule in it."""
    write(tmp_path, {"app.py": BAD, "a.ipynb": notebook(FLASK, "app.run()")})

    code, text = run(capsys, tmp_path, "--format", "sarif")
    log = json.loads(text)
    (sarif,) = log["runs"]

    assert (code, log["version"]) == (1, "2.1.0")
    rules = {rule["id"] for rule in sarif["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in sarif["results"]} <= rules
    for result in sarif["results"]:
        assert result["level"] in {"error", "warning", "note"}
        assert result["locations"][0]["physicalLocation"]["region"]["startLine"] >= 1
        assert result["partialFingerprints"]
    assert any("(cell 2)" in result["message"]["text"] for result in sarif["results"])


def test_github_gets_an_annotation_for_each_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each finding is one line with level, file, line and title, whatever its text contains."""
    write(tmp_path, {"app.py": BAD, "a%b/app.py": FLASK + "app.run()\n"})

    code, text = run(capsys, tmp_path, "--format", "github")

    assert code == 1
    assert f"::error file={tmp_path}/app.py,line=3,col=1,title=N201::requests change" in text
    assert "a%25b/app.py" in text
    assert all(line.startswith("::error ") for line in text.splitlines())


@pytest.mark.parametrize(
    ("comment", "silent"),
    [
        ("# doctor: ignore[N201] -- bounded, and each worker may have its own", True),
        ("# doctor: ignore[N101, N201] -- bounded", True),
        ("# noqa: E501  # doctor: ignore[N201] -- bounded", True),
        ("# doctor: ignore[N201]", False),
        ("# doctor: ignore[N201] --", False),
        ("# doctor: ignore[N101] -- another rule", False),
        ("# doctor: ignore -- no rule", False),
    ],
)
@pytest.mark.parametrize("above", [False, True], ids=["on the line", "above it"])
def test_a_comment_silences_with_a_reason(
    comment: str, silent: bool, above: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comment with a reason silences the rules that it names, on its line or the next."""
    line = f"{comment}\nseen = dict()" if above else f"seen = dict()  {comment}"
    write(tmp_path, {"app.py": BAD.replace("seen = {}", line).replace("app.run()\n", "")})

    code, text = run(capsys, tmp_path)

    assert code == (0 if silent else 1)
    if comment == "# doctor: ignore[N201]":
        assert "the ignore comment needs a reason" in text


def test_a_comment_in_a_string_silences_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of a comment inside a string silences nothing."""
    text = "x = '# doctor: ignore[N301] -- reason'; app.run()\n"
    write(tmp_path, {"app.py": FLASK + text})

    assert run(capsys, tmp_path)[0] == 1


def test_a_cell_can_be_silenced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A comment silences a line of a cell."""
    cell = "%matplotlib inline\napp.run()  # doctor: ignore[N301] -- the lesson shows it"
    write(tmp_path, {"a.ipynb": notebook(FLASK, cell)})

    assert run(capsys, tmp_path)[0] == 0


WRONG: list[list[str]] = [
    [],
    ["nope.py"],
    ["Makefile"],
    ["--nope", "."],
    ["--format", "xml", "."],
    ["--explain", "N999"],
    ["--prove", "postgresql://", "."],
    ["--explain", "N301", "--prove", "postgresql://"],
    ["--explain", "N103", "--prove", "sqlite://"],
]


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_argument_ends_with_2(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing path, a path without code, an unknown option and an unknown proof exit with 2."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2


SETTING = '{"name": "TRUSTED_HOSTS", "problem": "is not set", "fix": "set it"}'


@pytest.mark.parametrize(
    ("finding", "status", "expected"),
    [("", 0, 0), (SETTING, 1, 1), ("", 78, 78)],
    ids=["good", "bad", "none"],
)
def test_findings_about_settings_are_joined(finding: str, status: int, expected: int, tmp_path: Path) -> None:
    """A module's findings precede those about code; without findings its exit code is used."""
    (tmp_path / "checks.py").write_text(f"import sys\nprint({f'[{finding}]'!r})\nsys.exit({status})\n")
    write(tmp_path, {"app.py": FLASK})
    command = [
        sys.executable,
        "-B",
        str(ROOT / "tools" / "doctor"),
        "--deployment",
        "checks",
        "app.py",
        "--format",
    ]

    for form in ("json", "text", "sarif", "github"):
        done = run_apart([*command, form], tmp_path, {"PYTHONPATH": "."})
        assert (done.returncode, done.stderr) == (expected, "")
        assert ("TRUSTED_HOSTS" in done.stdout) == bool(finding)
        if status == 78:
            assert done.stdout == ""


def test_the_folder_runs_alone(tmp_path: Path) -> None:
    """A copy of the folder elsewhere needs only Python: it runs as a folder and as a module."""
    (tmp_path / "elsewhere").symlink_to(ROOT / "tools")
    write(tmp_path, {"code/app.py": BAD})
    ways: dict[str, dict[str, str]] = {"elsewhere/doctor": {}, "-mdoctor": {"PYTHONPATH": "elsewhere"}}

    for way, environment in ways.items():
        done = run_apart([sys.executable, "-SB", way, "code", "--format", "json"], tmp_path, environment)
        assert (done.returncode, done.stderr) == (1, "")
        assert [finding["path"] for finding in json.loads(done.stdout)] == ["code/app.py"] * 2


def test_the_folder_imports_nothing_else() -> None:
    """The modules import the standard library and each other; two of them run Flask and SQLAlchemy."""
    for path in (ROOT / "tools" / "doctor").rglob("*.py"):
        allowed = sys.stdlib_module_names | (
            {"flask", "sqlalchemy"} if path.name in {"proofs.py", "recorder.py"} else set()
        )
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            assert {name.partition(".")[0] for name in names} <= allowed, path
