"""A service that loses commits and makes unrequested ones, in a few lines that look correct."""

import os

from flask import Flask, abort, g, request, stream_with_context
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class Note(db.Model):
    __tablename__ = "notes"
    id = db.Column(db.Integer, primary_key=True)
    text = db.Column(db.String(50))


class Counter(db.Model):
    __tablename__ = "counters"
    id = db.Column(db.Integer, primary_key=True)
    number = db.Column(db.Integer, default=0)


with app.app_context():
    db.create_all()
    if not db.session.get(Counter, 1):
        db.session.add(Counter(id=1))
        db.session.commit()


@app.get("/livez")
def livez():
    return "alive"


@app.get("/notes")
def notes():
    return {"texts": [note.text for note in Note.query]}


@app.post("/notes")
def add():
    db.session.add(Note(text=request.get_data(as_text=True)))
    db.session.commit()
    return "kept", 201


@app.get("/count")
def number():
    return str(db.session.get(Counter, 1).number)


@app.post("/count")
def count():
    db.session.get(Counter, 1).number += 1
    db.session.commit()
    return "counted"


@app.post("/stream")
def stream():
    db.session.add(Note(text="streamed"))
    db.session.flush()

    def parts():
        yield "begun "
        db.session.commit()
        yield "and committed"

    return app.response_class(stream_with_context(parts()))


@app.post("/refuse")
def refuse():
    g.refused = True
    db.session.add(Note(text="refused"))
    abort(409)


@app.get("/leaked")
def leaked():
    return str(len(db.session.registry.registry))


@app.teardown_appcontext
def clean_up(error):
    if "refused" in g:
        raise RuntimeError("the clean-up failed")
