"""UTC by a database's clock, told without asking it each time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from blazen_trio._clock import WallClock

__all__ = ["DatabaseClock"]

_STALE: Final = 5.0
"""Seconds after which whoever reads anyway asks for the time, too."""
_PARTED: Final = 0.1
"""Seconds between two clocks of one host that were together before: one was set, or stood still."""


class DatabaseClock:
    """The database's clock, as an offset to this process's monotonic one.

    So a jump of the host's clock changes nothing, and after the machine was suspended it is right
    from the next observation on. A mock clock's lead is added, so due times and sleeps agree.

    Each observation bounds the offset: the database looked at its clock some time between the
    question and the answer. What was known before stays where it lies between these bounds, so a
    slow answer spoils nothing. Observations may be made in any thread.
    """

    __slots__ = ("_host", "_observed", "_offset", "_wall")

    def __init__(self, wall: WallClock) -> None:
        self._wall = wall
        self._offset: float | None = None
        self._observed = self._host = 0.0

    @property
    def may_be_set(self) -> bool:
        """Whether UTC may leap: not under a mock clock."""
        return self._wall.may_be_set

    def now(self) -> float:
        """Return UTC by the database, in seconds; by the host while nothing was observed."""
        if self._offset is None:
            return self._wall.now()
        return time.perf_counter() + self._offset + self._wall.lead()

    def observed(self, database: int, began: float, ended: float) -> None:
        """Take an observation in.

        Args:
            database: What the database's clock said, in microseconds since the epoch.
            began: The performance counter when it was asked.
            ended: The same when it had answered.
        """
        told = database / 1_000_000
        least, most = told - ended, told - began
        offset = (least + most) / 2 if self._offset is None else self._offset
        self._offset = min(max(offset, least), most)
        self._observed, self._host = ended, time.time() - time.perf_counter()

    @property
    def stale(self) -> bool:
        """Whether it is time for another observation: some have passed, or the host's clock and the
        monotonic one have parted, as they do where the machine was suspended.
        """
        if self._offset is None:
            return False
        counter = time.perf_counter()
        return (
            counter - self._observed > _STALE or abs(time.time() - counter - self._host) > _PARTED
        )
