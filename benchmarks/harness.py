"""The harness: runs both sides of a case in turns (A B A B ...) and reports ratios.

If the speed of the machine drifts, it drifts for both sides.
"""

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
    """A stopwatch for `with` blocks, or for `start` and `stop` where one block does not fit.

    Attributes:
        seconds: The sum over all blocks.
        url: An empty database, for a workload that needs one.
    """

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.seconds = 0.0
        self._started = 0.0

    def start(self) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock, and add the time since `start`."""
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
"""A function that sets up, does its steps inside `with stopwatch`, and checks the result.

It raises an error if any work was left out.
"""


@attrs.frozen
class Aim:
    """A target for a measurement.

    Attributes:
        number: The bound.
        at_least: True for a lower bound, false for an upper one.
        of_ratio: True for a bound of the ratio to the limit, false for one of the engine's number.
    """

    number: float
    at_least: bool = True
    of_ratio: bool = True

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.number:g}"

    def is_met(self, measurement: Measurement) -> bool:
        """Return true if the median is within the bound."""
        found = statistics.median(measurement.ratios if self.of_ratio else measurement.ours)
        return found >= self.number if self.at_least else found <= self.number


@attrs.frozen
class Case:
    """A workload of the engine beside its limit.

    Attributes:
        name: The name for `--only`.
        steps: The number of steps that each side does.
        ours: The workload on the engine, with default settings.
        limit: The same work done directly with the libraries below the engine.
        limit_name: A short description of the limit.
        aim: The ratio aimed at, or `None`.
        database: The kind of database that each side gets a new one of, or `None`.
        curve: The curve that this is a point of and its place there, or `None`.
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
    """The results of a case: one number per repetition for each side, in the order taken.

    Attributes:
        name: The name of the case, or of the curve and the point on it.
        limit_name: A short description of the limit.
        ours: The engine's numbers.
        limit: The limit's numbers.
        unit: The unit of the numbers.
        more_is_better: True if greater numbers are better.
        aim: The target, or `None`.
        curve: The curve that this is a point of and its place there, or `None`.
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
        """The engine's number divided by the limit's, for each repetition."""
        return [a / b for a, b in zip(self.ours, self.limit, strict=True)]


@attrs.frozen
class Spread:
    """Median, least and greatest of some numbers."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, numbers: list[float]) -> Spread:
        """Compute the spread of these numbers."""
        return cls(statistics.median(numbers), min(numbers), max(numbers))


def once(workload: Workload, folder: Path, database: str | None = None) -> float:
    """Run a workload in a Trio program of its own. Return the seconds it took.

    Args:
        workload: The workload.
        folder: A folder on the disk to measure.
        database: The kind of empty database that the workload gets, or `None`.
    """
    with new_database(database, folder) if database else nullcontext("") as url:
        stopwatch = Stopwatch(url)
        gc.collect()  # so that this turn does not pay for garbage of the one before
        trio.run(workload, stopwatch)
    return stopwatch.seconds


def in_turns(
    sides: Mapping[str, Callable[[], float]], repeat: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Call each side once per turn. Return the results by side.

    Args:
        sides: The sides, by name.
        repeat: The number of turns.
        warm_up: True to start with an extra turn that doesn't count.
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
    """Warm both sides up once, then measure them in turns.

    Args:
        case: The case.
        repeat: The number of repetitions of each side.
        folder: A folder on the disk to measure.
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
