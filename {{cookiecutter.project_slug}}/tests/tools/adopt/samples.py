"""Notebooks and scripts of different shapes, written for these tests and labelled before the first run.

A comment `# goes: kind` labels the statement that begins on its line. `asks` after the kind means an open
question, of the statement itself or of one that it needs.
"""

CHURN = (
    """
    import joblib  # goes: import
    from flask import Flask, jsonify, request  # goes: import
    """,
    """
    PATH = "churn.joblib"  # goes: constant
    LIMIT = 0.5  # goes: constant
    model = joblib.load(PATH)  # goes: load
    """,
    """
    def features(payload):  # goes: function
        return [[payload["age"], payload["balance"]]]
    """,
    """
    app = Flask(__name__)  # goes: dropped

    @app.route("/predict", methods=["POST"])  # goes: view
    def predict():
        score = float(model.predict(features(request.json))[0])
        return jsonify(score=score, churns=score > LIMIT)
    """,
    "app.run(debug=True)  # goes: dropped",
)
FRAME = (
    """
    import pandas as pd  # goes: import
    from flask import Flask  # goes: import
    app = Flask(__name__)  # goes: dropped
    df = pd.read_csv("sales.csv")  # goes: decision asks
    df = df.dropna()  # goes: decision asks
    df.head()  # goes: dropped
    """,
    """
    @app.get("/total")  # goes: view asks
    def total():
        return {"total": float(df["price"].sum())}

    @app.get("/alive")  # goes: view
    def alive():
        return "yes"
    """,
)
GLOBAL_SESSION = (
    """
    from flask import Flask, jsonify, request  # goes: import
    from sqlalchemy import Column, Integer, String, create_engine  # goes: import
    from sqlalchemy.orm import declarative_base, sessionmaker  # goes: import
    engine = create_engine("postgresql://ada:hunter2@db/shop")  # goes: dropped
    Base = declarative_base()  # goes: dropped
    Session = sessionmaker(engine)  # goes: dropped
    session = Session()  # goes: session
    app = Flask(__name__)  # goes: dropped
    """,
    """
    class Item(Base):  # goes: model
        __tablename__ = "adopted_items"
        id = Column(Integer, primary_key=True)
        name = Column(String(80), nullable=False)

    Base.metadata.create_all(engine)  # goes: dropped
    """,
    """
    def named(name):  # goes: function
        return session.query(Item).filter(Item.name == name).all()

    @app.route("/items")  # goes: view
    def list_items():
        return jsonify([item.name for item in session.query(Item).order_by(Item.id)])

    @app.route("/items/<name>")  # goes: view
    def count_items(name):
        return jsonify(len(named(name)))

    @app.route("/items", methods=["POST"])  # goes: view
    def add_item():
        item = Item(name=request.json["name"])
        session.add(item)
        session.commit()
        return jsonify(id=item.id), 201
    """,
)
SHOP = (
    """
    from flask import Flask, jsonify, request  # goes: import
    from flask_sqlalchemy import SQLAlchemy  # goes: import
    app = Flask(__name__)  # goes: dropped
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///shop.db"  # goes: dropped
    db = SQLAlchemy(app)  # goes: dropped
    """,
    """
    class AdoptedProduct(db.Model):  # goes: model
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String(80), unique=True, nullable=False)
        price = db.Column(db.Float)

        def to_dict(self):
            return {"id": self.id, "name": self.name, "price": self.price}
    """,
    """
    @app.get("/products")  # goes: view
    def products():
        return jsonify([product.to_dict() for product in AdoptedProduct.query.all()])

    @app.get("/products/<int:number>")  # goes: view
    def product(number):
        return jsonify(AdoptedProduct.query.get_or_404(number).to_dict())

    @app.post("/products")  # goes: view
    def add():
        product = AdoptedProduct(name=request.json["name"])
        try:
            db.session.add(product)
            db.session.commit()
        except ValueError:
            db.session.rollback()
            return {"error": "no name"}, 400
        return product.to_dict(), 201
    """,
)
PURE = (
    "import math  # goes: import",
    "TAU = 2 * math.pi  # goes: dropped",
    """
    def area(radius):  # goes: function
        return math.pi * radius ** 2

    def areas(radii):  # goes: function
        return [area(radius) for radius in radii]
    """,
    "areas([1, 2])  # goes: dropped",
)
MAGICS = (
    "%matplotlib inline\n!pip install flask\nimport matplotlib.pyplot as plt  # goes: import",
    "plt.plot([1, 2])  # goes: dropped",
    "%%time\ndef double(x):  # goes: function\n    return 2 * x",
)
COUNTERS = (
    """
    from flask import Flask  # goes: import
    app = Flask(__name__)  # goes: dropped
    hits = 0  # goes: constant asks
    seen = []  # goes: constant asks

    @app.get("/hit")  # goes: view asks
    def hit():
        global hits
        hits += 1
        return str(hits)

    def remember(name):  # goes: function asks
        seen.append(name)

    @app.get("/seen/<name>")  # goes: view asks
    def see(name):
        remember(name)
        return {"seen": seen}
    """,
)
UNDEFINED = (
    """
    from flask import Flask  # goes: import
    app = Flask(__name__)  # goes: dropped

    @app.get("/late")  # goes: view
    def late():
        return str(RATE)

    @app.get("/lost")  # goes: view asks
    def lost():
        return str(vanished)
    """,
    "RATE = 3  # goes: constant",
)
BROKEN = ("def broken(:\n    pass", "def whole(x):  # goes: function\n    return x")
TWICE = (
    "def score(x):  # goes: function asks\n    return x",
    "def score(x):  # goes: function asks\n    return 2 * x",
    """
    from flask import Flask  # goes: import
    app = Flask(__name__)  # goes: dropped

    @app.get("/score/<int:x>")  # goes: view asks
    def read(x):
        return str(score(x))
    """,
)
SECRETS = (
    """
    import os  # goes: import
    from flask import Flask  # goes: import
    app = Flask(__name__)  # goes: dropped
    API_KEY = "hunter2"  # goes: setting asks
    DSN = "postgresql://ada:hunter2@db/shop"  # goes: setting asks
    HOST = os.environ["HOST"]  # goes: setting asks
    URL = "https://example.org/rates"  # goes: constant

    @app.get("/rate")  # goes: view asks
    def rate():
        password = "hunter2"
        return {"url": URL, "key": API_KEY, "password": password}
    """,
)
PICKLE = (
    """
    import pickle  # goes: import
    from flask import Flask, jsonify, request  # goes: import
    app = Flask(__name__)  # goes: dropped
    with open("model.pkl", "rb") as file:  # goes: load
        model = pickle.load(file)
    encoder = pickle.load(open("encoder.pkl", "rb"))  # goes: load

    @app.route("/predict", methods=["POST"])  # goes: view
    def predict():
        X = encoder.transform([request.json])
        return jsonify(float(model.predict(X)[0]))
    """,
)
OVERRIDES = (
    "# adopt: skip\ndef left(x):  # goes: skipped\n    return x",
    """
    from flask import Flask  # goes: import
    app = Flask(__name__)  # goes: dropped
    """,
    """
    # adopt: service
    @app.get("/plain")  # goes: function
    def plain():
        return "plain"
    """,
)
PAGES = (
    """
    from flask import Flask, render_template, session  # goes: import
    app = Flask(__name__)  # goes: dropped

    @app.get("/")  # goes: view asks
    def home():
        return render_template("index.html")

    @app.get("/me")  # goes: view asks
    def me():
        return session["name"]

    @app.before_request  # goes: decision asks
    def check():
        return None
    """,
)
LOCAL_SESSIONS = (
    """
    from flask import Flask, jsonify  # goes: import
    from sqlalchemy import create_engine, text  # goes: import
    from sqlalchemy.orm import sessionmaker  # goes: import
    engine = create_engine("sqlite://")  # goes: dropped
    Local = sessionmaker(bind=engine)  # goes: dropped
    app = Flask(__name__)  # goes: dropped

    @app.get("/one")  # goes: view
    def one():
        with Local() as s:
            return jsonify(s.execute(text("SELECT 1")).scalar())

    @app.get("/two")  # goes: view
    def two():
        s = Local()
        try:
            return jsonify(s.scalar(text("SELECT 2")))
        finally:
            s.close()

    @app.post("/loop")  # goes: view asks
    def loop():
        s = Local()
        for number in range(3):
            s.execute(text("SELECT 3"))
            s.commit()
        return "done"
    """,
)
CLIMATE = (
    """
    from flask import Flask, jsonify  # goes: import
    from sqlalchemy import create_engine  # goes: import
    from sqlalchemy.ext.automap import automap_base  # goes: import
    from sqlalchemy.orm import Session  # goes: import
    engine = create_engine("sqlite:///hawaii.sqlite")  # goes: dropped
    Base = automap_base()  # goes: dropped
    Base.prepare(engine, reflect=True)  # goes: dropped
    Station = Base.classes.station  # goes: decision asks
    session = Session(engine)  # goes: session
    app = Flask(__name__)  # goes: dropped

    def names(limit):  # goes: function asks
        return session.query(Station.name).limit(limit).all()

    @app.get("/stations")  # goes: view asks
    def stations():
        app.logger.info("asked")
        return jsonify(names(3))

    @app.get("/alive")  # goes: view
    def alive():
        app.logger.info("alive")
        return "yes"
    """,
    "%%writefile other.py\nx = 1",
)
SAMPLES = {name.lower(): cells for name, cells in list(globals().items()) if isinstance(cells, tuple)}
