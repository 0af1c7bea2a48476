"""The hazards that the checks find: a title, why it fails in a service, and how to fix it."""

from typing import NamedTuple


class Hazard(NamedTuple):
    """An entry of the catalogue."""

    title: str
    why: str
    fix: str


CATALOGUE = {
    "N101": Hazard(
        "database session or connection opened at import",
        "The line runs once, when the process imports the file, and the object then lives as long as the "
        "process. If the server forks afterwards, all workers inherit one socket and read each other's "
        "answers. After the first error, or a restart of the database, the object stays broken until the "
        "process ends.",
        "Open it where it is used and close it there: `with Session(engine) as session:` or `with "
        "engine.connect() as connection:`. A module may keep the engine or the sessionmaker, which open "
        "nothing.",
    ),
    "N102": Hazard(
        "database statement at import",
        "The statement runs whenever the file is imported: in each worker, in each command and in each "
        "test. The service cannot start while the database is away. If the server imports the code before "
        "it forks, the engine's pool keeps the connection, and all workers inherit its socket.",
        "Move the statement into the function that needs its result, or into a command or a migration "
        "that runs before the service starts. Declare tables as models instead of reflecting them.",
    ),
    "N103": Hazard(
        "one database session or connection for every request",
        "All requests and threads of the process share one conversation with the database. One failed "
        "statement leaves it in an invalid transaction, and every later request fails with "
        "PendingRollbackError. (Without SQLAlchemy, psycopg raises InFailedSqlTransaction, and sqlite3 "
        "rejects other threads.) One request's commit stores the unfinished work of another one, and its "
        "rollback discards it.",
        "Open one for each request: `with Session(engine) as session:` in the view, or `db.session` of "
        "Flask-SQLAlchemy. Pass it to the functions that need it, and commit in the view.",
    ),
    "N104": Hazard(
        "ORM instance kept across requests",
        "The instance belongs to the session that loaded it. After that session has ended, a lazy "
        "attribute raises DetachedInstanceError. While the session is open, the values are those of the "
        "first request, and other threads load through a session that is not theirs.",
        "Keep the primary key, or plain values such as a dict, a tuple or a dataclass, and load the "
        "instance again in each request.",
    ),
    "N201": Hazard(
        "request changes a global",
        "Each worker process has its own copy of a global, so clients see different values, which a "
        "restart deletes. Threads of one worker share the copy, and one client's value answers another "
        "client's request.",
        "Keep what must last in the database or in a cache server, and what belongs to one request in a "
        "local variable or in `flask.g`. If a value of one process is intended, change it under a lock.",
    ),
    "N301": Hazard(
        "server started at import",
        "The call does not return. A production server that imports the file hangs, or starts Flask's "
        "development server, which serves one process without supervision, and with debug=True gives "
        "clients a Python console.",
        "Delete the call from code that is served, or put it under `if __name__ == '__main__':` in a .py "
        "file. Start the service with gunicorn or uWSGI.",
    ),
    "N302": Hazard(
        "application context pushed and never popped",
        "A context that stays pushed keeps its session, so every thread that runs below it shares "
        "identity map and transaction, and teardown functions never run. IPython kernels lose the context "
        "between cells.",
        "Write `with app.app_context():` around the code that needs it.",
    ),
    "N401": Hazard(
        "thread, scheduler or pool started at import",
        "A thread does not survive a fork: a server that loads the code first has workers without it, and "
        "a lock that it held stays locked. A server that loads the code in each worker runs the job once "
        "for every worker.",
        "Run the job as a separate process, or start it in a hook of the server such as gunicorn's "
        "post_fork.",
    ),
    "N402": Hazard(
        "model loaded at import",
        "Each import waits for the load: each worker, each command, each test. Workers that fork later "
        "share the memory only until it is written, and a reference count is a write.",
        "Load it on first use, in a function with `functools.lru_cache`, or in a hook of the server after "
        "the fork.",
    ),
    "N403": Hazard(
        "model trained or used at import",
        "Training or prediction starts the threads and locks of OpenMP or BLAS. They do not survive a "
        "fork: in a worker that inherits the model, the first prediction hangs until the server kills the "
        "worker.",
        "Train in a separate program that stores the model. Load it on first use, in a function with "
        "`functools.lru_cache`, and predict only in requests.",
    ),
    "N404": Hazard(
        "random generator made at import and used by requests",
        "A fork copies the generator's state, so every worker draws the same numbers: tokens, samples and "
        "identifiers repeat. Threads change the state at the same time.",
        "Make the generator in the function that draws, as in `numpy.random.default_rng()`, and use "
        "`secrets` for what must not be guessed.",
    ),
    "N501": Hazard(
        "unsafe use of a session",
        "`check_same_thread=False` removes SQLite's guard, and not the race behind it. A scoped_session "
        "without remove() gives a thread's next request the session of its last one. After a failed flush "
        "or commit, a session without rollback() rejects every statement with PendingRollbackError.",
        "Give each request its own session, which ends with it: `with Session(engine) as session:`, or "
        "call remove() in `@app.teardown_appcontext`. Call rollback() in the handler, or let the "
        "exception pass.",
    ),
    "N601": Hazard(
        "server configuration contradicts the code",
        "The configuration decides whether threads run and what crosses a fork. With this setting, the "
        "code below does not work in the workers as it did in one process.",
        "For uWSGI set `lazy-apps = true` and `enable-threads = true`; for gunicorn remove preload_app. "
        "Or fix the findings that are listed with it.",
    ),
    "X901": Hazard(
        "code that does not parse, or needs a name that no cell defines",
        "The notebook ran because the kernel remembered a cell that has been changed or deleted since. A "
        "service starts with nothing but the file.",
        "Restart the kernel and run all cells. Define the name, or delete the code that needs it.",
    ),
}
