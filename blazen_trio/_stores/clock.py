"""UTC, as the runs of one `trio.run` see it."""

from __future__ import annotations

import time

import trio

__all__ = ["WallClock", "wall_clock"]

_current: trio.lowlevel.RunVar[WallClock] = trio.lowlevel.RunVar("blazen_trio wall clock")


class WallClock:
    """UTC that goes on with Trio's clock, so that due times and sleeps agree, under a `trio.testing.MockClock` too.

    Trio's time plus the largest offset to the system's clock seen so far. A mock clock that jumps ahead takes UTC with it
    (the offset seen shrinks, the largest stays); a machine that was suspended catches up (the offset grows); a system
    clock that is set back doesn't make time go backwards.
    """

    __slots__ = ("_offset", "trio_time")

    def __init__(self) -> None:
        self._offset = float("-inf")
        self.trio_time = trio.lowlevel.current_clock().current_time
        """What `trio.current_time` returns in this `trio.run`, without looking up which one it is."""

    def now(self) -> float:
        """UTC, in seconds since the epoch."""
        return self.at(self.trio_time())

    def at(self, current: float) -> float:
        """UTC of this instant of Trio's clock, which is now."""
        offset = time.time() - current
        self._offset = max(self._offset, offset)
        return current + self._offset

    def deadline(self, due: float) -> float:
        """The instant of Trio's clock at which it is `due` (UTC)."""
        return self.trio_time() + due - self.now()


def wall_clock() -> WallClock:
    """The clock of this `trio.run`."""
    try:
        return _current.get()
    except LookupError:
        clock = WallClock()
        _current.set(clock)
        return clock
