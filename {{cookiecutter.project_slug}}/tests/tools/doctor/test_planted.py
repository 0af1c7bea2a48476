"""A service with sixteen planted hazards, as a file and as a notebook, and a service without any."""

from pathlib import Path
from textwrap import dedent

from tools.doctor.examination import examine

from .samples import Marks, diagnose, expected, found, notebook

CELLS = (
    """
    import pickle
    import threading
    import numpy as np
    import pandas as pd
    from flask import Flask, jsonify
    from sklearn.linear_model import LinearRegression
    from sqlalchemy import create_engine, select, text
    from sqlalchemy.ext.automap import automap_base
    from sqlalchemy.orm import Session, scoped_session, sessionmaker
    """,
    """
    engine = create_engine("sqlite:///shop.db", connect_args={"check_same_thread": False})  # expect: N501
    Base = automap_base()
    Base.prepare(autoload_with=engine)  # expect: N102
    Order = Base.classes.orders
    session = Session(engine)  # expect: N103
    now = session.execute(text("select current_timestamp")).scalar()  # expect: N102
    unused = engine.connect()  # expect: N101
    sessions = scoped_session(sessionmaker(engine))  # expect: N501
    newest = session.query(Order).first()  # expect: N104
    """,
    """
    frame = pd.read_csv("orders.csv")  # expect: N201
    model = pickle.load(open("model.pkl", "rb"))  # expect: N402
    trend = LinearRegression()
    trend.fit(frame[["day"]], frame["total"])  # expect: N403
    generator = np.random.default_rng(1)  # expect: N404
    cache = {}  # expect: N201
    visits = 0  # expect: N201
    """,
    """
    app = Flask(__name__)
    app.app_context().push()  # expect: N302

    def beat():
        pass

    thread = threading.Thread(target=beat)
    thread.start()  # expect: N401

    def find(key):
        return session.get(Order, key)
    """,
    """
    @app.get("/orders/<int:key>")
    def order(key):
        global visits
        visits += 1
        cache[key] = find(key).total
        frame.loc[key, "seen"] = True
        return jsonify(newest.id, cache[key], generator.random(), model.predict([[key]]))

    @app.post("/orders")
    def add():
        try:
            sessions.add(Order())
            sessions.commit()
        except Exception:  # expect: N501
            return "failed", 500
        return "stored"
    """,
    """
    app.run(debug=True)  # expect: N301
    """,
)
GOOD = """
import functools
import threading
import joblib
from flask import Flask, g, jsonify
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

engine = create_engine("postgresql:///shop", pool_pre_ping=True)
SessionLocal = sessionmaker(engine)
db_session = scoped_session(SessionLocal)
app = Flask(__name__)
HANDLERS = {}
lock = threading.Lock()
hits = {}

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

def register(name):
    def decorate(function):
        HANDLERS[name] = function
        return function
    return decorate

@register("csv")
def export(rows):
    return ",".join(map(str, rows))

@functools.lru_cache
def model():
    return joblib.load("model.joblib")

@app.teardown_appcontext
def remove_session(error):
    db_session.remove()

@app.get("/orders")
def orders():
    with lock:
        hits["orders"] = hits.get("orders", 0) + 1
    rows = [order.id for order in db_session.scalars(select(Order))]
    g.rows = len(rows)
    return HANDLERS["csv"](rows)

@app.post("/orders")
def add():
    with SessionLocal() as session, session.begin():
        session.add(Order())
    return "stored"

@app.get("/predictions/<int:key>")
def prediction(key):
    with Session(engine) as session:
        order = session.get(Order, key)
        return jsonify(model().predict([[order.id]]).tolist())

if __name__ == "__main__":
    app.run(debug=True)
"""


def test_every_planted_hazard_of_a_service_is_found(tmp_path: Path) -> None:
    """The findings in a service are the planted ones, line by line, and no others."""
    text = "\n".join(dedent(cell).strip("\n") for cell in CELLS)

    assert len(set(expected(text).elements())) >= 16
    assert found(diagnose(tmp_path, text)) == expected(text)


def test_every_planted_hazard_of_a_notebook_is_found(tmp_path: Path) -> None:
    """The same code in a notebook has the same findings, each in its cell."""
    (tmp_path / "shop.ipynb").write_text(notebook(*CELLS))
    marks = Marks()
    for number, cell in enumerate(CELLS, 1):
        marks += expected(cell, number)

    findings, _ = examine([tmp_path / "shop.ipynb"])

    assert found(findings) == marks


def test_a_good_service_has_no_finding(tmp_path: Path) -> None:
    """Engines, sessionmakers, removed scoped sessions, registries, cached loaders and locks are correct."""
    assert diagnose(tmp_path, GOOD) == []
