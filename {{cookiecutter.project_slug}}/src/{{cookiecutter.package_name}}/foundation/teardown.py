"""Teardown functions that all run, even if some fail.

Flask 3.1 stops at the first one that raises: the database session is not removed, and the client gets a 500
for committed work. Flask 3.2 runs them all, but still fails the request. Delete this module when Flask runs
all of them and only logs their exceptions. Source: pallets/flask#1767, pallets/flask#5928.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

from blinker import Signal
from flask import Flask, appcontext_tearing_down, has_request_context, request, request_tearing_down


class SafeTeardown(Flask):
    """Run every teardown function and log exceptions; those that end a process are raised afterwards."""

    # Flask 3.1 passes (exc), its development version (ctx, exc): the error is the last one in both.

    def do_teardown_request(self, *args: Any, **kwargs: Any) -> None:
        names = chain(request.blueprints if has_request_context() else (), (None,))
        functions = (f for name in names for f in reversed(self.teardown_request_funcs.get(name, [])))
        self._run_each(functions, request_tearing_down, error_of(args, kwargs))

    def do_teardown_appcontext(self, *args: Any, **kwargs: Any) -> None:
        functions = reversed(self.teardown_appcontext_funcs)
        self._run_each(functions, appcontext_tearing_down, error_of(args, kwargs))

    def _run_each(self, functions: Iterable[Any], signal: Signal, error: BaseException | None) -> None:
        fatal: BaseException | None = None
        receivers = (((self,), {"exc": error}, receiver) for receiver in signal.receivers_for(self))
        for args, kwargs, function in chain((((error,), {}, function) for function in functions), receivers):
            try:
                self.ensure_sync(function)(*args, **kwargs)
            except Exception:
                if metrics := self.extensions.get("metrics"):
                    metrics.count("teardown_failures")
                self.logger.exception("the teardown %s failed", getattr(function, "__qualname__", function))
            except BaseException as raised:
                fatal = raised
        if fatal is not None:
            raise fatal


def error_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> BaseException | None:
    """Return the context's own error, never sys.exc_info(), which may be a server's stale exception."""
    last = kwargs.get("exc", args[-1] if args else None)
    return last if isinstance(last, BaseException) else None
