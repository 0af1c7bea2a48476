"""`make bench` measures the default project, and a row that cannot be measured has its reason."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.project import PATHS, Bench, Contestant

from .conftest import ROOT, path_without
from .processes import run


def test_a_run_prints_rows_and_reasons(tmp_path: Path) -> None:
    """Round trips match the protocol; neither a broken peer nor a missing valgrind stops the run."""
    peers = tmp_path / "peers"
    peers.mkdir()
    (peers / "broken.py").write_text("raise RuntimeError('is broken')\n")
    (peers / "reader.py").write_text("PATHS = {'read': '/notes/{id}'}\n")
    (peers / "same.py").write_text('from bare import app\nBODY = \'{"text": "short"}\'\n')
    env = {"BENCH_PEERS": str(peers), "PATH": path_without(tmp_path, "valgrind")}
    if "TEST_DATABASE_URL" in os.environ:
        env["TEST_DATABASE_URL"] = os.environ["TEST_DATABASE_URL"]

    done = run("make", "--no-print-directory", "bench", "ONLY=roundtrips instructions", cwd=ROOT, env=env)

    trips, instructions = (table.splitlines() for table in done.stdout.split("\n## ")[1:])
    rows = {name: cells for name, *cells in (row.strip("| ").split(" | ") for row in trips if row[:1] == "|")}
    # BEGIN, SELECT and ROLLBACK; the insert's COMMIT expires the row, which is read again.
    assert rows["bare"] == ["3.00", "3.00", "6.00", "3.75", "1.25"]
    assert rows["same"] == rows["bare"]
    # A ping before each checkout.
    assert rows["naive"] == ["4.00", "4.00", "8.00", "5.00", "1.25"]
    assert all(float(count) <= 3 for count in rows["ours"])
    assert rows["broken"] == ["not measured: RuntimeError: is broken"]
    assert rows["reader"] == ["not measured: declares no path to list"]
    reason = "not measured: valgrind is needed; on Debian and Ubuntu: apt install valgrind"
    assert f"| ours | {reason} |" in instructions


class Refusing(BaseHTTPRequestHandler):
    """Answer even rows, and refuse odd ones."""

    def do_GET(self) -> None:
        is_even = self.path.endswith(("0", "2", "4", "6", "8", "livez"))
        self.send_response(200 if is_even else 503)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Log nothing."""


@pytest.mark.parametrize("compiler", ["cc", None], ids=["C", "Python"])
@pytest.mark.parametrize("rate", [0, 100], ids=["closed", "open"])
def test_clients_count_the_same(
    compiler: str | None, rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both clients send the requests, and count answers, refusals and probes."""
    if compiler and not shutil.which(compiler):
        pytest.skip("no C compiler")
    monkeypatch.setattr(shutil, "which", lambda name: compiler)
    bench = Bench(ROOT, tmp_path, "")
    contestant = Contestant("ours", "none", Path(sys.executable), PATHS)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = load.start_load(bench, contestant, server.server_address[1], "read", 1, rate)
        results = load.results_of(client)
        server.shutdown()

    assert results.failed == results.given_up == 0
    assert min(results.ok, results.refused) > 20
    assert 0 < results.p50 <= results.p99
    if rate:
        assert 80 <= results.ok + results.refused <= 101
    assert results.probes in ((5, 6) if rate else (0,))
