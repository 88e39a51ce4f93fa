"""The clocks from which runs take UTC."""

from __future__ import annotations

import sys
import time
from typing import Protocol

import trio

__all__ = ["Utc", "WallClock", "set_wall_clock", "wall_clock"]

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
