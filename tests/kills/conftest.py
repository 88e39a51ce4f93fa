"""Children to be killed, forked from a process that has already done their imports."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.forked import FORKS
from tests.kills.child import Order, run


@attrs.define
class Scene:
    """One run in one database, driven by one child process after another."""

    folder: Path
    children: list[Any] = attrs.field(factory=list)

    @property
    def url(self) -> str:
        """The URL of the database."""
        return f"sqlite:///{self.folder / 'runs.db'}"

    def start(self, **order: Any) -> Any:
        """Start a child that drives the run; see `Order` for its instructions."""
        child = FORKS.Process(
            target=run, args=(Order(self.url, str(self.folder / "log"), **order),)
        )
        child.start()
        self.children.append(child)
        return child

    def lines(self) -> list[list[str]]:
        """Return the lines of the log so far: the pid, the kind, and the words."""
        log = self.folder / "log"
        return [line.split(" ", 2) for line in log.read_text().splitlines()] if log.exists() else []

    def attempts(self) -> list[str]:
        """Return the idempotency keys of all attempts of the mixed workflow so far, in order."""
        return [what for _, what, _ in self.lines() if what.startswith("run:")]

    def noted(self, kind: str) -> list[int]:
        """Return the numbers of the chain's `tick` or `acknowledged` lines so far, in order."""
        return [int(number) for _, what, number in self.lines() if what == kind]

    def wait(self, child: Any, until: Callable[[], bool]) -> bool:
        """Wait until a line is in the log. Return `False` if the child has ended before."""
        while not until():
            if not child.is_alive():
                return until()
            time.sleep(0.001)
        return True

    def kill(self, child: Any, chance: random.Random | None = None) -> None:
        """Kill a child with SIGKILL after a random delay."""
        if chance is not None:
            time.sleep(chance.random() * 0.004)
        os.kill(child.pid, signal.SIGKILL)
        child.join()

    def last_words(self, child: Any) -> str:
        """Return the result of a child that ended by itself, or the name of its error."""
        child.join()
        words = [
            words
            for pid, what, words in self.lines()
            if int(pid) == child.pid and what in ("result", "error")
        ]
        assert words, f"the child ended with {child.exitcode}, without a report"
        return words[-1]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A new run for each test. No child outlives it."""
    made = Scene(tmp_path)
    yield made
    for child in made.children:
        if child.is_alive():
            child.kill()
        child.join()
        child.close()
