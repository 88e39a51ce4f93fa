"""Processes for tests that need many, forked from one that has already done their imports."""

from __future__ import annotations

import multiprocessing
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FORKS = multiprocessing.get_context("forkserver")
# pytest too, since each child imports the module that its parent was started with.
FORKS.set_forkserver_preload(
    [
        "pytest",
        "tests.kills.child",
        "tests.stores.by_id",
        "blazen_trio._stores.sql.store",
        "alembic.operations",
        "sqlite3",
        "psycopg",
        "pymysql",
    ]
)


class Program:
    """A program that runs in a process and is spoken to by lines.

    Attributes:
        pid: The process's id.
    """

    def __init__(self, source: str, arguments: tuple[str, ...]) -> None:
        (self._input, theirs), (self._output, others) = FORKS.Pipe(), FORKS.Pipe()
        self._process = FORKS.Process(target=_run, args=(source, arguments, theirs, others))
        self._process.start()
        theirs.close()
        others.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self._lines = os.fdopen(os.dup(self._output.fileno()))

    def ask(self, line: str) -> None:
        """Write a line to the program's standard input."""
        os.write(self._input.fileno(), f"{line}\n".encode())

    def hear(self) -> str:
        """Return the next line of its output; an empty text if there is no more."""
        return self._lines.readline().strip()

    def kill(self) -> None:
        """Kill the process, without waiting for its end."""
        self._process.kill()

    def close(self) -> None:
        """Kill the process, wait for its end, and close the pipes."""
        self.kill()
        self._process.join()
        self._process.close()
        self._lines.close()
        self._input.close()
        self._output.close()


@contextmanager
def program(source: str, *arguments: str) -> Iterator[Program]:
    """Run a program's source with these arguments; it is killed at the end of the block."""
    running = Program(source, arguments)
    try:
        yield running
    finally:
        running.close()


def _run(source: str, arguments: tuple[str, ...], stdin: Any, stdout: Any) -> None:
    sys.argv[1:] = arguments
    sys.stdin, sys.stdout = os.fdopen(stdin.fileno()), os.fdopen(stdout.fileno(), "w")
    exec(source, {"__name__": "__main__"})
