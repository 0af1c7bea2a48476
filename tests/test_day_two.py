"""An owner's second day: without the example, with a feature and migrations, every check passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import BOUND, SKIPPING_IS_FAILING
from .owners import edit
from .processes import run

pytestmark = pytest.mark.matrix

PACKAGE = "notes_service"
SOURCE = Path("src", PACKAGE)
# Table names that tests once reserved.
THINGS = '''"""The tables of things."""

from __future__ import annotations

import enum

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ..foundation.database import Base


class Size(enum.Enum):
    """The sizes of a thing."""

    SMALL = "small"
    LARGE = "large"


class Thing(Base):
    """A thing, which may be done."""

    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    done: Mapped[bool] = mapped_column(sa.Boolean, server_default=sa.false())
    size: Mapped[Size] = mapped_column(sa.Enum(Size, native_enum=False))
    colour: Mapped[str | None] = mapped_column(sa.Text, index=True)


class Counter(Base):
    """A counter."""

    __tablename__ = "counters"

    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(server_default="0")
'''
VIEWS = '''"""Things over HTTP."""

from __future__ import annotations

from flask import Blueprint
from sqlalchemy import select

from ..foundation.database import db
from .models import Thing

bp = Blueprint("things", __name__, url_prefix="/things")


@bp.get("")
def list_things() -> list[int]:
    """List the ids of all things."""
    return list(db.session.scalars(select(Thing.id)))
'''
TEST = '''"""The promises of things."""

from __future__ import annotations

from flask.testing import FlaskClient


def test_there_are_no_things_at_first(client: FlaskClient) -> None:
    """A new database has no things."""
    assert client.get("/things").json == []
'''
MIGRATION = '''"""{name}"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    {up}


def downgrade() -> None:
    {down}
'''
STEPS = [
    (
        "create things",
        """op.create_table(
        "things",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("done", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("size", sa.Enum("SMALL", "LARGE", name="size", native_enum=False), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_things")),
    )""",
        'op.drop_table("things")',
    ),
    (
        "add colour",
        """op.add_column("things", sa.Column("colour", sa.Text(), nullable=True))
    with op.get_context().autocommit_block():
        op.create_index(op.f("ix_things_colour"), "things", ["colour"], postgresql_concurrently=True)""",
        """op.drop_index(op.f("ix_things_colour"), "things")
    op.drop_column("things", "colour")""",
    ),
    (
        "create counters",
        """op.create_table(
        "counters",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_counters")),
    )""",
        'op.drop_table("counters")',
    ),
]


def add_feature(project: Path, before: str) -> None:
    """Add a feature with two tables and three migrations behind another one."""
    files = {
        SOURCE / "things/__init__.py": '"""Things."""\n',
        SOURCE / "things/models.py": THINGS,
        SOURCE / "things/views.py": VIEWS,
        Path("tests/things/__init__.py"): "",
        Path("tests/things/test_views.py"): TEST,
    }
    for number, (name, up, down) in enumerate(STEPS, 2):
        text = MIGRATION.format(name=name, number=f"{number:04}", before=before, up=up, down=down)
        files[Path(f"migrations/versions/{number:04}_{name.replace(' ', '_')}.py")] = text
        before = f"{number:04}"
    for path, text in files.items():
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text(text)


def check(project: Path) -> None:
    """Run `make check` of the project, whose environment has the path of another one."""
    run("make", "check", cwd=project, timeout=BOUND, env={"PYTHONPATH": "src", **SKIPPING_IS_FAILING})


def test_make_check_passes_without_the_example(project: Path) -> None:
    """`make check` passes after the example is removed, with the foundation's migration left."""
    run("make", "feature-remove", "NAME=notes", cwd=project, timeout=BOUND)

    check(project)


def test_make_check_passes_with_a_feature(project: Path) -> None:
    """`make check` passes with the example and another feature of two tables and three migrations."""
    add_feature(project, before="0001")
    app = project / SOURCE / "app.py"
    edit(app, '    "notes",\n', '    "notes",\n    "things",\n')

    check(project)


ARRAYS = """from typing import Any

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
"""
COLUMNS = """    text: Mapped[str] = mapped_column(Text)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    about: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
"""
LABELS = """
op.add_column("notes", sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False))
    op.add_column("notes", sa.Column("about", postgresql.JSONB(), server_default="{}", nullable=False))"""


def test_a_project_may_use_what_only_postgresql_has(project: Path) -> None:
    """With PostgreSQL alone in pyproject.toml, models and migrations with arrays and JSONB pass the tests."""
    edit(project / "pyproject.toml", '  "sqlite",\n', "")
    models = project / SOURCE / "notes" / "models.py"
    edit(models, "from sqlalchemy import Text\n", ARRAYS)
    edit(models, "    text: Mapped[str] = mapped_column(Text)\n", COLUMNS)
    down = 'op.drop_column("notes", "about")\n    op.drop_column("notes", "tags")'
    text = MIGRATION.format(name="add labels", number="0002", before="0001", up=LABELS.strip(), down=down)
    text = text.replace(
        "from alembic import op\n", "from alembic import op\nfrom sqlalchemy.dialects import postgresql\n"
    )
    (project / "migrations/versions/0002_add_labels.py").write_text(text)

    env = {"PYTHONPATH": "src", **SKIPPING_IS_FAILING}
    run("make", "format", "lint", "test", cwd=project, timeout=BOUND, env=env)
    run(
        ".venv/bin/pytest",
        "tests/foundation/database/test_migrations.py",
        cwd=project,
        timeout=BOUND,
        env=env,
    )
