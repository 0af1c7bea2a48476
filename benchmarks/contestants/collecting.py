"""The contestant of the variable CONTESTANT, and a path that collects garbage and returns the process id."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable, Iterable
from typing import Any

served = importlib.import_module(os.environ["CONTESTANT"]).app


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Handle a request."""
    if environ["PATH_INFO"] != "/collect":
        return served(environ, start_response)
    gc.collect()
    process = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(process)))])
    return [process]
