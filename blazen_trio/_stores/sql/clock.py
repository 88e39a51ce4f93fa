"""UTC by a database's clock, without a query each time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from blazen_trio._clock import WallClock

__all__ = ["DatabaseClock"]

_STALE: Final = 5.0
"""Seconds after which the next read also asks for the time."""
_PARTED: Final = 0.1
"""Seconds by which the host's two clocks drift apart if one was set, or stood still."""


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
