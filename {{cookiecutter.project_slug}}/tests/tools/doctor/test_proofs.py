"""The programs that show a hazard, on a real PostgreSQL."""

import pytest
from sqlalchemy import create_engine, inspect
from tools.doctor.proofs import PROOFS

from ...foundation.databases import PostgreSQL
from .samples import run_tool


@pytest.mark.parametrize("rule", PROOFS)
def test_a_proof_fails_before_the_fix_and_passes_after(rule: str, postgresql: PostgreSQL) -> None:
    """A proof shows its hazard, and no failure after the fix; it leaves no schema behind."""
    url = postgresql.empty()

    done = run_tool("--explain", rule, "--prove", url)

    before, _, after = done.stdout.partition("After the fix:")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "nothing went wrong" not in before
    assert after.strip() == "nothing went wrong"
    engine = create_engine(url)
    with engine.connect() as connection:
        schemas = inspect(connection).get_schema_names()
    engine.dispose()
    assert not [name for name in schemas if name.startswith("doctor")]
