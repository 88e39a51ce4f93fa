"""Runs cases A B A B ..., so that a machine whose speed drifts drifts for both sides, and reports ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType

import attrs
import trio

from benchmarks.databases import new_database

STEPS = "steps per second"


class Stopwatch:
    """Measures what is inside its `with` blocks, or from `start` to `stop`, where that is not one block.

    Attributes:
        seconds: The sum over all blocks.
        url: An empty database, for a workload that needs one.
    """

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.seconds = 0.0
        self._started = 0.0

    def start(self) -> None:
        """Begin to count."""
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Add what has passed since `start`."""
        self.seconds += time.perf_counter() - self._started

    def __enter__(self) -> None:
        self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


Workload = Callable[[Stopwatch], Awaitable[None]]
"""Sets up, does its steps inside `with stopwatch`, and checks what came out: raises where anything was left out."""


@attrs.frozen
class Aim:
    """What is aimed at.

    Attributes:
        number: The bound.
        at_least: Whether it is a lower bound, or an upper one.
        of_ratio: Whether it is of the ratio to the limit, or of the engine's own number.
    """

    number: float
    at_least: bool = True
    of_ratio: bool = True

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.number:g}"

    def is_met(self, measurement: Measurement) -> bool:
        """Whether the median is within the bound."""
        found = statistics.median(measurement.ratios if self.of_ratio else measurement.ours)
        return found >= self.number if self.at_least else found <= self.number


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
        curve: The curve that it is a point of, if it is one, and where on it.
    """

    name: str
    steps: int
    ours: Workload
    limit: Workload
    limit_name: str
    aim: Aim | None = None
    database: str | None = None
    curve: tuple[str, int] | None = None


@attrs.frozen
class Measurement:
    """What came out: one number per repetition of either side, in the order taken.

    Attributes:
        name: Of the case, or of the curve and the point on it.
        limit_name: What the limit is.
        ours: The engine's numbers.
        limit: The limit's.
        unit: What the numbers are.
        more_is_better: Whether they are better when they are greater.
        aim: What is aimed at, or `None`.
        curve: The curve that it is a point of, if it is one, and where on it.
    """

    name: str
    limit_name: str
    ours: list[float]
    limit: list[float]
    unit: str = STEPS
    more_is_better: bool = True
    aim: Aim | None = None
    curve: tuple[str, int] | None = None

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
        gc.collect()  # what the turn before has left is not this one's to clear away
        trio.run(workload, stopwatch)
    return stopwatch.seconds


def in_turns(
    sides: Mapping[str, Callable[[], float]], repeat: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """What each side gives, each once in each turn.

    Args:
        sides: By their names.
        repeat: How many turns.
        warm_up: Whether there is a turn before that doesn't count.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    if warm_up:
        for side in sides.values():
            side()
    for _ in range(repeat):
        for name, side in sides.items():
            found[name].append(side())
    return found


def measure(case: Case, repeat: int, folder: Path) -> Measurement:
    """Warm both sides up once, then take them in turns.

    Args:
        case: What to measure.
        repeat: How many times each.
        folder: On the disk to be measured.
    """
    found = in_turns(
        {
            "ours": lambda: case.steps / once(case.ours, folder, case.database),
            "limit": lambda: case.steps / once(case.limit, folder, case.database),
        },
        repeat,
    )
    return Measurement(
        case.name, case.limit_name, found["ours"], found["limit"], aim=case.aim, curve=case.curve
    )
