"""Every answer yields a working project, or is rejected in one line without writing a file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cookiecutter.cli import main
from cookiecutter.main import cookiecutter

import local_extensions

from .conftest import ROOT, Bake, copy_of_template, generate
from .contents import check_no_jinja, check_syntax, tree
from .processes import clean_environment, run

DEFAULTS = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
QUESTIONS = {name: default for name, default in DEFAULTS.items() if not name.startswith("_")}
CHOICES = {name: words for name, words in QUESTIONS.items() if isinstance(words, list)}
TEXTS = ("project_name", "description", "author")
NAMES = ("project_slug", "package_name")
PROMPTS = DEFAULTS["__prompts__"]

# Every text question accepts these.
PLAIN = {
    "double quotes": 'so "called"',
    "single quotes": "it's",
    "three double quotes": '"""',
    "three single quotes": "'''",
    "backslash": "C:\\new\\table",
    "backslash at the end": "ends with \\",
    "shell variable": "${HOME}",
    "backticks": "`id`",
    "command substitution": "$(id)",
    "percent s": "%s",
    "percent d": "100%d",
    "parent folder": "../evil",
    "absolute path": "/abs",
    "dot": ".",
    "two dots": "..",
    "leading space": " first",
    "trailing space": "last ",
    "emoji": "rocket \N{ROCKET}",
    "emoji of several": "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}",
    "hebrew": "שלום",
    "persian with its joiner": "علی\N{ZERO WIDTH NON-JOINER}رضا",
    "combining": "e\N{COMBINING ACUTE ACCENT}",
    "outside the basic plane": "\N{MATHEMATICAL FRAKTUR CAPITAL U}",
    "no-break space": "a\N{NO-BREAK SPACE}b",
    "keyword": "class",
    "soft keyword": "match",
    "none": "None",
    "true": "true",
    "number": "5",
    "module of python": "logging",
    "dependency": "sqlalchemy",
    "folder": "tests",
    "40 letters": "a" * 40,
    "41 letters": "a" * 41,
    "digits first": "1st",
    "upper case": "UPPER",
    "hyphens at the ends": "-x-",
    "underscores at the ends": "_x_",
    "reserved on windows": "con",
    "html": "<script>alert(1)</script>",
    "entity": "a & b &amp; c",
    "toml": "a = 1",
    "yaml": "key: value",
    "yaml tag": "!!python/none",
    "yaml list": "- x",
    "comment": "# x",
    "section": "[x]",
    "ini comment": "; x",
    "closing braces": "a }} %} #} b",
    "line statement in the middle": "100 #% of it",
}
# No question accepts these.
REFUSED = {
    "empty": "",
    "spaces": "   ",
    "newline": "two\nlines",
    "newline at the end": "line\n",
    "carriage return": "two\rlines",
    "tab": "a\tb",
    "nul": "a\0b",
    "escape": "\x1b[31mred",
    "delete": "a\x7fb",
    "next line": "a\x85b",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "byte order mark": "\ufeffa",
    "right-to-left override": "a\u202eb",
    "zero width space": "a\u200bb",
    "lone surrogate": "a\ud800b",
    "expression": "{{ 1 }}",
    "context": "{{ cookiecutter }}",
    "open braces": "{{",
    "raw block": "{% raw %}",
    "comment of the template": "{#",
    "line statement": "#% if true",
    "indented line statement": "  #% endif",
    "201 letters": "a" * 201,
}
NO_NAMES = {**PLAIN, **REFUSED, "200 letters": "a" * 200, "trailing hyphen": "a-", "two hyphens": "a--b"}
GOOD_NAMES = {
    "project_slug": {
        "keyword": "class",
        "soft keyword": "match",
        "module of python": "logging",
        "40 letters": "a" * 40,
        "digits first": "1st",
        "reserved on windows": "con",
        "the example's": "notes",
        "folder": "tests",
        "another folder": "src",
        "tests of python": "test",
        "with a hyphen": "a-1",
        "true": "true",
        "number": "5",
    },
    "package_name": {
        "40 letters": "a" * 40,
        "reserved on windows": "con",
        "the example's": "notes",
        "with an underscore": "a_1",
        "true": "true",
        "a module's of ours": "app",
    },
}
BAD_NAMES = {
    field: {
        label: text
        for label, text in {**NO_NAMES, "flask": "flask", "test": "test", "src": "src"}.items()
        if text not in GOOD_NAMES[field].values()
    }
    for field in NAMES
}
BAD_ANSWERS = [
    *((field, label, text) for field in TEXTS for label, text in REFUSED.items()),
    *((field, label, text) for field in NAMES for label, text in BAD_NAMES[field].items()),
    ("project_name", "61 letters", "a" * 61),
    ("author", "101 letters", "a" * 101),
]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_the_next_two_commands_are_printed(tmp_path: Path, elsewhere: bool) -> None:
    """A new project prints the two commands that come next, with a path that the shell can use."""
    home, target = tmp_path / "home", tmp_path / "an \N{ROCKET}"
    target.mkdir()
    started_in = home if elsewhere else target
    started_in.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--no-input", "--output-dir", str(target)]
    env = {"HOME": str(home), "PWD": str(started_in), "LC_ALL": "C", "PYTHONUTF8": "0"}

    done = run(*command, cwd=started_in, env=env)

    shown = f"'{target}/notes-service'" if elsewhere else "notes-service"
    assert done.stdout == f"\nNext:\n\n  cd {shown}\n  make serve    # http://127.0.0.1:8000\n\n"


def ask(folder: Path, *arguments: str, typed: str | None = None, hooks: bool = True) -> Result:
    """Run `cookiecutter` as its user does, with answers as arguments, or typed in."""
    config = folder / "config.yml"
    config.write_text(f"replay_dir: {folder / 'replay'}\n")
    options = ["--config-file", str(config), "--output-dir", str(folder / "out")]
    options += ["--accept-hooks", "yes" if hooks else "no"]
    options += ["--no-input"] if typed is None else []
    return CliRunner().invoke(main, [str(ROOT), *arguments, *options], input=typed)


def typed_answers(**answers: str) -> str:
    """Return what is typed to give some answers, and to leave the others as they are."""
    return "".join(answers.get(name, "") + "\n" for name in QUESTIONS)


def assert_refused(result: Result, folder: Path, field: str) -> None:
    """Check that the answer was refused in one line that names the question, before anything was written."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    # Prompts, when there are any, stand before it on the same line.
    assert re.search(rf"(^|: ){field}: [^\n]*; what works is [^\n]*\n\Z", result.output), result.output
    assert "Traceback" not in result.output
    assert [path.name for path in folder.iterdir()] == ["config.yml"]


@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "no hooks"])
@pytest.mark.parametrize(
    ("field", "answer"),
    [pytest.param(field, text, id=f"{field}-{label}") for field, label, text in BAD_ANSWERS],
)
def test_a_bad_answer_is_refused_in_one_line_and_leaves_nothing(
    field: str, answer: str, hooks: bool, tmp_path: Path
) -> None:
    """A bad argument exits 1 with one line that names its question, and no file is written, hooks or not."""
    result = ask(tmp_path, f"{field}={answer}", hooks=hooks)

    assert_refused(result, tmp_path, field)
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "no hooks"])
@pytest.mark.parametrize(
    ("field", "answer"),
    [
        pytest.param(field, text, id=f"{field}-{label}")
        for field, label, text in BAD_ANSWERS
        # A line ends what is typed, spaces around it are dropped, and nothing is the default.
        if not re.search(r"[\n\r]", text) and text == text.strip() != ""
        # The runner cannot type an incomplete character.
        if "\ud800" not in text
    ],
)
def test_a_bad_answer_that_is_typed_is_refused_too(
    field: str, answer: str, hooks: bool, tmp_path: Path
) -> None:
    """A bad typed answer exits 1, its error names the question, and no file is written, hooks or not."""
    result = ask(tmp_path, typed=typed_answers(**{field: answer}), hooks=hooks)

    assert_refused(result, tmp_path, field)


def test_the_program_itself_refuses_bytes_that_are_no_text(tmp_path: Path) -> None:
    """The cookiecutter command exits 1 with one line for an argument of invalid UTF-8, and writes no file."""
    command: list[str | bytes | Path] = [
        Path(sys.executable).with_name("cookiecutter"),
        ROOT,
        b"author=\xff",
        "--no-input",
    ]
    environment = clean_environment() | {"HOME": str(tmp_path)}

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60)

    assert done.returncode == 1
    assert done.stdout.startswith(b"author: ")
    assert (done.stdout + done.stderr).count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_later_versions_sources_are_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later cookiecutter.json is rendered even if `cruft update` checks it out after loading the module."""
    template = copy_of_template(tmp_path)
    monkeypatch.setattr(local_extensions, "HERE", template)
    about = (template / "cookiecutter.json").read_text("utf-8")
    changed = about.replace("cookiecutter.description | quoted", "cookiecutter.description | upper | quoted")
    (template / "cookiecutter.json").write_text(changed, "utf-8")

    project = cookiecutter(
        str(template),
        no_input=True,
        default_config={"replay_dir": str(tmp_path / "replay")},
        output_dir=str(tmp_path / "out"),
    )

    written = tomllib.loads((Path(project) / "pyproject.toml").read_text("utf-8"))["project"]
    assert written["description"] == DEFAULTS["description"].upper()


@pytest.mark.parametrize("given", [True, False], ids=["given", "typed"])
@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN.keys())
def test_any_other_text_arrives_as_it_was_written(text: str, given: bool, tmp_path: Path) -> None:
    """Other text reaches pyproject.toml unchanged (a prompt strips outer spaces), and every file parses."""
    answers = {**dict.fromkeys(TEXTS, text), "project_slug": "here"}

    if given:
        result = ask(tmp_path, *(f"{name}={answer}" for name, answer in answers.items()))
    else:
        # A prompt strips the spaces around an answer.
        text = text.strip()
        result = ask(tmp_path, typed=typed_answers(**answers), hooks=False)

    assert result.exit_code == 0, result.output
    project = tmp_path / "out" / "here"
    check_syntax(project)
    about = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert about["description"] == text
    assert about["authors"] == [{"name": text}]


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN.keys())
def test_the_readme_says_what_the_service_is_called_and_does(text: str, tmp_path: Path) -> None:
    """The README begins with the project's name as a heading and contains the description, unchanged."""
    project = generate(
        tmp_path, {"project_name": text, "project_slug": "here", "description": f"It does {text}"}
    )

    readme = (project / "README.md").read_text("utf-8")
    assert re.match(re.escape(f"# {text}\n"), readme)
    assert f"It does {text}" in readme


@pytest.mark.parametrize(
    ("field", "name"),
    [
        pytest.param(field, name, id=f"{field}-{label}")
        for field in NAMES
        for label, name in GOOD_NAMES[field].items()
    ],
)
def test_a_good_name_makes_a_project(field: str, name: str, tmp_path: Path) -> None:
    """A valid slug or package name yields a project whose files parse and contain no template syntax."""
    result = ask(tmp_path, f"{field}={name}")

    assert result.exit_code == 0, result.output
    (project,) = (tmp_path / "out").iterdir()
    check_syntax(project)
    check_no_jinja(project)


@pytest.mark.parametrize(
    ("project_name", "slug", "package"),
    [
        ("Notes Service", "notes-service", "notes_service"),
        ("Größe & Maß", "grosse-mass", "grosse_mass"),
        ("שלום", "shlvm", "shlvm"),
        ("2048", "2048", "service_2048"),
        ("Class", "class", "service_class"),
        ("Logging", "logging", "service_logging"),
        ("Test", "test", "service_test"),
        ("Tests", "tests", "service_tests"),
        ("a" * 60, "a" * 40, "a" * 40),
        ("2" * 60, "2" * 40, "service_" + "2" * 32),
        ("many " * 12, "many-many-many-many-many-many-many-many", "many_many_many_many_many_many_many_many"),
    ],
)
def test_names_follow_from_the_name_of_the_project(
    project_name: str, slug: str, package: str, tmp_path: Path
) -> None:
    """The default slug and package name derive from the project name, transliterated and truncated."""
    project = generate(tmp_path, {"project_name": project_name})

    assert project.name == slug
    assert [path.name for path in (project / "src").iterdir()] == [package]


@pytest.mark.parametrize("project_name", ["\N{ROCKET}", "!?", "Flask"])
def test_where_no_folder_follows_from_the_name_one_is_asked_for(project_name: str, tmp_path: Path) -> None:
    """A project name without a usable slug is refused with an error for project_slug; no file is written."""
    result = ask(tmp_path, f"project_name={project_name}")

    assert_refused(result, tmp_path, "project_slug")


def test_no_project_is_called_like_what_it_depends_on(bake: Bake) -> None:
    """The name of every pinned dependency is refused as a slug and as a package name."""
    pins = (bake() / "requirements" / "development.txt").read_text()
    for name in re.findall(r"^([a-z0-9-]+)==", pins, re.MULTILINE):
        for field, answer in (("project_slug", name), ("package_name", name.replace("-", "_"))):
            with pytest.raises(local_extensions.BadAnswer, match=f"^{field}: "):
                local_extensions.check(field, answer)


def test_no_package_is_called_like_something_beside_it(bake: Bake) -> None:
    """No package may have the name of a file or folder at the project's root, suffix removed."""
    for path in bake().iterdir():
        with pytest.raises(local_extensions.BadAnswer):
            local_extensions.check("package_name", path.stem)


@pytest.mark.parametrize("value", [None, True, 5, ["a", "b"], {"a": "b"}], ids=repr)
@pytest.mark.parametrize("field", ["description", "author"])
def test_an_answer_from_a_users_configuration_is_text_or_refused(
    field: str, value: object, tmp_path: Path
) -> None:
    """A number or list in a user's configuration is accepted; null, true and a mapping are refused."""
    config = tmp_path / "config.yml"
    settings = {"replay_dir": str(tmp_path / "replay"), "default_context": {field: value}}
    config.write_text(json.dumps(settings))

    options = ["--no-input", "--config-file", str(config), "--output-dir", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [str(ROOT), *options])

    # A number is as good as its digits; of a list, cookiecutter takes the first.
    if isinstance(value, (list, int)) and value is not True:
        assert result.exit_code == 0, result.output
    else:
        assert_refused(result, tmp_path, field)


def test_a_choice_that_there_is_not_leaves_nothing(tmp_path: Path) -> None:
    """An unknown choice exits 1, and no file is written."""
    result = ask(tmp_path, "database=oracle")

    assert result.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]


@pytest.mark.parametrize("given", [True, False], ids=["given", "typed"])
@pytest.mark.parametrize(("answer", "there"), [("yes", True), ("no", False), ("true", True), ("0", False)])
def test_yes_and_no_are_understood(answer: str, there: bool, given: bool, tmp_path: Path) -> None:
    """The answers yes and true add a Dockerfile, no and 0 leave it out, as an argument or at a prompt."""
    if given:
        result = ask(tmp_path, f"container={answer}")
    else:
        result = ask(tmp_path, typed=typed_answers(container=answer))

    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "notes-service" / "Dockerfile").exists() is there


@pytest.mark.parametrize("answer", ["perhaps", "github"])
def test_a_yes_or_no_that_is_neither_leaves_nothing(answer: str, tmp_path: Path) -> None:
    """An answer to a yes-or-no question that is neither exits 1, and no file is written."""
    result = ask(tmp_path, f"container={answer}")

    assert result.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]


def test_typing_nothing_makes_the_default_project(bake: Bake, tmp_path: Path) -> None:
    """Empty answers at every prompt yield the same file paths as the default project."""
    result = ask(tmp_path, typed=typed_answers())

    assert result.exit_code == 0, result.output
    assert tree(tmp_path / "out" / "notes-service") == tree(bake())


def test_every_prompt_is_a_question_and_choices_have_labels() -> None:
    """Every prompt is a capitalized question of several words, and every option of a choice has a label."""
    assert PROMPTS.keys() == QUESTIONS.keys()
    for name in QUESTIONS:
        prompt = PROMPTS[name]["__prompt__"] if name in CHOICES else PROMPTS[name]
        assert re.fullmatch(r"[A-Z].* .*\?", prompt)
    for name, words in CHOICES.items():
        assert PROMPTS[name].keys() == {"__prompt__", *words}


def test_the_readme_lists_every_question() -> None:
    """The README has a table row for every question of cookiecutter.json."""
    rows = re.findall(r"^\| `(\w+)`", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)

    assert set(QUESTIONS) <= set(rows)
