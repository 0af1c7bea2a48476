"""Sessions for notebooks: each belongs to one block of one cell, so a failed cell affects no other.

The settings are those of `make serve`. No application is built, and no connection outlives its block.
"""

import importlib
import os
import sys
from contextlib import AbstractContextManager, chdir, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from dotenv import load_dotenv
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.orm import Session

from .configuration import ServiceSettings, read_environment, remote_hosts
from .database import fork_safety, sqlite
from .database.base import import_models
from .database.engine import connect_args

PROJECT = Path(__file__).parents[3]
PACKAGE = __name__.partition(".foundation.")[0]
CURE = "write `with session() as s:` in each cell, and use `s` inside the block only"


class NotebookSettings(ServiceSettings):
    """The settings of a notebook, which signs nothing and needs no key."""

    secret_key: SecretStr = SecretStr("")
    notebook_writes: bool = False


class SessionEnded(RuntimeError):
    """A session was used after its block or cell."""


class WriteRefused(RuntimeError):
    """A read-only session is committed, or a session would write to a remote database."""


class CellSession(Session):
    """A session that rejects work after its block. Loaded objects keep their column values."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, expire_on_commit=False)
        self.ended = False

    # Private, but the only call that begins a transaction, for both statements and add().
    def _autobegin_t(self, *args: Any, **kwargs: Any) -> Any:
        if self.ended:
            raise SessionEnded(f"this session has ended with its block or its cell: {CURE}")
        return super()._autobegin_t(*args, **kwargs)

    def end(self, *, commit: bool) -> None:
        """Commit or roll back, then close the connection."""
        try:
            if commit:
                self.commit()
        finally:
            self.close()
            self.ended = True


class session(AbstractContextManager[CellSession]):  # noqa: N801  # It reads like open().
    """Open a session for one block of a cell.

    `with session() as s:` rolls back at its end. `with session(write=True) as s:` commits at its end, or
    rolls back if the block raises. Raises `ConfigurationError`, or `WriteRefused` if the database is on
    another machine and NOTEBOOK_WRITES is not set.
    """

    def __init__(self, *, write: bool = False) -> None:
        self._write = write

    def __enter__(self) -> CellSession:
        self._session = CellSession(_make_engine(read_settings(), write=self._write))
        if shell := _running_shell():  # A session kept in a generator or a global ends with its cell.
            shell.events.register("post_run_cell", self._end_with_cell)
        return self._session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if shell := _running_shell():
            with suppress(ValueError):  # A generator may continue in another cell.
                shell.events.unregister("post_run_cell", self._end_with_cell)
        self._session.end(commit=self._write and error is None)

    def _end_with_cell(self, result: object) -> None:
        self.__exit__(SessionEnded, SessionEnded(), None)

    def __getattr__(self, name: str) -> Any:
        # An AttributeError, because IPython looks up methods such as _repr_html_.
        raise AttributeError(f"session() is not a session yet, and has no {name}: {CURE}")


def read_settings() -> NotebookSettings:
    """Return the settings from the environment and from .env, as `make serve` reads them."""
    load_dotenv(PROJECT / ".env")
    with chdir(PROJECT):  # The kernel runs in the notebook's folder, and a SQLite path may be relative.
        return read_environment(NotebookSettings)


def _make_engine(settings: NotebookSettings, *, write: bool) -> Engine:
    """Return an engine without a connection pool. Statements have no deadline."""
    url = make_url(settings.database_url)
    is_elsewhere = _is_elsewhere(url)
    if write and is_elsewhere and not settings.notebook_writes:
        problem = "names a database on another machine, and a notebook does not write there"
        raise WriteRefused(f"DATABASE_URL {problem}: set NOTEBOOK_WRITES=1 if that is intended")
    import_models(importlib.import_module(PACKAGE))  # A relationship may refer to another feature's model.
    options: dict[str, Any] = {"execution_options": {"reads_only": not write}}
    if url.get_backend_name() == "postgresql":
        is_pooled = settings.database_pool == "external"
        options["connect_args"] = connect_args(
            settings.database_url, "", is_pooled=is_pooled, connect_timeout=5, application_name="notebook"
        )
        if is_elsewhere and not write:
            options["execution_options"]["postgresql_readonly"] = True
    engine = create_engine(url, poolclass=NullPool, **options)
    fork_safety.watch(engine)
    if url.get_backend_name() == "sqlite":
        sqlite.begin_explicitly(engine)
        sqlite.leave_removed_file(engine)
    event.listen(engine, "commit", _refuse_commit)
    return engine


def _is_elsewhere(url: URL) -> bool:
    # A service file or PGHOSTADDR may name any machine.
    indirect = "service" in url.query or os.environ.keys() & {"PGSERVICE", "PGHOSTADDR"}
    return bool(remote_hosts(url) or (indirect and url.get_backend_name() == "postgresql"))


def _refuse_commit(connection: Connection) -> None:
    if connection.get_execution_options()["reads_only"]:
        connection.connection.rollback()
        raise WriteRefused("session() reads, and is rolled back: commit in `with session(write=True) as s:`")


def _running_shell() -> Any:
    """Return IPython's shell, or None outside IPython."""
    ipython: Any = sys.modules.get("IPython")
    return ipython and ipython.get_ipython()
