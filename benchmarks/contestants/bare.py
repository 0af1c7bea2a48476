"""The least that Flask and Flask-SQLAlchemy need for the routes of the generated service."""

from __future__ import annotations

import os
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
    """A row of the table that the migrations of the service make."""

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
    """Make an application without routes, for the database in the environment."""
    app = Flask(name)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 4, "max_overflow": 2, **engine_options}
    db.init_app(app)
    return app


app = make_app(__name__)


@app.get("/notes/<int:note_id>")
def read(note_id: int) -> dict[str, Any]:
    return db.get_or_404(Note, note_id).as_json()


@app.get("/notes")
def newest() -> dict[str, Any]:
    limit = int(request.args.get("limit", 50))
    notes = db.session.scalars(select(Note).order_by(Note.id.desc()).limit(limit))
    return {"items": [note.as_json() for note in notes]}


@app.get("/pages")
def page() -> dict[str, Any]:
    """A page by OFFSET, with the count of all rows: Flask-SQLAlchemy's own pagination."""
    found = db.paginate(select(Note).order_by(Note.id.desc()), per_page=20)
    return {"items": [note.as_json() for note in found], "pages": found.pages}


@app.post("/notes")
def create() -> tuple[dict[str, Any], int]:
    note = Note(text=request.get_json()["text"])
    db.session.add(note)
    db.session.commit()
    return note.as_json(), 201


@app.get("/livez")
def livez() -> dict[str, Any]:
    return {"status": "alive"}
