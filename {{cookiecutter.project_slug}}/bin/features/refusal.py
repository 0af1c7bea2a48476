"""The end of a command that changed nothing."""

from __future__ import annotations


class Refusal(SystemExit):
    """A problem in one line, with an exit code: by default that of a usage error."""

    def __init__(self, problem: str, code: int = 64) -> None:
        super().__init__(code)
        self.problem = problem
