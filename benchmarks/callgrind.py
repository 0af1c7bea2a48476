"""Instructions of a process, counted by valgrind's callgrind; they repeat within 1 % where seconds do not.

The measured process marks the ends of its parts, by a call to which callgrind writes the count and begins
with 0 again. That needs no compiler, and what the process does before the first part is not counted.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MARK = "getloadavg"  # the C function of `mark`, which no other code here calls
PARTS = 5  # The median is not affected by one waiting request or a growing cache.
FIRST = 60  # calls that fill caches before the first part


def mark() -> None:
    """End a part."""
    os.getloadavg()


def run_parts(call: Callable[[], object], count: int) -> None:
    """Call a function so many times in each part; a process may do so for several functions."""
    for _ in range(FIRST):
        call()
    # The collector would run after a number of objects that has nothing to do with this function.
    gc.collect()
    gc.freeze()
    gc.disable()
    for _ in range(PARTS):
        mark()
        for _ in range(count):
            call()
    mark()
    gc.enable()


def count_instructions(
    command: Sequence[str | Path], count: int, *, cwd: Path, env: Mapping[str, str]
) -> list[float]:
    """Return thousand instructions per call, for every function for which the command runs parts.

    Raises `FileNotFoundError` without valgrind, and `CalledProcessError` when the command fails.
    """
    valgrind = shutil.which("valgrind")
    if not valgrind:
        raise FileNotFoundError("valgrind is needed; on Debian and Ubuntu: apt install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        counted = Path(folder, "counted")
        options = ["--tool=callgrind", f"--dump-before={MARK}", f"--callgrind-out-file={counted}"]
        subprocess.run(
            [valgrind, "--quiet", *options, *command], cwd=cwd, env=env, check=True, capture_output=True
        )
        # The last one is that of the process's end, and has no number.
        dumps = sorted(counted.parent.glob("counted.*"), key=lambda dump: int(dump.suffix[1:]))
        totals = [read_total(dump) / count / 1000 for dump in dumps]
    series = range(0, len(totals), PARTS + 1)
    return [statistics.median(totals[first + 1 : first + 1 + PARTS]) for first in series]


def read_total(dump: Path) -> int:
    """Return the instructions that a dump counts."""
    found = re.search(r"^(?:summary|totals): (\d+)", dump.read_text(), re.MULTILINE)
    if not found:
        raise ValueError(f"{dump.name} of callgrind has no total")
    return int(found[1])
