"""The minimal Flask and Flask-SQLAlchemy code for the generated service's routes."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import DateTime, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The base of the models."""


db = SQLAlchemy(model_class=Base)


class Note(db.Model):
    """A row of the table created by the service's migrations."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))
    version: Mapped[int] = mapped_column(default=1)

    def as_json(self) -> dict[str, Any]:
        """Return the row as a client sees it."""
        created_at = self.created_at.isoformat()
        return {"id": self.id, "text": self.text, "created_at": created_at, "version": self.version}


def make_app(name: str, **engine_options: Any) -> Flask:
    """Create an application without routes, for the database in the environment."""
    app = Flask(name)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 4, "max_overflow": 2, **engine_options}
    db.init_app(app)
    return app


def add_views(
    app: Flask, as_json: Callable[[Note], dict[str, Any]], text_of: Callable[[dict[str, Any]], str]
) -> None:
    """Add the views, which write a note with one function and read the body of an insert with the other."""

    @app.get("/notes/<int:note_id>")
    def read(note_id: int) -> dict[str, Any]:
        return as_json(db.get_or_404(Note, note_id))

    @app.get("/notes")
    def newest() -> dict[str, Any]:
        limit = int(request.args.get("limit", 50))
        notes = db.session.scalars(select(Note).order_by(Note.id.desc()).limit(limit))
        return {"items": [as_json(note) for note in notes]}

    @app.get("/pages")
    def page() -> dict[str, Any]:
        found = db.paginate(select(Note).order_by(Note.id.desc()), per_page=20)  # by OFFSET, and a count
        return {"items": [as_json(note) for note in found], "pages": found.pages}

    @app.post("/notes")
    def create() -> tuple[dict[str, Any], int]:
        note = Note(text=text_of(request.get_json()))
        db.session.add(note)
        db.session.commit()
        return as_json(note), 201

    @app.get("/livez")
    def livez() -> dict[str, Any]:
        return {"status": "alive"}


app = make_app(__name__)
add_views(app, Note.as_json, lambda body: body["text"])
