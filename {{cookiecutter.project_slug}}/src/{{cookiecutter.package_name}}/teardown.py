"""Every clean-up runs, even when another one fails.

Flask 3.1 stops at the first teardown function that raises. The ones behind it never run, the
removal of the database session among them, and the client gets a 500 for work that was
committed. Flask 3.2 runs them all, and then still fails the request. Delete this module when a
Flask comes that runs all of them and only logs what they raise.
Source: pallets/flask#1767, pallets/flask#5928.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterator
from itertools import chain

from flask import Flask, appcontext_tearing_down, has_request_context, request, request_tearing_down


class SafeTeardown(Flask):
    """An application whose teardowns cannot keep each other from running.

    What they raise is logged with its traceback. Only what ends a process or a greenlet
    (`SystemExit`, `GreenletExit`, `gevent.Timeout`) is raised again, after the last of them.
    `teardown_last` runs behind every function and signal receiver of an application context.
    """

    teardown_last: Callable[[BaseException | None], None] | None = None

    # Flask 3.1 passes (exc), its development version (ctx, exc): the error is the last one in both.

    def do_teardown_request(self, *args: t.Any, **kwargs: t.Any) -> None:
        names = chain(request.blueprints if has_request_context() else (), (None,))
        functions = (f for name in names for f in reversed(self.teardown_request_funcs.get(name, [])))
        receivers = request_tearing_down.receivers_for(self)
        self._run_each(functions, receivers, _error_of(args, kwargs))

    def do_teardown_appcontext(self, *args: t.Any, **kwargs: t.Any) -> None:
        functions = reversed(self.teardown_appcontext_funcs)
        receivers = appcontext_tearing_down.receivers_for(self)
        error = _error_of(args, kwargs)
        try:
            self._run_each(functions, receivers, error)
        finally:
            if self.teardown_last:
                self.teardown_last(error)

    def _run_each(
        self,
        functions: Iterator[Callable[..., t.Any]],
        receivers: Iterator[Callable[..., t.Any]],
        error: BaseException | None,
    ) -> None:
        fatal: BaseException | None = None
        calls = chain(
            ((f, (error,), {}) for f in functions),
            ((f, (self,), {"exc": error}) for f in receivers),
        )
        for function, args, kwargs in calls:
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


def _error_of(args: tuple[t.Any, ...], kwargs: dict[str, t.Any]) -> BaseException | None:
    """Return the error the context ends with: never sys.exc_info(), which may be a server's old one."""
    last = kwargs.get("exc", args[-1] if args else None)
    return last if isinstance(last, BaseException) else None
