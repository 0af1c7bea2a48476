"""The command for the foundation's table, for a scheduler: docs/OPERATIONS.md, Idempotency keys."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from .models import IdempotencyKey
from .session import transaction

BATCH = 1000  # rows per transaction: more would hold locks for longer


@click.command()
@click.option("--hours", type=click.IntRange(min=1), default=24, show_default=True, help="The age to keep.")
def delete_idempotency_keys(hours: int) -> None:
    """Delete old idempotency keys."""
    before = datetime.now(UTC) - timedelta(hours=hours)
    total, count = 0, BATCH
    while count == BATCH:
        with transaction() as session:
            count = delete_keys(session, before, BATCH)
        total += count
    click.echo(f"{total} keys deleted")


def delete_keys(session: Session, before: datetime, limit: int) -> int:
    """Delete at most `limit` keys that are older than `before`, and return their number."""
    key = IdempotencyKey
    old = select(key.id).where(key.created_at < before).limit(limit)
    statement = delete(key).where(key.id.in_(old)).execution_options(synchronize_session=False)
    result: Any = session.execute(statement)
    count: int = result.rowcount
    return count
