"""A service as in tutorials: a few lines of plain Flask and Flask-SQLAlchemy."""

import os
import sys
import time
from pathlib import Path

from flask import Flask, g, has_app_context, request, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.orm import Session

if "SECRET" not in os.environ:
    sys.exit(2)

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 1}
db = SQLAlchemy(app)


class Note(db.Model):
    __tablename__ = "notes"
    id = db.Column(db.Integer, primary_key=True)
    text = db.Column(db.String(50), unique=True)


with app.app_context():
    db.create_all()
    engine = db.engine
    # As in notebooks: one session, created at the top and kept.
    session = Session(engine)
    session.execute(text("SELECT 1"))
    session.commit()


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


@app.post("/count/<int:number>")
def count(number):
    note = db.session.get(Note, number)
    note.text = str(int(note.text) + 1)
    db.session.commit()
    return "counted"


@app.post("/change-slowly/<int:number>")
def change_slowly(number):
    db.session.get(Note, number).text = "changed"
    db.session.flush()
    db.session.execute(text("SELECT pg_sleep(30)"))
    db.session.commit()
    return "changed"


@app.post("/shared")
def add_by_global_session():
    session.add(Note(text=request.get_data(as_text=True)))
    session.commit()
    return "kept", 201


@app.get("/echo/<int:number>")
def echo(number):
    row = db.session.execute(text("SELECT :n, pg_sleep(0.01)"), {"n": number}).one()
    return str(row[0])


@app.post("/leave")
def leave():
    g.leaving = True
    add()
    db.session.execute(text("SELECT pg_sleep(0.2)"))
    return "left"


@app.teardown_appcontext
def clean_up(error):
    if "leaving" in g:
        raise RuntimeError("the clean-up failed")


@app.get("/slow")
def slow():
    print("slow has begun", flush=True)
    time.sleep(5)
    return "answered"


@app.get("/hold/<int:number>")
def hold(number):
    lock = Path(f"{number}.lock")
    lock.touch(exist_ok=False)
    try:
        time.sleep(5)
    finally:
        lock.unlink()
    return "answered"


@app.get("/export")
def export():
    def rows():
        yield "the first row"
        raise RuntimeError("a bug in the middle of an answer")

    return app.response_class(rows())


@app.get("/stream")
def stream():
    def parts():
        while True:
            yield b"x" * 65536

    return app.response_class(stream_with_context(parts()))


kept = []
flask_app = app.wsgi_app


def keeper(environ, start_response):
    """Keep the bodies of streams and hide their close(), as some middleware does."""
    environ["found"] = has_app_context()
    response = flask_app(environ, start_response)
    if environ["PATH_INFO"] == "/stream":
        kept.append(response)
        return map(bytes, response)
    return response


app.wsgi_app = keeper


@app.get("/context")
def context():
    return str(request.environ["found"])
