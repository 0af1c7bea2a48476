"""Patterns from tutorials and notebooks, written for these tests and labelled before the first run.

The labels are in the code: a line that ends in `# expect: N101` has that finding, and no other line has one.
"""

from collections import Counter
from pathlib import Path

import pytest
from tools.doctor.examination import examine

from .samples import Marks, diagnose, expected, found, notebook

# A course on climate data: an automap, one session for all routes, and a server in the last cell.
CLIMATE = (
    """
    import datetime as dt
    import numpy as np
    import pandas as pd
    import sqlalchemy
    from sqlalchemy.ext.automap import automap_base
    from sqlalchemy.orm import Session
    from sqlalchemy import create_engine, func
    from flask import Flask, jsonify
    """,
    """
    engine = create_engine("sqlite:///hawaii.sqlite")
    Base = automap_base()
    Base.prepare(engine, reflect=True)  # expect: N102
    Measurement = Base.classes.measurement
    Station = Base.classes.station
    session = Session(engine)  # expect: N103
    """,
    """
    app = Flask(__name__)

    @app.route("/stations")
    def stations():
        results = session.query(Station.station).all()
        return jsonify(list(np.ravel(results)))

    def calc_temps(start, end):
        return session.query(func.min(Measurement.tobs)).filter(Measurement.date >= start).all()

    @app.route("/<start>/<end>")
    def start_end(start, end):
        return jsonify(calc_temps(start, end))
    """,
    """
    if __name__ == "__main__":
        app.run(debug=True)  # expect: N301
    """,
)

# A prediction service: a pickle, an encoder that is fitted, and a history in a list.
CHURN = """
import pickle
import pandas as pd
from flask import Flask, request, render_template
from sklearn.preprocessing import StandardScaler

app = Flask(__name__)
model = pickle.load(open("model.pkl", "rb"))  # expect: N402
df = pd.read_csv("customers.csv")
scaler = StandardScaler()
scaler.fit(df[["age", "balance"]])  # expect: N403
history = []  # expect: N201

@app.route("/")
def home():
    return render_template("index.html")

@app.route("/predict", methods=["POST"])
def predict():
    features = [float(value) for value in request.form.values()]
    result = model.predict(scaler.transform([features]))
    history.append({"features": features, "result": int(result[0])})
    return render_template("index.html", prediction=result, history=history)

if __name__ == "__main__":
    app.run(host="0.0.0.0", debug=True)
"""

# A chat about an uploaded document: globals set by a request.
DOCUMENTS = """
from flask import Flask, request, jsonify
from transformers import pipeline

app = Flask(__name__)
qa = pipeline("question-answering", model="distilbert")  # expect: N402
book_text = ""  # expect: N201
retriever = None  # expect: N201

def build_retriever(text):
    return text.split()

@app.post("/upload")
def upload():
    global book_text, retriever
    book_text = request.files["book"].read().decode()
    retriever = build_retriever(book_text)
    return jsonify(ok=True)

@app.post("/ask")
def ask():
    return jsonify(qa(question=request.json["question"], context=book_text))
"""

# A first tutorial with the driver alone: one connection and one cursor.
DRIVER = """
import mysql.connector
from flask import Flask, request, redirect

app = Flask(__name__)
mydb = mysql.connector.connect(host="localhost", user="root", password="root")  # expect: N103
cursor = mydb.cursor(dictionary=True)
cursor.execute("CREATE TABLE IF NOT EXISTS items (id INT, name TEXT)")  # expect: N102

@app.route("/items")
def items():
    cursor.execute("SELECT * FROM items")
    return {"items": cursor.fetchall()}

@app.route("/add", methods=["POST"])
def add():
    cursor.execute("INSERT INTO items VALUES (%s, %s)", (1, request.form["name"]))
    mydb.commit()
    return redirect("/items")
"""

# A tutorial on SQLite that meets the guard against threads, and removes it.
SQLITE = """
import sqlite3
from flask import Flask, g

app = Flask(__name__)
db = sqlite3.connect("todo.db", check_same_thread=False)  # expect: N103 N501

@app.route("/todo")
def todo():
    return {"rows": db.execute("select * from todo").fetchall()}
"""

# The pattern of Flask's documentation with SQLite: a connection on g for each request.
SQLITE_ON_G = """
import sqlite3
from flask import Flask, g

app = Flask(__name__)

def get_db():
    if "db" not in g:
        g.db = sqlite3.connect("todo.db")
    return g.db

@app.teardown_appcontext
def close_db(error):
    db = g.pop("db", None)
    if db is not None:
        db.close()

@app.route("/todo")
def todo():
    return {"rows": get_db().execute("select * from todo").fetchall()}
"""

# The pattern of Flask's documentation with SQLAlchemy: a scoped_session and a teardown.
SCOPED = """
from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy.orm import declarative_base, scoped_session, sessionmaker

engine = create_engine("sqlite:////tmp/test.db")
db_session = scoped_session(sessionmaker(autocommit=False, autoflush=False, bind=engine))
Base = declarative_base()
Base.query = db_session.query_property()

app = Flask(__name__)

@app.teardown_appcontext
def shutdown_session(exception=None):
    db_session.remove()

@app.route("/users")
def users():
    return {"users": [row.name for row in db_session.query(Base).all()]}
"""

# A quick start with Flask-SQLAlchemy that makes its tables when the file is imported.
QUICKSTART = """
from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///project.db"
db = SQLAlchemy(app)

class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String)

with app.app_context():
    db.create_all()  # expect: N102

current_user = None  # expect: N104

@app.post("/login")
def login():
    global current_user
    current_user = User.query.filter_by(name=request.form["name"]).first()
    return "welcome"

@app.get("/me")
def me():
    return current_user.name
"""

# Background jobs: a scheduler and a thread that start with the file.
JOBS = """
import threading
import time
from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask

app = Flask(__name__)
prices = {}  # expect: N201
lock = threading.Lock()
totals = {}

def refresh():
    prices["btc"] = 1

def beat():
    while True:
        time.sleep(1)

scheduler = BackgroundScheduler()
scheduler.add_job(refresh, "interval", seconds=60)
scheduler.start()  # expect: N401
threading.Thread(target=beat, daemon=True).start()  # expect: N401

@app.route("/prices/<coin>/<price>")
def set_price(coin, price):
    prices[coin] = price
    with lock:
        totals[coin] = totals.get(coin, 0) + 1
    return prices
"""

# A cell that pushes a context so that later cells can query, and one that needs a deleted cell.
PUSHED = (
    """
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy
    app = Flask(__name__)
    db = SQLAlchemy(app)
    app.app_context().push()  # expect: N302
    """,
    """
    class Song(db.Model):
        id = db.Column(db.Integer, primary_key=True)
    db.create_all()  # expect: N102
    """,
    """
    !pip install flask-ngrok
    %matplotlib inline
    songs = db.session.query(Song).all()
    titles = clean(songs)  # expect: X901
    """,
    """
    @app.route("/")
    def index()
        return "songs"  # the line above lacks its colon
    """,
    """
    app.run()  # expect: N301
    """,
)

# A lottery: numbers from generators that the file seeds.
LOTTERY = """
import random
import numpy as np
from flask import Flask

app = Flask(__name__)
rng = np.random.default_rng(42)  # expect: N404
np.random.seed(0)  # expect: N404

@app.get("/draw")
def draw():
    return {"numbers": rng.integers(0, 49, 6).tolist(), "bonus": float(np.random.rand())}

@app.get("/coin")
def coin():
    return random.choice(["heads", "tails"])
"""

# A repository object that opens a connection when it is made, and a cache of rows of the ORM.
REPOSITORY = """
import functools
import psycopg2
from flask import Flask
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

app = Flask(__name__)
engine = create_engine("postgresql:///shop")

class Base(DeclarativeBase):
    pass

class Product(Base):
    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)

class Repository:
    def __init__(self):
        self.connection = psycopg2.connect("dbname=shop")  # expect: N103

    def count(self):
        with self.connection.cursor() as cursor:
            cursor.execute("select count(*) from products")
            return cursor.fetchone()[0]

repository = Repository()

@functools.lru_cache(maxsize=100)
def product(key):  # expect: N104
    with Session(engine) as session:
        return session.get(Product, key)

@app.get("/count")
def count():
    return {"count": repository.count()}

@app.get("/products/<int:key>")
def show(key):
    return {"id": product(key).id}
"""

# A factory as books teach it: nothing happens at import.
FACTORY = """
import functools
import joblib
from flask import Blueprint, Flask, current_app, jsonify
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()
api = Blueprint("api", __name__)
SETTINGS = {"limit": 10}

class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)

@functools.lru_cache
def model():
    return joblib.load("model.joblib")

@api.route("/users")
def users():
    rows = []
    for user in db.session.scalars(db.select(User)):
        rows.append(user.id)
    return jsonify(rows[: SETTINGS["limit"]])

@api.post("/predict")
def predict():
    return jsonify(model().predict([[1]]).tolist())

def create_app():
    app = Flask(__name__)
    db.init_app(app)
    app.register_blueprint(api)
    return app

if __name__ == "__main__":
    create_app().run()
"""

# An analysis that serves nothing: a session, a frame, a trained model. One note is enough.
ANALYSIS = (
    """
    import pandas as pd
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session
    from sklearn.linear_model import LinearRegression
    engine = create_engine("sqlite:///x")
    session = Session(engine)  # expect: N101
    """,
    """
    df = pd.read_sql("select * from orders", engine)
    model = LinearRegression().fit(df[["a"]], df["b"])
    rows = session.execute("select 1").all()
    df.plot()
    """,
)

FILES = {
    "churn": CHURN,
    "documents": DOCUMENTS,
    "driver": DRIVER,
    "sqlite": SQLITE,
    "sqlite on g": SQLITE_ON_G,
    "scoped": SCOPED,
    "quickstart": QUICKSTART,
    "jobs": JOBS,
    "lottery": LOTTERY,
    "repository": REPOSITORY,
    "factory": FACTORY,
}
NOTEBOOKS = {"climate": CLIMATE, "pushed": PUSHED, "analysis": ANALYSIS}


@pytest.mark.parametrize("name", FILES)
def test_a_pattern_in_a_file_has_its_findings(name: str, tmp_path: Path) -> None:
    """The findings in a pattern match its labels, line by line."""
    assert found(diagnose(tmp_path, FILES[name])) == expected(FILES[name])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_pattern_in_a_notebook_has_its_findings(name: str, tmp_path: Path) -> None:
    """The findings in a notebook match its labels; a cell that does not parse is a finding on its line."""
    path = tmp_path / "pattern.ipynb"
    path.write_text(notebook(*NOTEBOOKS[name]))
    marks = Marks()
    for number, cell in enumerate(NOTEBOOKS[name], 1):
        marks += expected(cell, number)
    if name == "pushed":
        marks += Counter([("X901", 4, 2)])

    findings, _ = examine([path])

    assert found(findings) == marks
