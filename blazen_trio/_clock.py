"""UTC, as the runs of one `trio.run` see it."""

from __future__ import annotations

import sys
import time
from typing import Protocol

import trio

__all__ = ["Utc", "WallClock", "set_wall_clock", "wall_clock"]

_current = trio.lowlevel.RunVar["WallClock"]("blazen_trio wall clock")


class Utc(Protocol):
    """Tells UTC.

    Attributes:
        may_be_set: Whether it may leap, so that who waits for a time looks again now and then.
    """

    @property
    def may_be_set(self) -> bool: ...

    def now(self) -> float:
        """Return UTC, in seconds since the epoch."""


class WallClock:
    """UTC that goes with Trio's clock, so that due times and sleeps agree under a mock clock too.

    It is the host's UTC, asked for anew each time: where that was wrong and is set right, or the
    machine was suspended, the next call is right. Under a `trio.testing.MockClock` it is the UTC
    of its first use plus what that clock has gone on since: a jump takes UTC along.

    Attributes:
        may_be_set: Whether UTC may leap: not under a mock clock.
    """

    __slots__ = ("_base", "_offset", "_trio_time", "may_be_set")

    def __init__(self) -> None:
        clock = trio.lowlevel.current_clock()
        self._trio_time = clock.current_time
        self._offset = time.time() - self._trio_time()
        self._base = self._trio_time() - time.perf_counter()
        # Whoever uses a mock clock has imported this; nobody else has to.
        testing = sys.modules.get("trio.testing")
        self.may_be_set = testing is None or not isinstance(clock, testing.MockClock)

    def lead(self) -> float:
        """Return by how many seconds Trio's clock has run ahead of the real one: a mock clock's."""
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
    """Have `wall_clock` return this one in this `trio.run`: for simulations, before all else."""
    _current.set(clock)
