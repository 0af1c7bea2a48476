"""Commands for notes. A command commits like a view, and the service does the work."""

from __future__ import annotations

import click

from ..foundation.database import transaction
from . import service


@click.command()
@click.argument("count", type=click.IntRange(min=1))
def seed(count: int) -> None:
    """Add COUNT notes as sample data."""
    with transaction() as session:
        for number in range(1, count + 1):
            service.add_note(session, f"Note {number}")
    click.echo(f"{count} notes added")
