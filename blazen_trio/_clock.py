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
    """UTC that goes on with Trio's clock, so due times and sleeps agree under a mock clock too.

    It is the host's UTC now, plus how far Trio's clock has run ahead of the real monotonic one
    since this was made. Trio's own clock never runs ahead; a `trio.testing.MockClock` that jumps
    takes UTC with it, and one that stands still holds UTC. Nothing else is remembered: when the
    host's clock was wrong and is set right, or the machine was suspended, the next call is right.

    Attributes:
        trio_time: Returns what `trio.current_time` does in this `trio.run`, without looking up
            which one it is.
    """

    __slots__ = ("_base", "may_be_set", "trio_time")

    def __init__(self) -> None:
        clock = trio.lowlevel.current_clock()
        self.trio_time = clock.current_time
        # A mock clock takes UTC along. Who uses one has imported this; nobody else has to.
        testing = sys.modules.get("trio.testing")
        self.may_be_set = testing is None or not isinstance(clock, testing.MockClock)
        # Trio's own clock is the performance counter and a random number.
        self._base = self.trio_time() - time.perf_counter()

    def now(self) -> float:
        """Return UTC, in seconds since the epoch."""
        return self.at(self.trio_time())

    def at(self, current: float) -> float:
        """Return UTC of this instant of Trio's clock, which is now."""
        return time.time() + self.ahead(current)

    def ahead(self, current: float) -> float:
        """Return by how much Trio's clock has run ahead at this instant of it, which is now."""
        return current - time.perf_counter() - self._base

    def deadline(self, due: float) -> float:
        """Return the instant of Trio's clock at which it is `due` (UTC), as far as is known now.

        UTC may leap before that, where the machine is suspended or its clock is set. So whoever
        sleeps until then wakes up in between, and asks again.
        """
        return self.trio_time() + due - self.now()


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
