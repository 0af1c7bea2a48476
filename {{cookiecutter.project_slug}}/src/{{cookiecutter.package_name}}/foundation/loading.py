"""Models and other heavy objects, loaded once in every serving process.

A trained model may own threads and locks of OpenMP or BLAS, which do not survive a fork. Therefore nothing is
loaded while the service is built, and no process uses its parent's object. The state of the process is at the
top. Source: dmlc/xgboost#6617, benoitc/gunicorn#1891.
"""

import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, overload

log = logging.getLogger(__name__)

T = TypeVar("T")

_handles: weakref.WeakSet["LoadedOnce[Any]"] = weakref.WeakSet()
_building = False


class LoadedTooEarly(RuntimeError):
    """A heavy object is used while the service is built, so server processes would inherit it."""


class _Here(Generic[T]):
    """The object in one process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.warming = threading.Lock()
        self.loaded = False
        self.value: T


class LoadedOnce(Generic[T]):
    """A handle that returns its object when called, and loads it on the first call in each process."""

    def __init__(self, load: Callable[[], T], *, warm: bool) -> None:
        functools.update_wrapper(self, load)
        self.name = load.__name__
        self.warm = warm
        self._load = load
        self._in_process: dict[int, _Here[T]] = {}
        self._replacements: list[T] = []
        _handles.add(self)

    def __call__(self) -> T:
        """Return the object. Other threads wait while it loads; an error is raised, but not cached."""
        if self._replacements:
            return self._replacements[-1]
        here = self._here()
        if not here.loaded:
            if _building:
                problem = "is used while the service is built, before the server forks"
                raise LoadedTooEarly(f"{self.name} {problem}: call it in a request, or use warm=True")
            with here.lock:
                if not here.loaded:
                    here.value = self._load()
                    here.loaded = True
        return here.value

    @contextmanager
    def override(self, replacement: T) -> Iterator[T]:
        """Return the replacement to every caller during the block, for tests."""
        self._replacements.append(replacement)
        try:
            yield replacement
        finally:
            self._replacements.pop()

    def is_ready(self) -> bool:
        """Return whether a call returns immediately."""
        return bool(self._replacements) or self._here().loaded

    def start_warming(self) -> None:
        """Start loading the object in a thread, unless one is running. The next probe retries a failure."""
        here = self._here()
        if here.warming.acquire(blocking=False):
            threading.Thread(target=self._warm, args=[here], name=f"warm {self.name}", daemon=True).start()

    def _warm(self, here: _Here[T]) -> None:
        try:
            self()
        except Exception:
            log.exception("%s could not be loaded", self.name)
        finally:
            here.warming.release()

    def _here(self) -> _Here[T]:
        # Per process, because not every server runs Python's fork hooks. The parent's object is kept but
        # never used: its destructor might release resources of the parent.
        process = os.getpid()
        return self._in_process.get(process) or self._in_process.setdefault(process, _Here())


@overload
def loaded_once(load: Callable[[], T]) -> LoadedOnce[T]: ...


@overload
def loaded_once(*, warm: bool) -> Callable[[Callable[[], T]], LoadedOnce[T]]: ...


def loaded_once(load: Callable[[], T] | None = None, *, warm: bool = False) -> Any:
    """Turn a function that loads a heavy object into a handle: `@loaded_once` or `@loaded_once(warm=True)`.

    With `warm`, every server process starts loading it at startup, and is not ready until it is loaded.
    """
    if load is None:
        return functools.partial(LoadedOnce, warm=warm)
    return LoadedOnce(load, warm=warm)


@contextmanager
def nothing_loaded() -> Iterator[None]:
    """Raise `LoadedTooEarly` if the block, which builds the service, uses a handle."""
    global _building
    _building = True
    try:
        yield
    finally:
        _building = False


def warm_up() -> list[str]:
    """Start loading all warm handles that this process has not loaded, and return their names."""
    cold = [handle for handle in list(_handles) if handle.warm and not handle.is_ready()]
    for handle in cold:
        handle.start_warming()
    return sorted(handle.name for handle in cold)
