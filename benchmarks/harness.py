"""Runs cases A B A B ..., so that a machine whose speed drifts drifts for both sides, and reports ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType

import attrs
import trio

from benchmarks.databases import new_database


class Stopwatch:
    """Measures what is inside its `with` blocks.

    Attributes:
        seconds: The sum over all blocks.
        url: An empty database, for a workload that needs one.
    """

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.seconds = 0.0
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.seconds += time.perf_counter() - self._started


Workload = Callable[[Stopwatch], Awaitable[None]]
"""Sets up, does its steps inside `with stopwatch`, and checks what came out: raises where anything was left out."""


@attrs.frozen
class Case:
    """A workload of the engine beside its limit.

    Attributes:
        name: What `--only` selects.
        steps: How many steps either side does.
        ours: The workload with the engine, with default settings.
        limit: The same work with what the engine stands on.
        limit_name: What that is.
        aim: The ratio aimed at, or `None`.
        database: The kind of database that either side gets a new one of, or `None`.
    """

    name: str
    steps: int
    ours: Workload
    limit: Workload
    limit_name: str
    aim: float | None = None
    database: str | None = None


@attrs.frozen
class Measurement:
    """What came out of a case: steps per second of both sides, one number per repetition, in the order taken."""

    case: Case
    ours: list[float]
    limit: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours to the limit's, repetition by repetition."""
        return [a / b for a, b in zip(self.ours, self.limit, strict=True)]


@attrs.frozen
class Spread:
    """Median, least and greatest of some numbers."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, numbers: list[float]) -> Spread:
        """Compute it."""
        return cls(statistics.median(numbers), min(numbers), max(numbers))


def once(workload: Workload, folder: Path, database: str | None = None) -> float:
    """Run a workload in a Trio program of its own; returns seconds.

    Args:
        workload: What to run.
        folder: On the disk to be measured.
        database: The kind of database that it gets an empty one of.
    """
    with new_database(database, folder) if database else nullcontext("") as url:
        stopwatch = Stopwatch(url)
        trio.run(workload, stopwatch)
    return stopwatch.seconds


def measure(case: Case, repeat: int, folder: Path) -> Measurement:
    """Warm both sides up once, then take them in turns.

    Args:
        case: What to measure.
        repeat: How many times each.
        folder: On the disk to be measured.
    """
    once(case.ours, folder, case.database)
    once(case.limit, folder, case.database)
    result = Measurement(case, [], [])
    for _ in range(repeat):
        result.ours.append(case.steps / once(case.ours, folder, case.database))
        result.limit.append(case.steps / once(case.limit, folder, case.database))
    return result
