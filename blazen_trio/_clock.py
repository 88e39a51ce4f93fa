"""The clocks from which runs take UTC."""

from __future__ import annotations

import sys
import time
from typing import Final, Protocol

import trio

__all__ = ["DatabaseClock", "Utc", "WallClock", "set_wall_clock", "wall_clock"]

_STALE: Final = 5.0
"""Seconds after which the next read also asks for the time."""
_PARTED: Final = 0.1
"""Seconds by which the host's two clocks drift apart if one was set, or stood still."""
_current = trio.lowlevel.RunVar["WallClock"]("blazen_trio wall clock")


class Utc(Protocol):
    """A source of UTC.

    Attributes:
        may_be_set: Whether UTC may jump. If so, a task that waits for a time must read the clock
            again from time to time.
    """

    @property
    def may_be_set(self) -> bool: ...

    def now(self) -> float:
        """Return UTC, in seconds since the epoch."""


class WallClock:
    """UTC that agrees with Trio's clock, so that due times and sleeps match under a mock clock too.

    It is the host's UTC, read anew each time: after the host's clock was set, or the machine was
    suspended, the next call is right. Under a `trio.testing.MockClock` it is the UTC of its first
    use plus the time that the mock clock has advanced since, so UTC jumps with it.

    Attributes:
        may_be_set: Whether UTC may jump; false under a mock clock.
    """

    __slots__ = ("_base", "_offset", "_trio_time", "may_be_set")

    def __init__(self) -> None:
        clock = trio.lowlevel.current_clock()
        self._trio_time = clock.current_time
        self._offset = time.time() - self._trio_time()
        self._base = self._trio_time() - time.perf_counter()
        # A program that uses a mock clock has imported this module; no other has to.
        testing = sys.modules.get("trio.testing")
        self.may_be_set = testing is None or not isinstance(clock, testing.MockClock)

    def lead(self) -> float:
        """Return the seconds by which a mock clock is ahead of the real time; else 0."""
        if self.may_be_set:
            return 0.0
        return self._trio_time() - time.perf_counter() - self._base

    def now(self) -> float:
        """Return UTC, in seconds since the epoch."""
        return time.time() if self.may_be_set else self._trio_time() + self._offset


def wall_clock() -> WallClock:
    """Return the clock of this `trio.run`."""
    try:
        return _current.get()
    except LookupError:
        clock = WallClock()
        _current.set(clock)
        return clock


def set_wall_clock(clock: WallClock) -> None:
    """Make `wall_clock` return this clock in this `trio.run`; for simulations, before all else."""
    _current.set(clock)


class DatabaseClock:
    """The database's clock, as an offset to this process's monotonic one.

    A jump of the host's clock therefore has no effect. After the machine was suspended, the time is
    right again from the next observation on. A mock clock's lead is added, so due times and sleeps
    agree.

    Each observation bounds the offset: the database read its clock at some time between the
    question and the answer. The known offset is kept if it lies within these bounds, so a slow
    answer does no harm. Observations may be made in any thread.
    """

    __slots__ = ("_host", "_observed", "_offset", "_wall")

    def __init__(self, wall: WallClock) -> None:
        self._wall = wall
        self._offset: float | None = None
        self._observed = self._host = 0.0

    @property
    def may_be_set(self) -> bool:
        """Indicates whether UTC may jump, which it does not under a mock clock."""
        return self._wall.may_be_set

    def now(self) -> float:
        """Return UTC by the database's clock, in seconds; by the host's before any observation."""
        if self._offset is None:
            return self._wall.now()
        return time.perf_counter() + self._offset + self._wall.lead()

    def observed(self, database: int, began: float, ended: float) -> None:
        """Adjust the offset by an observation.

        Args:
            database: The database's clock, in microseconds since the epoch.
            began: The performance counter when the question was sent, in seconds.
            ended: The performance counter when the answer had arrived, in seconds.
        """
        told = database / 1_000_000
        least, most = told - ended, told - began
        offset = (least + most) / 2 if self._offset is None else self._offset
        self._offset = min(max(offset, least), most)
        self._observed, self._host = ended, time.time() - time.perf_counter()

    @property
    def stale(self) -> bool:
        """Indicates whether another observation is due.

        It is if some seconds have passed, or if the host's clock and the monotonic clock have
        drifted apart, as they do when the machine is suspended.
        """
        if self._offset is None:
            return False
        counter = time.perf_counter()
        return (
            counter - self._observed > _STALE or abs(time.time() - counter - self._host) > _PARTED
        )
