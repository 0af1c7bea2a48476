"""Sessions for notebooks roll back or commit, end with their block, and write elsewhere only if permitted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import has_app_context
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import UnmappedInstanceError

from {{cookiecutter.package_name}}.foundation import notebook
from {{cookiecutter.package_name}}.foundation.configuration import ConfigurationError
from {{cookiecutter.package_name}}.foundation.notebook import SessionEnded, WriteRefused, session

from .databases import Databases, SQLite
from .sample.samples import FoundationSample, add_sample


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder without .env instead of the project's, and a package without models instead of the owner's."""
    monkeypatch.setattr(notebook, "PROJECT", tmp_path)
    monkeypatch.setattr(notebook, "PACKAGE", notebook.__package__)
    for name in ("DATABASE_URL", "SECRET_KEY", "NOTEBOOK_WRITES"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def database(each_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of each kind, named in DATABASE_URL."""
    monkeypatch.setenv("DATABASE_URL", each_databases.sampled())


def texts() -> list[str]:
    """Return the stored rows, as the next cell sees them."""
    with session() as s:
        return list(s.scalars(select(FoundationSample.text).order_by(FoundationSample.id)))


@pytest.mark.usefixtures("database")
def test_a_session_that_reads_is_rolled_back() -> None:
    """Work in `session()` is visible in its block, but never stored."""
    with session() as s:
        add_sample(s, "tried")
        assert s.scalars(select(FoundationSample.text)).all() == ["tried"]

    assert texts() == []


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "commit", [lambda s: s.commit(), lambda s: s.connection().commit()], ids=["session", "connection"]
)
def test_a_session_that_reads_refuses_a_commit(commit: Callable[[Any], None]) -> None:
    """A commit in `session()` raises an error that names `write=True`, and stores nothing."""

    def cell() -> None:
        with session() as s:
            add_sample(s, "by accident")
            commit(s)

    with pytest.raises(WriteRefused, match="write=True"):
        cell()

    assert texts() == []


@pytest.mark.usefixtures("database")
def test_a_session_that_writes_commits_at_the_end() -> None:
    """`session(write=True)` stores its block's work, and its objects keep their columns."""
    with session(write=True) as s:
        sample = add_sample(s, "meant")

    assert texts() == ["meant"]
    assert (sample.text, sample.version) == ("meant", 1)


@pytest.mark.usefixtures("database")
def test_a_failed_cell_stores_nothing_and_the_next_one_works() -> None:
    """A failed cell, whether its code or its flush fails, stores nothing, and the next cell works."""

    def cell(*samples: FoundationSample) -> None:
        with session(write=True) as s:
            for sample in samples:
                s.add(sample)
                s.flush()

    with pytest.raises(IntegrityError):
        cell(FoundationSample(text="lost"), FoundationSample())
    with pytest.raises(UnmappedInstanceError):
        cell(FoundationSample(text="lost"), None)  # type: ignore[arg-type]
    cell(FoundationSample(text="stored"))

    assert texts() == ["stored"]
    assert not has_app_context()


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.add(FoundationSample(text="lost")),
        lambda s: s.scalars(select(FoundationSample)),
        lambda s: s.connection(),
        lambda s: s.get(FoundationSample, 1),
        lambda s: s.begin(),
        lambda s: s.commit(),
    ],
    ids=["add", "scalars", "connection", "get", "begin", "commit"],
)
@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_session_is_refused_after_its_block(use: Callable[[Any], None], write: bool) -> None:
    """Every use of a session after its block raises an error that shows the correct form."""
    with session(write=write) as s:
        s.scalars(select(FoundationSample)).all()

    with pytest.raises(SessionEnded, match="with session"):
        use(s)


@pytest.mark.usefixtures("database")
def test_a_session_without_a_block_is_refused() -> None:
    """Using `session()` without a block raises an error that shows the block, also in a later cell."""
    s: Any = session()

    assert not hasattr(s, "_repr_html_")
    with pytest.raises(AttributeError, match="with session"):
        s.scalars(select(FoundationSample))


class Shell:
    """The part of IPython that a session uses; the proofs execute cells in a real kernel."""

    def __init__(self) -> None:
        self.events = self
        self.callbacks: list[Callable[[object], None]] = []

    def register(self, event: str, callback: Callable[[object], None]) -> None:
        assert event == "post_run_cell"
        self.callbacks.append(callback)

    def unregister(self, event: str, callback: Callable[[object], None]) -> None:
        self.callbacks.remove(callback)


@pytest.mark.usefixtures("database")
def test_a_session_ends_with_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session entered without a block is rolled back with its cell, and rejected in the next."""
    shell = Shell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    block = session(write=True)
    s = block.__enter__()
    add_sample(s, "half done")

    for callback in list(shell.callbacks):
        callback(None)

    with pytest.raises(SessionEnded, match="with session"):
        s.scalars(select(FoundationSample))
    with pytest.raises(SessionEnded, match="with session"):
        block.__exit__(None, None, None)  # As when a generator's block ends in another cell.
    assert texts() == []
    assert shell.callbacks == []


def test_the_environment_comes_before_the_file(
    project: Path, sqlite: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DATABASE_URL comes from .env, relative to the project's folder, unless the environment sets it."""
    (project / ".env").write_text("DATABASE_URL=sqlite:///own.db\n")
    url = notebook.read_settings().database_url
    monkeypatch.setenv("DATABASE_URL", sqlite.sampled())

    assert url == f"sqlite+pysqlite:///{project}/own.db"
    assert texts() == []


def test_a_missing_url_is_named() -> None:
    """Without DATABASE_URL the error is the service's own."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL is missing"), session():
        raise AssertionError


def test_a_reading_cell_does_not_block_the_service(sqlite: SQLite, monkeypatch: pytest.MonkeyPatch) -> None:
    """On SQLite, which has one writer at a time, a read-only cell blocks no writer."""
    monkeypatch.setenv("DATABASE_URL", sqlite.sampled())

    with session() as reads:
        assert reads.scalars(select(FoundationSample)).all() == []
        with session(write=True) as writes:
            add_sample(writes, "stored")

    assert texts() == ["stored"]
