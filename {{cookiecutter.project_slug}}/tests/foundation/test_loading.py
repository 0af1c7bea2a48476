"""A heavy object is loaded once per process, never before the fork, and readiness waits for it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from flask import Flask

from {{cookiecutter.package_name}}.foundation.loading import (
    LoadedTooEarly,
    loaded_once,
    nothing_loaded,
    warm_up,
)

from .forks import Fork, fork_without_hooks, in_child
from .processes import PATIENCE, wait_until


class Model:
    """An object that records the process that loaded it."""

    def __init__(self) -> None:
        self.process = os.getpid()


def test_many_threads_load_it_once() -> None:
    """Of many concurrent threads one loads, and all get the same object."""
    loads: list[int] = []
    all_ask = threading.Barrier(8, timeout=PATIENCE)
    another_loads = threading.Barrier(2, timeout=0.2)  # A second load would end this wait.

    @loaded_once
    def model() -> Model:
        loads.append(1)
        with suppress(threading.BrokenBarrierError):
            another_loads.wait()
        return Model()

    def ask(number: int) -> Model:
        all_ask.wait()
        return model()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(ask, range(8)))

    assert (len(found), loads) == (1, [1])


def test_a_failed_load_is_raised_and_repeated() -> None:
    """An error while loading reaches the caller, and the next call loads again."""
    errors = [LookupError("no file yet")]

    @loaded_once
    def model() -> str:
        """Load it."""
        if errors:
            raise errors.pop()
        return "loaded"

    with pytest.raises(LookupError, match="no file yet"):
        model()

    assert model() == "loaded"
    assert (model.name, model.__doc__) == ("model", "Load it.")


@pytest.mark.parametrize("fork", [os.fork, fork_without_hooks], ids=["hooks", "no hooks"])
def test_a_child_loads_its_own(fork: Fork) -> None:
    """A process forked after the load loads its own object, even without Python's fork hooks."""
    model = loaded_once(Model)
    assert model().process == os.getpid()

    assert in_child(fork, lambda: model().process == os.getpid()) == "True"


def test_a_child_of_a_process_that_loads_does_not_hang() -> None:
    """A process forked while another thread loads does not inherit the lock."""
    begun, may_end = threading.Event(), threading.Event()
    parent = os.getpid()

    @loaded_once
    def model() -> int:
        if os.getpid() == parent:
            begun.set()
            may_end.wait(PATIENCE)
        return os.getpid()

    loading = threading.Thread(target=model)
    loading.start()
    begun.wait(PATIENCE)
    try:
        assert in_child(fork_without_hooks, lambda: model() == os.getpid()) == "True"
    finally:
        may_end.set()
        loading.join()


def test_a_use_while_the_service_is_built_is_refused() -> None:
    """A use while the service is built raises an error that names the object, and nothing is loaded."""
    loads: list[int] = []

    @loaded_once
    def model() -> None:
        loads.append(1)

    with nothing_loaded(), pytest.raises(LoadedTooEarly, match="model is used while the service is built"):
        model()
    assert loads == []

    model()

    assert loads == [1]


def test_a_test_overrides_it() -> None:
    """During `override()` every caller gets the replacement, and nothing is loaded."""

    @loaded_once(warm=True)
    def model() -> str:
        raise AssertionError

    with model.override("outer"):
        with model.override("inner") as replacement:
            assert model() == replacement == "inner"
        assert model() == "outer"
        assert warm_up() == []


def test_readiness_waits_for_warm_ups_and_liveness_does_not(app: Flask) -> None:
    """During a warm-up readiness names the object and liveness is 200; afterwards both are 200."""
    may_end = threading.Event()
    loads: list[int] = []

    @loaded_once(warm=True)
    def slow_model() -> Model:
        loads.append(1)
        may_end.wait(PATIENCE)
        return Model()

    client = app.test_client()
    for _ in range(3):
        response = client.get("/readyz")
        assert (response.status_code, response.json and response.json["missing"]) == (503, ["slow_model"])
    assert client.get("/livez").status_code == 200

    may_end.set()

    wait_until(lambda: client.get("/readyz").status_code == 200, "the service is ready")
    assert slow_model().process == os.getpid()
    assert loads == [1]


def test_a_failed_warm_up_is_logged_and_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """A failed warm-up is logged with its traceback, and a later probe starts another."""
    errors = [LookupError("no file yet")]

    @loaded_once(warm=True)
    def model() -> str:
        if errors:
            raise errors.pop()
        return "loaded"

    wait_until(lambda: warm_up() == [], "the model is warm")

    assert model() == "loaded"
    assert "model could not be loaded" in caplog.text
    assert "LookupError: no file yet" in caplog.text


def test_what_is_not_warmed_delays_nothing() -> None:
    """An object without `warm` is loaded only by its first caller, and readiness does not wait for it."""

    @loaded_once
    def model() -> None:
        raise AssertionError

    assert warm_up() == []
    assert model.name == "model"
