"""Each hazard of the catalogue: code with it, and code that only resembles it."""

from pathlib import Path

import pytest
from tools.doctor.catalogue import CATALOGUE

from .samples import FLASK, diagnose, expected, found

ORM = """
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Session, scoped_session, sessionmaker
engine = create_engine("sqlite://")
class Base(DeclarativeBase): pass
class User(Base):
    __tablename__ = "users"
"""
START = FLASK + ORM
# The hazard, with a label on each line with a finding.
BAD = {
    "N101 session": "session = Session(engine)  # expect: N101",
    "N101 from a sessionmaker": "Local = sessionmaker(engine)\nsession = Local()  # expect: N101",
    "N101 connection": "connection = engine.connect()  # expect: N101",
    "N101 driver": "import psycopg\nconnection = psycopg.connect('')  # expect: N101",
    "N101 cursor": "import sqlite3\ncursor = sqlite3.connect('x').cursor()  # expect: N101",
    "N101 from a function": "def make():\n    return Session(engine)\nsession = make()  # expect: N101",
    "N101 class": "class Store:\n    session = Session(engine)  # expect: N101",
    "N101 object": """
        class Store:
            def __init__(self):
                self.session = Session(engine)  # expect: N101
        store = Store()
    """,
    "N102 tables": "Base.metadata.create_all(engine)  # expect: N102",
    "N102 query": "with Session(engine) as s:\n    names = s.scalars(select(User)).all()  # expect: N102",
    "N102 frame": "import pandas as pd\nframe = pd.read_sql('select 1', engine)  # expect: N102",
    "N102 reflection": """
        from sqlalchemy import MetaData, Table
        users = Table("users", MetaData(), autoload_with=engine)  # expect: N102
    """,
    "N102 in a function": """
        def load():
            with engine.connect() as connection:  # expect: N102
                return connection.execute(text("select 1")).scalar()
        START = load()
    """,
    "N102 in a factory": """
        def create_app():
            app = Flask(__name__)
            Base.metadata.create_all(engine)  # expect: N102
            return app
    """,
    "N103 in a view": """
        session = Session(engine)  # expect: N103
        @app.get("/")
        def index():
            return str(session.get(User, 1))
    """,
    "N103 through functions": """
        session = Session(engine)  # expect: N103
        def query():
            return session.get(User, 1)
        def find():
            return query()
        @app.route("/")
        def index():
            return str(find())
    """,
    "N103 opened by a request": """
        connection = None
        def connect():
            global connection
            if connection is None:
                connection = engine.connect()  # expect: N103
            return connection
        @app.route("/")
        def index():
            return str(connect().execute(text("select 1")))
    """,
    "N103 on the application": """
        app.session = Session(engine)  # expect: N103
        @app.get("/")
        def index():
            return str(app.session.get(User, 1))
    """,
    "N103 in a factory": """
        def create_app():
            app = Flask(__name__)
            session = Session(engine)  # expect: N103
            @app.route("/")
            def index():
                return str(session.get(User, 1))
            return app
    """,
    "N104 global": """
        with Session(engine) as s:
            admin = s.get(User, 1)  # expect: N102 N104
        @app.get("/")
        def index():
            return admin.name
    """,
    "N104 cache": """
        from functools import cache
        @cache
        def user(key):  # expect: N104
            with Session(engine) as s:
                return s.scalars(select(User).where(User.id == key)).first()
        @app.get("/")
        def index():
            return user(1).name
    """,
    "N104 collected": """
        with Session(engine) as s:
            users = [user for user in s.scalars(select(User))]  # expect: N104 N102
        @app.get("/")
        def index():
            return users[0].name
    """,
    "N104 dict": """
        users = {}  # expect: N104
        @app.get("/<key>")
        def index(key):
            with Session(engine) as s:
                users[key] = s.get(User, key)
            return users[key].name
    """,
    "N201 item": "seen = {}  # expect: N201\n@app.get('/')\ndef index():\n    seen['a'] = 1\n    return 'a'",
    "N201 method": "seen = []  # expect: N201\n@app.get('/')\ndef index():\n    seen.append(1)",
    "N201 rebind": """
        n = 0  # expect: N201
        @app.get("/")
        def index():
            global n
            n += 1
            return str(n)
    """,
    "N201 frame": """
        import pandas as pd
        frame = pd.read_csv("x.csv")  # expect: N201
        @app.get("/")
        def index():
            frame.loc[0, "a"] = 1
            frame["b"] = 2
            return "ok"
    """,
    "N201 class": """
        class Counter:
            hits = {}  # expect: N201
        @app.get("/")
        def index():
            Counter.hits["a"] = 1
            return "ok"
    """,
    "N201 attribute of a class": """
        class Visitor:
            names = []  # expect: N201
            def add(self, name): self.names.append(name)
        @app.get("/<name>")
        def index(name):
            visitor = Visitor()
            visitor.add(name)
            return "ok"
    """,
    "N201 object": """
        class State:
            def __init__(self): self.user = None
        state = State()  # expect: N201
        @app.get("/<name>")
        def index(name):
            state.user = name
            return state.user
    """,
    "N201 method view": """
        from flask.views import MethodView
        seen = set()  # expect: N201
        class Api(MethodView):
            def get(self):
                seen.add(1)
                return "ok"
    """,
    "N201 holder": """
        class Cart:
            def __init__(self): self.items = []
            def add(self, item): self.items.append(item)
        cart = Cart()  # expect: N201
        @app.get("/<item>")
        def index(item):
            cart.add(item)
            return "ok"
    """,
    "N201 application": """
        from flask import current_app
        @app.get("/<name>")
        def index(name):
            current_app.config["LAST"] = name  # expect: N201
            return "ok"
    """,
    "N201 in place": """
        import pandas as pd
        frame = pd.read_csv("x.csv")  # expect: N201
        @app.get("/")
        def index():
            frame.drop(columns=["a"], inplace=True)
            return "ok"
    """,
    "N301 run": "app.run(debug=True)  # expect: N301",
    "N301 waitress": "from waitress import serve\nserve(app)  # expect: N301",
    "N301 in a function": "def main():\n    app.run()  # expect: N301\nmain()",
    "N302 chain": "app.app_context().push()  # expect: N302",
    "N302 variable": "context = app.test_request_context()\ncontext.push()  # expect: N302",
    "N401 thread": "import threading\nthreading.Thread(target=print).start()  # expect: N401",
    "N401 variable": "from threading import Timer\ntimer = Timer(5, print)\ntimer.start()  # expect: N401",
    "N401 class": """
        import threading
        class Beat(threading.Thread):
            def run(self): pass
        beat = Beat()
        beat.start()  # expect: N401
    """,
    "N401 scheduler": """
        from apscheduler.schedulers.background import BackgroundScheduler
        scheduler = BackgroundScheduler(daemon=True)
        scheduler.start()  # expect: N401
    """,
    "N401 pool": "from multiprocessing import Pool\npool = Pool(4)  # expect: N401",
    "N401 executor": """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor()
        pool.submit(print)  # expect: N401
    """,
    "N402 pickle": "import pickle\nmodel = pickle.load(open('m', 'rb'))  # expect: N402",
    "N402 pretrained": "from transformers import Bert\nm = Bert.from_pretrained('x')  # expect: N402",
    "N402 in a dict": "import joblib\nmodels = {'a': joblib.load('a')}  # expect: N402",
    "N402 in a function": """
        import joblib
        def load():
            return joblib.load("m")
        model = load()  # expect: N402
    """,
    "N403 fit": "from sklearn.svm import SVC\nmodel = SVC()\nmodel.fit([[1]], [1])  # expect: N403",
    "N402 into an object": """
        import xgboost
        model = xgboost.Booster()
        model.load_model("m")  # expect: N402
    """,
    "N403 predict": "import joblib\nm = joblib.load('m')\nm.predict([[1]])  # expect: N403",
    "N404 generator": """
        import numpy as np
        rng = np.random.default_rng()  # expect: N404
        @app.get("/")
        def index():
            return str(rng.random())
    """,
    "N404 seed of Python": """
        import random
        random.seed(1)  # expect: N404
        @app.get("/")
        def index():
            return str(random.random())
    """,
    "N404 seed": """
        import numpy as np
        np.random.seed(1)  # expect: N404
        @app.get("/")
        def index():
            return str(np.random.rand())
    """,
    "N501 threads": """
        unsafe = create_engine("sqlite://", connect_args={"check_same_thread": False})  # expect: N501
    """,
    "N501 scoped": """
        sessions = scoped_session(sessionmaker(engine))  # expect: N501
        @app.get("/")
        def index():
            return str(sessions.get(User, 1))
    """,
    "N501 swallowed": """
        from flask_sqlalchemy import SQLAlchemy
        db = SQLAlchemy(app)
        @app.post("/")
        def add():
            try:
                db.session.commit()
            except Exception:  # expect: N501
                return "failed"
            return "ok"
    """,
    "N501 connection": """
        import sqlite3
        connection = sqlite3.connect("a.db")  # expect: N103
        @app.post("/")
        def add():
            try:
                connection.commit()
            except:  # expect: N501
                return "failed"
            return "ok"
    """,
    "X901": "def broken(:  # expect: X901",
}
# Correct code.
GOOD = {
    "N101 factories": "Local = sessionmaker(engine)\nmetadata = Base.metadata",
    "N101 closed": "s = Session(engine)\ns.close()",
    "N101 with": "with Session(engine) as session:\n    pass",
    "N101 in a function": "def query():\n    session = Session(engine)\n    return session.get(User, 1)",
    "N101 main": "if __name__ == '__main__':\n    session = Session(engine)\n    session.get(User, 1)",
    "N101 other connect": "import blinker, socket\nblinker.signal('a').connect(print)\ns = socket.socket()",
    "N102 in a command": "@app.cli.command()\ndef setup():\n    Base.metadata.create_all(engine)",
    "N102 main": "if __name__ == '__main__':\n    Base.metadata.create_all(engine)",
    "N103 parameter": """
        def find(session):
            return session.get(User, 1)
        @app.get("/")
        def index():
            with Session(engine) as session:
                return str(find(session))
    """,
    "N103 same name": """
        def tool():
            session = Session(engine)
            return session
        @app.get("/")
        def index():
            from flask import session
            return session["a"]
    """,
    "N104 values": """
        from functools import cache
        @cache
        def name(key):
            with Session(engine) as s:
                return s.get(User, key).name
        @app.get("/")
        def index():
            return name(1)
    """,
    "N104 columns": """
        names = {}
        import threading
        lock = threading.Lock()
        @app.get("/<key>")
        def index(key):
            with Session(engine) as s, lock:
                names[key] = s.execute(select(User.name)).scalar()
            return names[key]
    """,
    "N201 local": "@app.get('/')\ndef index():\n    seen = {}\n    seen['a'] = 1\n    return seen",
    "N201 registry": """
        handlers = {}
        def register(function):
            handlers[function.__name__] = function
            return function
        @register
        def first(): pass
        @app.get("/")
        def index():
            return str(handlers["first"]())
    """,
    "N201 object of a request": """
        class Cart:
            def __init__(self): self.items = []
            def add(self, item): self.items.append(item)
        @app.get("/<item>")
        def index(item):
            cart = Cart()
            cart.add(item)
            return str(cart.items)
    """,
    "N201 lock": """
        import threading
        lock, n = threading.Lock(), 0
        @app.get("/")
        def index():
            global n
            with lock:
                n += 1
            return str(n)
    """,
    "N201 first use": """
        client = None
        def connect():
            global client
            if client is None:
                client = object()
            return client
        @app.get("/")
        def index():
            return str(connect())
    """,
    "N201 copy": """
        import pandas as pd
        frame = pd.read_csv("x.csv")
        @app.get("/")
        def index():
            mine = frame.copy()
            mine["a"] = 1
            return frame.drop_duplicates().sort_values("a").to_json()
    """,
    "N201 thread local": """
        import threading
        state = threading.local()
        @app.get("/")
        def index():
            state.user = 1
            return "ok"
    """,
    "N201 g": "from flask import g\n@app.get('/')\ndef index():\n    g.user = 1\n    return 'ok'",
    "N201 not in a request": "n = 0\ndef command():\n    global n\n    n += 1",
    "N301 main": "if __name__ == '__main__':\n    app.run()",
    "N301 function": "def main():\n    app.run()",
    "N301 other run": "import subprocess\nsubprocess.run(['true'])",
    "N302 with": "with app.app_context():\n    pass",
    "N302 popped": "context = app.app_context()\ncontext.push()\ncontext.pop()",
    "N302 other push": "stack = []\nclass Stack:\n    def push(self, x): pass\nStack().push(1)",
    "N401 not started": "import threading\nt = threading.Thread(target=print)",
    "N401 in a view": """
        import threading
        @app.get("/")
        def index():
            threading.Thread(target=print).start()
            return "ok"
    """,
    "N401 executor": "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor()",
    "N401 other start": "class Job:\n    def start(self): pass\njob = Job()\njob.start()",
    "N402 first use": "import functools, joblib\n@functools.cache\ndef model():\n    return joblib.load('m')",
    "N403 in a view": """
        from sklearn.svm import SVC
        @app.get("/")
        def index():
            return str(SVC().fit([[1]], [1]))
    """,
    "N403 other fit": "class Suit:\n    def fit(self): pass\nSuit().fit()",
    "N404 in a view": """
        import numpy as np
        @app.get("/")
        def index():
            return str(np.random.default_rng().random())
    """,
    "N404 not in requests": "import numpy as np\nrng = np.random.default_rng(1)",
    "N404 random": """
        import random
        random.seed()  # Python itself seeds this generator again after a fork.
        @app.get("/")
        def index():
            return str(random.random())
    """,
    "N501 removed": """
        sessions = scoped_session(sessionmaker(engine))
        @app.teardown_appcontext
        def remove(error):
            sessions.remove()
        @app.get("/")
        def index():
            return str(sessions.get(User, 1))
    """,
    "N501 rolled back": """
        from flask_sqlalchemy import SQLAlchemy
        db = SQLAlchemy(app)
        @app.post("/")
        def add():
            try:
                db.session.commit()
            except Exception:
                db.session.rollback()
                return "failed"
            return "ok"
    """,
    "N501 closed": """
        @app.post("/")
        def add():
            with Session(engine) as session:
                try:
                    session.commit()
                except Exception:
                    return "failed"
            return "ok"
    """,
    "N501 other error": """
        from flask_sqlalchemy import SQLAlchemy
        db = SQLAlchemy(app)
        @app.post("/")
        def add():
            try:
                value = int("1")
                db.session.commit()
            except ValueError:
                return "failed"
            return "ok"
    """,
}


def code(text: str) -> str:
    """Return a sample with its imports."""
    lines = text.strip("\n").split("\n")
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return START + "\n".join(line[indent:] for line in lines) + "\n"


@pytest.mark.parametrize("name", BAD)
def test_a_hazard_is_found(name: str, tmp_path: Path) -> None:
    """Each labelled line has its finding, once per object, and no other line has one."""
    text = code(BAD[name])

    assert found(diagnose(tmp_path, text)) == expected(text)


@pytest.mark.parametrize("name", GOOD)
def test_what_looks_like_a_hazard_is_not_found(name: str, tmp_path: Path) -> None:
    """Correct code that resembles a hazard has no finding."""
    assert diagnose(tmp_path, code(GOOD[name])) == []


def test_every_hazard_has_samples() -> None:
    """Each rule has code with the hazard, and each rule about names has code that only resembles it."""
    assert {name.split()[0] for name in BAD} | {"N601"} == set(CATALOGUE)
    assert {name.split()[0] for name in GOOD} | {"N601", "X901"} == set(CATALOGUE)


def test_an_object_is_one_finding_with_all_its_uses(tmp_path: Path) -> None:
    """A session that three views use, one through a function, is one finding with each use and its path."""
    text = code("""
        session = Session(engine)
        def find():
            return session.get(User, 1)
        @app.get("/a")
        def a():
            return str(session.get(User, 1))
        @app.get("/b")
        def b():
            return str(find())
        @app.get("/c")
        def c():
            session.commit()
            return "ok"
    """)

    (finding,) = diagnose(tmp_path, text)

    assert (finding.rule, finding.level, finding.object) == ("N103", "error", "session")
    assert sorted(use.where for use in finding.uses) == ["a", "b → find", "c"]
    lines = text.splitlines()
    for use in finding.uses:
        assert lines[use.place.line - 1][use.place.column - 1 :].startswith("session.")
