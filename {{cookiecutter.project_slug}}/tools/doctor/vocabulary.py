"""The library names known to the checks, and the kind of object that each creates.

A kind is a word such as `session`. Objects of other libraries have no kind, so no check reports them. To add
a library, add its name to a table.
"""


def words(text: str) -> frozenset[str]:
    """Return the words of a list."""
    return frozenset(text.split())


# Modules with the connect() of the DB-API, or one like it.
DATABASES = words(
    "MySQLdb asyncmy cx_Oracle duckdb hdbcli.dbapi ibm_db ibm_db_dbi jaydebeapi libsql mariadb"
    " mysql.connector oracledb pg8000 pg8000.dbapi psycopg psycopg2 psycopg2cffi psycopg_c pymssql"
    " pymysql pyodbc pysqlcipher3.dbapi2 redshift_connector snowflake.connector sqlite3 sqlite3.dbapi2"
    " teradatasql trino.dbapi turbodbc vertica_python clickhouse_driver clickhouse_driver.dbapi"
)
# The names of SQLAlchemy and SQLModel, whichever of their modules they are imported from.
SQLALCHEMY = {
    "MetaData": "metadata",
    "Session": "session",
    "Table": "table",
    "automap_base": "automap",
    "create_engine": "engine",
    "create_mock_engine": "unknown",
    "declarative_base": "base",
    "engine_from_config": "engine",
    "inspect": "inspector",
    "scoped_session": "scoped_session",
    "sessionmaker": "sessionmaker",
}
BASES = frozenset({"DeclarativeBase", "DeclarativeBaseNoMeta", "SQLModel", "MappedAsDataclass"})
MAKES = {
    "MySQLdb.Connection": "connection",
    "mysql.connector.MySQLConnection": "connection",
    "psycopg.Connection.connect": "connection",
    "pymysql.Connection": "connection",
    "pymysql.connections.Connection": "connection",
    "sqlite3.Connection": "connection",
    "sqlalchemy.orm.create_session": "session",
    "sqlalchemy.orm.session.Session": "session",
    "flask_sqlalchemy.SQLAlchemy": "database",
    "flask_sqlalchemy_lite.SQLAlchemy": "database",
    "flask_appbuilder.SQLA": "database",
    "flask_appbuilder.extensions.db": "database",
    "flask.Flask": "app",
    "apiflask.APIFlask": "app",
    "connexion.App": "app",
    "connexion.FlaskApp": "app",
    "flask_openapi3.OpenAPI": "app",
    "quart.Quart": "app",
    "fastapi.FastAPI": "app",
    "flask.Blueprint": "blueprint",
    "apiflask.APIBlueprint": "blueprint",
    "flask_smorest.Blueprint": "blueprint",
    "fastapi.APIRouter": "blueprint",
    "flask_caching.Cache": "cache",
    "flaskext.mysql.MySQL": "driver",
    "flask_socketio.SocketIO": "server",
    "wsgiref.simple_server.make_server": "server",
    "werkzeug.serving.make_server": "server",
    "gevent.pywsgi.WSGIServer": "server",
    "gevent.wsgi.WSGIServer": "server",
    "cheroot.wsgi.Server": "server",
    "tornado.httpserver.HTTPServer": "server",
    "threading.Thread": "thread",
    "threading.Timer": "thread",
    "multiprocessing.Process": "thread",
    "multiprocessing.context.Process": "thread",
    "watchdog.observers.Observer": "thread",
    "flask_apscheduler.APScheduler": "scheduler",
    "multiprocessing.Pool": "pool",
    "multiprocessing.pool.Pool": "pool",
    "multiprocessing.pool.ThreadPool": "pool",
    "multiprocessing.Manager": "pool",
    "concurrent.futures.ThreadPoolExecutor": "executor",
    "concurrent.futures.ProcessPoolExecutor": "executor",
    "concurrent.futures.thread.ThreadPoolExecutor": "executor",
    "sklearn.compose.make_column_transformer": "model",
    "sklearn.pipeline.make_pipeline": "model",
    "sklearn.pipeline.make_union": "model",
    "numpy.random.default_rng": "rng",
    "numpy.random.Generator": "rng",
    "numpy.random.RandomState": "rng",
    "random.Random": "rng",
    "torch.Generator": "rng",
    "dict": "container",
    "list": "container",
    "set": "container",
    "bytearray": "container",
    "collections.Counter": "container",
    "collections.OrderedDict": "container",
    "collections.defaultdict": "container",
    "collections.deque": "container",
    "pandas.DataFrame": "dataframe",
    "pandas.Series": "dataframe",
    "polars.DataFrame": "dataframe",
    "geopandas.GeoDataFrame": "dataframe",
    "numpy.array": "container",
    "numpy.zeros": "container",
    "numpy.ones": "container",
    "threading.Lock": "lock",
    "threading.RLock": "lock",
    "threading.Condition": "lock",
    "threading.Semaphore": "lock",
    "threading.BoundedSemaphore": "lock",
    "multiprocessing.Lock": "lock",
    "multiprocessing.RLock": "lock",
    "gevent.lock.RLock": "lock",
    "gevent.lock.BoundedSemaphore": "lock",
    "threading.local": "local",
    "contextvars.ContextVar": "local",
    "werkzeug.local.LocalProxy": "local",
    "flask.current_app": "app",
}
# Functions that load a trained model; the last part of a name, such as `*.from_pretrained`, is enough.
LOADERS = words(
    "catboost.CatBoost.load_model cloudpickle.load dill.load fasttext.load_model"
    " gensim.models.KeyedVectors.load gensim.models.KeyedVectors.load_word2vec_format"
    " gensim.models.Word2Vec.load gensim.models.Doc2Vec.load gensim.downloader.load joblib.load"
    " keras.models.load_model keras.saving.load_model lightgbm.Booster mlflow.pyfunc.load_model"
    " mlflow.sklearn.load_model mlflow.keras.load_model mlflow.pytorch.load_model"
    " onnxruntime.InferenceSession pickle.load sentence_transformers.SentenceTransformer"
    " sklearn.externals.joblib.load skops.io.load spacy.load tensorflow.keras.models.load_model"
    " tensorflow.saved_model.load tensorflow.keras.models.model_from_json keras.models.model_from_json"
    " torch.hub.load torch.jit.load torch.load transformers.pipeline ultralytics.YOLO whisper.load_model"
    " easyocr.Reader fastai.learner.load_learner fastai.vision.all.load_learner joblib.numpy_pickle.load"
)
LOADER_METHODS = frozenset({"from_pretrained", "load_from_checkpoint"})
# Model methods that load one.
LOADS = frozenset({"model.load_model", "model.load_state_dict", "model.load_weights"})
# Packages whose classes are models.
MODELS = words("catboost keras lightgbm prophet sklearn statsmodels surprise tensorflow torch xgboost")
USES = words(
    "fit fit_predict fit_transform partial_fit predict predict_proba predict_on_batch decision_function"
    " transform train encode generate"
)
# Return kinds of methods.
RETURNS = {
    "engine.connect": "connection",
    "engine.begin": "connection",
    "engine.raw_connection": "connection",
    "engine.execute": "result",
    "engine.execution_options": "engine",
    "driver.connect": "connection",
    "driver.get_db": "connection",
    "connection.cursor": "cursor",
    "connection.execute": "result",
    "connection.connection": "connection",
    "session.connection": "connection",
    "session.query": "query",
    "session.execute": "result",
    "session.scalars": "result",
    "session.get": "instance",
    "session.get_one": "instance",
    "session.merge": "instance",
    "scoped_session.query": "query",
    "scoped_session.execute": "result",
    "scoped_session.scalars": "result",
    "scoped_session.get": "instance",
    "scoped_session.get_one": "instance",
    "managed_session.query": "query",
    "managed_session.execute": "result",
    "managed_session.scalars": "result",
    "managed_session.get": "instance",
    "managed_session.get_one": "instance",
    "query.all": "instances",
    "query.first": "instance",
    "query.first_or_404": "instance",
    "query.get": "instance",
    "query.get_or_404": "instance",
    "query.one": "instance",
    "query.one_or_none": "instance",
    "query.one_or_404": "instance",
    "database.first_or_404": "instance",
    "database.get_or_404": "instance",
    "result.scalar": "instance",
    "result.scalar_one": "instance",
    "result.scalar_one_or_none": "instance",
    "result.scalars": "query",
    "database.create_session": "scoped_session",
    "database.create_scoped_session": "managed_session",
    "app.app_context": "context",
    "app.test_request_context": "context",
    "app.request_context": "context",
    "model.fit": "model",
    "sessionmaker.begin": "session",
    "dataframe.copy": "dataframe",
    "dataframe.merge": "dataframe",
    "dataframe.reset_index": "dataframe",
    "dataframe.rename": "dataframe",
    "dataframe.groupby": "dataframe",
    "dataframe.sort_values": "dataframe",
    "dataframe.dropna": "dataframe",
    "dataframe.set_index": "dataframe",
}
# Kinds of attributes.
ATTRIBUTES = {
    "database.session": "managed_session",
    "database.engine": "engine",
    "database.metadata": "metadata",
    "database.Model": "base",
    "base.metadata": "metadata",
    "automap.metadata": "metadata",
    "automap.classes": "classes",
    "class.metadata": "metadata",
    "class.query": "query",
    "session.bind": "engine",
    "container.loc": "container",
    "dataframe.loc": "dataframe",
    "dataframe.iloc": "dataframe",
    "dataframe.at": "dataframe",
    "dataframe.iat": "dataframe",
}
# Methods that send statements to the database.
STATEMENTS = frozenset(
    f"{kind}.{method}"
    for kinds, methods in {
        "automap": "prepare",
        "connection": "commit execute executemany executescript exec_driver_sql",
        "inspector": "get_columns get_indexes get_table_names get_view_names has_table",
        "peewee": "connect create_tables drop_tables execute_sql",
        "cursor": "callproc execute executemany executescript",
        "database metadata": "create_all drop_all reflect",
        "dataframe": "to_sql",
        "engine": "begin connect execute has_table raw_connection table_names",
        "query": "all count first get one scalar",
        "managed_session scoped_session session": "bulk_save_objects commit execute flush get get_one query"
        " scalar scalars",
    }.items()
    for kind in kinds.split()
    for method in methods.split()
)
# Functions that send statements to the database.
READERS = words(
    "pandas.read_sql pandas.read_sql_query pandas.read_sql_table pandas.io.sql.read_sql"
    " polars.read_database flask_migrate.upgrade alembic.command.upgrade geopandas.read_postgis"
)
CACHES = words(
    "cache.memoize cachetools.cached cachetools.func.lru_cache cachetools.func.ttl_cache functools.cache"
    " functools.lru_cache"
)
SERVERS = words(
    "bottle.run hypercorn.run uvicorn.run waitress.serve werkzeug.serving.run_simple flask_socketio.run"
)
STARTS = frozenset({"_thread.start_new_thread", "thread.start_new_thread", "gevent.spawn", "eventlet.spawn"})
SEEDS = frozenset({"numpy.random.seed", "random.seed"})
# Methods of an application or a blueprint whose decorated function runs in each request.
VIEWS = words(
    "after_app_request after_request app_context_processor app_errorhandler app_template_filter"
    " app_template_global app_url_value_preprocessor before_app_request before_request context_processor"
    " delete errorhandler get patch post put route teardown_app_request teardown_appcontext"
    " teardown_request template_filter template_global url_value_preprocessor websocket user_loader"
    " expose"
)
# Those of them that take a path.
PATHS = frozenset({"delete", "get", "patch", "post", "put", "route", "websocket"})
VIEW_CLASSES = words(
    "flask.views.MethodView flask.views.View flask_restful.Resource flask_restx.Resource"
    " flask_classful.FlaskView flask_rest_jsonapi.ResourceList flask_rest_jsonapi.ResourceDetail"
)


def find_kind(name: str) -> str | None:
    """Return the kind of object that a call of this dotted name makes, or None."""
    module, _, last = name.rpartition(".")
    if name in MAKES:
        return MAKES[name]
    top = name.partition(".")[0]
    if top in {"sqlalchemy", "sqlmodel"} and last in SQLALCHEMY:
        return SQLALCHEMY[last]
    if last == "connect" and module in DATABASES:
        return "connection"
    if name in LOADERS or last in LOADER_METHODS:
        return "loaded"
    if top in MODELS and last[:1].isupper():
        return "model"
    if top == "apscheduler" and last.endswith("Scheduler"):
        return "scheduler"
    if top == "peewee" and last.endswith("Database"):
        return "peewee"
    if top == "pandas" and last.startswith("read_"):
        return "dataframe"
    return None
