"""The private parts of gunicorn on which the worker class gthread_patient rests."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import sys
from typing import Any

import pytest
from gunicorn import util
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.parser import Parser
from gunicorn.http.unreader import SocketUnreader, Unreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from {{cookiecutter.package_name}}.foundation.serving import gthread_patient

from ..databases import PROJECT
from ..fixtures import SECRET

# Of gunicorn 27.0.1.
SEAMS: dict[Any, str] = {
    TConn: "e3a2878ba952",
    ThreadWorker.__init__: "5681b8b542ea",
    ThreadWorker.run: "f92c7394d857",
    ThreadWorker.accept: "f8dcead3dce5",
    ThreadWorker.enqueue_req: "c9f428953d24",
    ThreadWorker.on_client_socket_readable: "aead1a3ea7b7",
    ThreadWorker.murder_keepalived: "4459960c4ccc",
    ThreadWorker.murder_pending: "7bf11f464542",
    ThreadWorker.wait_for_and_dispatch_events: "ea969b352482",
    ThreadWorker._cap_keepalive: "745c8ac37108",
    ThreadWorker.finish_request: "616e7bb15a00",
    ThreadWorker.handle: "ca85c9be3df7",
    ThreadWorker._keepalive_after: "4ebdbbc8bf5a",
    ThreadWorker.handle_request: "6d0de5b91910",
    Parser: "3a9c06e348c7",
    Unreader: "84aaa8f91fcd",
    SocketUnreader: "786a257be09e",
    Body._read_reader: "443e7cfab4b8",
    LengthReader: "3b01bc7c21a2",
    util.write: "cd995031295f",
    util.write_error: "bd0143a03c15",
}
CHANGED = """gunicorn has changed {name}, on which foundation/serving/gthread_patient.py rests.
Compare both versions, and adapt the class if needed. Run its proofs with
PROOF_SCALE=10 .venv/bin/pytest tests/foundation/proofs -k gthread_patient
and write the new digest in SEAMS: {digest}. Services with another WEB_WORKER_CLASS are not affected."""


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.__qualname__)
def test_gunicorn_has_not_changed_what_the_class_rests_on(seam: Any) -> None:
    """The source of each private part of gunicorn is the version for which the class was written."""
    digest = hashlib.sha256(inspect.getsource(seam).encode()).hexdigest()[:12]

    assert digest == SEAMS[seam], CHANGED.format(name=seam.__qualname__, digest=digest)


def test_the_setting_chooses_the_class_and_its_threads() -> None:
    """WEB_WORKER_CLASS=gthread_patient chooses the class, with as many threads as WEB_THREADS."""
    code = "from gunicorn.app.wsgiapp import WSGIApplication; cfg = WSGIApplication('').cfg"
    shown = "print(cfg.worker_class.__module__, cfg.threads)"
    settings = {"WEB_WORKER_CLASS": "gthread_patient", "WEB_THREADS": "7", "SECRET_KEY": SECRET}

    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {shown}"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": "sqlite:///app.db", **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout == f"{gthread_patient.__name__} 7\n", done.stderr
