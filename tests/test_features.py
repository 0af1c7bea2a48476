"""The commands that add and remove a feature leave a project complete, or unchanged."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import BOUND, SKIPPING_IS_FAILING, Bake, Workshop, generate
from .contents import files
from .owners import append, edit
from .processes import run

PACKAGE = "store_service"
SOURCE = Path("src", PACKAGE)
VERSIONS = Path("migrations", "versions")
STORE = {"project_name": "Store Service", "package_name": PACKAGE, "description": "A store."}
CHECKING = {"PYTHONPATH": "src", **SKIPPING_IS_FAILING}
NAMES = "orders categories news order_items".split()
# Plurals, each with its singular.
PLURALS = dict(
    pair.split(":")
    for pair in """orders:order categories:category news:news order_items:order_item addresses:address
    statuses:status boxes:box branches:branch series:series people:person children:child data:data media:media
    analyses:analysis indices:index matrices:matrix companies:company keys:key heroes:hero photos:photo
    knives:knife houses:house cases:case licenses:license databases:database buses:bus classes:class
    processes:process bonuses:bonus movies:movie cookies:cookie caches:cache quizzes:quiz criteria:criterion
    equipment:equipment
    taxes:tax prices:price courses:course lenses:lens aliases:alias sales_orders:sales_order
    sms:sms access:access currencies:currency shoes:shoe leaves:leaf valves:valve ties:tie bases:base
    releases:release causes:cause invoices:invoice sizes:size order:order address:address""".split()
)


def ask(project: Path, expression: str, *arguments: str) -> str:
    """Return what an expression of the module of names prints."""
    code = f"import json, sys; from bin.features import naming, refusal; names = sys.argv[1:]; {expression}"
    return run(sys.executable, "-B", "-c", code, *arguments, cwd=project).stdout


def test_the_singular_of_a_plural(bake: Bake) -> None:
    """The singular of a plural is derived, even if both are the same."""
    expression = "print(json.dumps({name: naming.singularize(name) for name in names}))"

    assert json.loads(ask(bake(), expression, *PLURALS)) == PLURALS


def test_the_names_of_a_feature(bake: Bake) -> None:
    """The class, the table, the path and the words of a feature come from its name."""
    found = json.loads(ask(bake(), "print(json.dumps(naming.names_of(*names).substitutes()))", "order_items"))

    assert found == {
        "plural": "order_items",
        "singular": "order_item",
        "Model": "OrderItem",
        "path": "/order-items",
        "words": "order items",
        "Words": "Order items",
        "word": "order item",
    }


# A list of features, the same with orders, and the same without notes.
LISTS = {
    "exploded": (
        'FEATURES: list[str] = [\n    "notes",  # żółw\n    "news",\n]\n',
        'FEATURES: list[str] = [\n    "notes",  # żółw\n    "news",\n    "orders",\n]\n',
        'FEATURES: list[str] = [\n    "news",\n]\n',
    ),
    "one line": (
        'FEATURES = ["żółw", "notes"]  # mine\n',
        'FEATURES = ["żółw", "notes", "orders"]  # mine\n',
        'FEATURES = ["żółw"]  # mine\n',
    ),
    "one name": (
        'FEATURES = ["notes"]\n',
        'FEATURES = ["notes", "orders"]\n',
        "FEATURES = []\n",
    ),
    "no comma at the end": (
        'FEATURES = [\n    "news",\n    "notes"\n]\n',
        'FEATURES = [\n    "news",\n    "notes", "orders"\n]\n',
        'FEATURES = [\n    "news",\n    \n]\n',
    ),
}


@pytest.mark.parametrize("text", LISTS)
def test_the_list_of_features_keeps_its_spelling(text: str, tmp_path: Path, bake: Bake) -> None:
    """A name is added to the list in app.py, or removed from it, and the rest of the file stays."""
    before, added, removed = LISTS[text]
    around = ["# The \N{ROCKET}'s features.\n", 'def create_app():\n    return ["notes", FEATURES]\n']
    (tmp_path / SOURCE).mkdir(parents=True)
    (tmp_path / SOURCE / "app.py").write_text(before.join(around), "utf-8")
    code = "import json; from bin.features.project import Features; found = Features()"
    result = "print(json.dumps([found.with_name('orders'), found.without_name('notes')]))"

    path = {"PYTHONPATH": str(bake(**STORE))}
    done = run(sys.executable, "-B", "-c", f"{code}; {result}", cwd=tmp_path, env=path)

    assert json.loads(done.stdout) == [added.join(around), removed.join(around)]


def fingerprint(project: Path) -> dict[str, str]:
    """Return the content of the project's own files."""
    made = {".venv", "__pycache__", ".ruff_cache", ".mypy_cache", ".git"}
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files(project)
        if not made & set(path.relative_to(project).parts)
    }


@pytest.fixture(scope="module")
def installed(default: Path, workshop: Workshop) -> Path:
    """A project that a test may read, with the environment of another one."""
    return with_environment(generate(workshop(), STORE), default)


@pytest.fixture
def project(default: Path, workshop: Workshop) -> Path:
    """A project that a test may change, with the environment of another one."""
    return with_environment(generate(workshop(), STORE), default)


def with_environment(project: Path, default: Path) -> Path:
    (project / ".venv").symlink_to(default / ".venv")
    run("bin/install", cwd=project, timeout=BOUND)
    return project


def refuse(project: Path, *arguments: str, status: int = 64) -> str:
    """Check that a command changes no file, and return its one-line error."""
    before = fingerprint(project)

    done = run("bin/feature", *arguments, cwd=project, status=status)

    assert done.stdout == ""
    assert fingerprint(project) == before
    (line,) = done.stderr.splitlines()
    return line


def make(project: Path, target: str, **variables: str) -> str:
    """Run a command of the Makefile, for a service whose own settings are unusable."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    return run("make", target, *settings, cwd=project, timeout=BOUND).stdout


BAD = {
    "": "NAME is missing: make feature NAME=orders",
    "Orders": "is no name",
    "order-items": "is no name",
    "or ders": "is no name",
    "_orders": "is no name",
    "żółw": "is no name",
    "a'b\"$c": "is no name",
    "x" * 41: "at most 40 letters",
    "import": "is reserved",
    "classes": "'class' is a word of Python: choose another NAME, or add SINGULAR=my_class",
    "types": "'type' is a word of Python",
    "models": "is reserved",
    "tests": "is reserved",
    "docs": "is reserved",
    "notes": f"{SOURCE}/notes exists",
    "foundation": f"{SOURCE}/foundation exists",
    "settings": f"{SOURCE}/settings.py exists",
    "conftest": "tests/conftest.py exists",
    "sessions": "service.py would have two things named session",
    "transactions": "views.py would have two things named transaction",
    "pages": "views.py would have two things named Page",
}


@pytest.mark.matrix
@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_is_refused(name: str, installed: Path) -> None:
    """A bad or taken name is refused in one line with exit code 64, and nothing changes."""
    line = refuse(installed, "add", name)

    assert line.startswith("feature: ")
    assert BAD[name] in line


def take_table(project: Path) -> None:
    append(project / SOURCE / "notes/models.py", '\n\nclass Order(Base):\n    """An order."""\n\n')
    append(project / SOURCE / "notes/models.py", '    __tablename__ = "orders"\n')
    append(project / SOURCE / "notes/models.py", "    id: Mapped[int] = mapped_column(primary_key=True)\n")


def take_blueprint(project: Path) -> None:
    append(project / SOURCE / "notes/views.py", '\nmore = Blueprint("orders", __name__)\n')


def take_tests(project: Path) -> None:
    (project / "tests/orders").mkdir()
    (project / "tests/orders/test_all.py").write_text("")


def forget_migration(project: Path) -> None:
    edit(project / SOURCE / "notes/models.py", "(Text)\n", "(Text)\n    more: Mapped[str | None]\n")


def drop_list(project: Path) -> None:
    edit(project / SOURCE / "app.py", "FEATURES: list[str]", "OTHERS: list[str]")


def compute_list(project: Path) -> None:
    edit(project / SOURCE / "app.py", '    "notes",\n', '    "no" + "tes",\n')


UNFIT: dict[Callable[[Path], None], str] = {
    take_table: "a table orders exists",
    take_blueprint: f"{SOURCE}/notes/views.py has a blueprint orders",
    take_tests: "tests/orders exists",
    forget_migration: 'the models differ from the migrations: first make migration NAME="what differs"',
    drop_list: f"{SOURCE}/app.py has no list of names FEATURES: add `FEATURES: list[str] = []`",
    compute_list: f"{SOURCE}/app.py has no list of names FEATURES",
}


@pytest.mark.matrix
@pytest.mark.parametrize("change", UNFIT, ids=lambda change: change.__name__)
def test_an_unfit_project_is_refused(change: Callable[[Path], None], project: Path) -> None:
    """A feature is rejected in one line if its table, blueprint or place in app.py is taken."""
    change(project)

    assert UNFIT[change] in refuse(project, "add", "orders")


@pytest.mark.matrix
def test_a_failure_leaves_nothing_half_done(project: Path) -> None:
    """When the migration can't be written, the folder, the tests and the name in app.py are gone again."""
    append(project / "migrations/script.py.mako", "${1 / 0}\n")

    line = refuse(project, "add", "orders", status=1)

    assert line.startswith("feature: the migrations failed on a scratch database: ")


@pytest.mark.matrix
def test_new_features_pass_the_linters_and_the_tests(project: Path) -> None:
    """Features of several names, which need no setting and no database, pass the linters and the tests."""
    env = (project / ".env").read_bytes()
    for name in NAMES:
        run("make", "feature", f"NAME={name}", cwd=project, timeout=BOUND, env={"DATABASE_URL": "unusable"})

    assert (project / ".env").read_bytes() == env
    assert not list(project.glob("*.db"))
    app = (project / SOURCE / "app.py").read_text()
    assert "".join(f'    "{name}",\n' for name in ["notes", *NAMES]) in app
    for name, model in zip(NAMES, ["Order", "Category", "News", "OrderItem"], strict=True):
        assert f"class {model}(" in (project / SOURCE / name / "models.py").read_text()
        assert f'__tablename__ = "{name}"' in (project / SOURCE / name / "models.py").read_text()
        assert f"def newest_{name}(" in (project / SOURCE / name / "service.py").read_text()
        assert f'url_prefix="/{name.replace("_", "-")}"' in (project / SOURCE / name / "views.py").read_text()
    # The foundation's table and the example's have one each.
    assert len(list((project / VERSIONS).glob("*.py"))) == 2 + len(NAMES)
    run("make", "lint", "test", cwd=project, timeout=BOUND, env=CHECKING)
    check_schema(project)


@pytest.mark.matrix
def test_the_longest_name_passes_the_linters(project: Path) -> None:
    """The files of a feature with the longest name are formatted and typed."""
    make(project, "feature", NAME="x" * 39 + "s")

    for command in ("ruff check", "ruff format --check", "mypy"):
        program, *arguments = command.split()
        run(f".venv/bin/{program}", *arguments, cwd=project, timeout=BOUND)


@pytest.mark.matrix
def test_the_scratch_database_is_one_of_the_project(project: Path) -> None:
    """A project on PostgreSQL alone makes the migration there."""
    edit(project / "pyproject.toml", '  "sqlite",\n', "")
    first = project / VERSIONS / "0001_create_notes.py"
    edit(first, "def upgrade() -> None:\n", "def upgrade() -> None:\n    op.execute(\"SELECT 'a'::text\")\n")

    make(project, "feature", NAME="orders")

    assert (project / SOURCE / "orders" / "models.py").exists()
    assert len(list((project / VERSIONS).glob("*_create_orders.py"))) == 1


def check_schema(project: Path) -> None:
    """Check that migrations go up, down and up again, and lead to the models, on every database."""
    tests = "tests/foundation/database/test_migrations.py"
    run(".venv/bin/pytest", "-q", tests, cwd=project, timeout=BOUND, env=CHECKING)
    for command in ("ruff check", "ruff format --check", "mypy"):
        program, *arguments = command.split()
        run(f".venv/bin/{program}", *arguments, cwd=project, timeout=BOUND)


def mentions(project: Path) -> list[Path]:
    """Return the documents and the files of the deployment that mention notes."""
    documents = [path for path in files(project) if path.suffix in {".md", ".yaml", ".example", ".ini"}]
    return [path for path in documents if re.search(r"\bnotes?\b", path.read_text("utf-8"))]


@pytest.mark.matrix
def test_no_document_mentions_a_removed_feature(project: Path) -> None:
    """A feature that no database has is removed with its migration, and with what the README says of it."""
    assert mentions(project) == [project / "README.md"]

    said = make(project, "feature-remove", NAME="notes")

    assert "deleted migrations/versions/0001_create_notes.py: the database of DATABASE_URL does not" in said
    left = [path.name for path in files(project / VERSIONS) if path.suffix != ".pyc"]
    assert left == ["0000_create_idempotency_keys.py"]
    assert mentions(project) == []
    assert "FEATURES: list[str] = []\n" in (project / SOURCE / "app.py").read_text()
    make(project, "feature", NAME="orders")
    make(project, "feature-remove", NAME="orders")
    assert "FEATURES: list[str] = []\n" in (project / SOURCE / "app.py").read_text()


@pytest.mark.matrix
def test_a_migration_that_a_database_has_is_undone(project: Path) -> None:
    """A table that the database of DATABASE_URL has is dropped by a new migration, which can be undone."""
    make(project, "migrate")

    said = make(project, "feature-remove", NAME="notes")

    (path,) = (project / VERSIONS).glob("*_remove_notes.py")
    assert (
        f"wrote {path.relative_to(project)}, which drops the tables: the database of DATABASE_URL has" in said
    )
    assert (project / VERSIONS / "0001_create_notes.py").exists()
    make(project, "migrate")
    make(project, "downgrade")
    make(project, "migrate")
    check_schema(project)


@pytest.mark.matrix
def test_an_older_migration_is_undone(project: Path) -> None:
    """A table whose migration is followed by that of another feature is dropped by a new migration."""
    make(project, "feature", NAME="orders")

    said = make(project, "feature-remove", NAME="notes")

    assert "which drops the tables: the newest migration has more than these tables" in said
    check_schema(project)
    run(".venv/bin/pytest", "-q", "tests/orders", cwd=project, timeout=BOUND)


UNREACHABLE = {
    "postgresql://postgres@127.0.0.1:1/gone": "can't be reached (OperationalError)",
    "nonsense": "can't be reached (ArgumentError)",
}


@pytest.mark.matrix
@pytest.mark.parametrize("url", UNREACHABLE)
def test_an_unreachable_database_counts_as_one_that_has_it(url: str, project: Path) -> None:
    """Where the database can't be reached, the migration stays and a new one drops the table."""
    done = run("bin/feature", "remove", "notes", cwd=project, env={"DATABASE_URL": url})

    assert UNREACHABLE[url] in done.stdout
    assert (project / VERSIONS / "0001_create_notes.py").exists()
    assert len(list((project / VERSIONS).glob("*_remove_notes.py"))) == 1


def import_it(project: Path) -> None:
    append(
        project / SOURCE / "orders/service.py", "\nfrom ..notes.models import Note as Note  # noqa: E402\n"
    )


def import_it_in_tests(project: Path) -> None:
    append(project / "tests/orders/test_views.py", f"\nfrom {PACKAGE}.notes import service as service\n")


def reference_it(project: Path) -> None:
    models = project / SOURCE / "orders/models.py"
    edit(models, "import Text\n", "import ForeignKey, Text\n")
    append(models, '    note_id: Mapped[int | None] = mapped_column(ForeignKey("notes.id"))\n')


NEEDED: dict[Callable[[Path], None], str] = {
    import_it: f"feature: notes is imported by {SOURCE}/orders/service.py: remove that first",
    import_it_in_tests: "feature: notes is imported by tests/orders/test_views.py: remove that first",
    reference_it: "feature: orders.note_id references notes.id: remove that first",
}


@pytest.mark.matrix
@pytest.mark.parametrize("change", NEEDED, ids=lambda change: change.__name__)
def test_a_feature_that_is_needed_is_not_removed(change: Callable[[Path], None], project: Path) -> None:
    """A feature that another one imports or references is refused in one line, and nothing changes."""
    make(project, "feature", NAME="orders")
    change(project)

    assert refuse(project, "remove", "notes") == NEEDED[change]


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["", "orders", "foundation", "notes/../notes"])
def test_an_unknown_feature_is_refused(name: str, installed: Path) -> None:
    """A name that is no feature is refused in one line with the features, and nothing changes."""
    assert refuse(installed, "remove", name) == f"feature: NAME={name} is no feature: it is one of notes"


@pytest.mark.matrix
def test_work_that_git_lacks_is_named(project: Path) -> None:
    """A removal lists the files that git lacks or has in another version."""
    person = {f"GIT_{role}_{key}": "a" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    run("git", "init", "--quiet", cwd=project)
    run("git", "add", "--all", cwd=project)
    run("git", "commit", "--quiet", "--message=a", cwd=project, env=person)
    append(project / SOURCE / "notes/service.py", "# more\n")
    (project / "tests/notes/test_more.py").write_text("# more\n")

    said = make(project, "feature-remove", NAME="notes")

    lost = re.findall("^removed without a copy in git: (.*)$", said, re.MULTILINE)
    assert lost == [f"{SOURCE}/notes/service.py", "tests/notes/test_more.py"]
