"""Notebook sessions on PostgreSQL, as the server sees them, and on remote servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from {{cookiecutter.package_name}}.foundation import notebook
from {{cookiecutter.package_name}}.foundation.notebook import WriteRefused, session

from .databases import PostgreSQL
from .processes import wait_until
from .sample.samples import add_sample
from .test_notebook import project as project
from .test_notebook import texts

ELSEWHERE = "postgresql://user:password@db.example.com/name"


def test_nothing_stays_connected_between_cells(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block's connection is closed with it, and pg_stat_activity shows that it belongs to a notebook."""
    monkeypatch.setenv("DATABASE_URL", postgresql.sampled())
    others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'notebook' AND pid"
    with session() as s:
        backend = s.scalar(text("SELECT pg_backend_pid()"))
        assert s.scalar(text(f"{others} = {backend}")) == 1

    def has_ended() -> bool:
        with session() as s:
            return bool(s.scalar(text(f"{others} = {backend}")) == 0)

    wait_until(has_ended, "the connection has ended")


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        (ELSEWHERE, {}),
        ("postgresql:///name?service=production", {}),
        ("postgresql:///name", {"PGSERVICE": "production"}),
        ("postgresql:///name", {"PGHOST": "db.example.com"}),
        ("postgresql://localhost/name", {"PGHOSTADDR": "192.0.2.1"}),
        ("postgresql:///name?host=/tmp,db.example.com", {}),
    ],
)
def test_nothing_is_written_to_another_machine(
    url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A remote database is not written to, and the error names NOTEBOOK_WRITES."""
    services = tmp_path / "services"
    services.write_text("[production]\nhost=db.example.com\n")
    for name, value in {"DATABASE_URL": url, "PGSERVICEFILE": str(services), **environment}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(WriteRefused, match="NOTEBOOK_WRITES=1"), session(write=True):
        raise AssertionError


def test_notebook_writes_permits_another_machine(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NOTEBOOK_WRITES=1 permits writes to a remote database; without it, even rolled back ones fail."""
    monkeypatch.setenv("DATABASE_URL", postgresql.sampled())
    monkeypatch.setattr(notebook, "_is_elsewhere", lambda url: True)

    with pytest.raises(Exception, match="read-only transaction"), session() as s:
        add_sample(s, "tried")
    monkeypatch.setenv("NOTEBOOK_WRITES", "1")
    with session(write=True) as s:
        add_sample(s, "meant")

    assert texts() == ["meant"]
