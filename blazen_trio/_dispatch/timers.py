"""The items of a run that wait for a time."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from blazen_trio._clock import WallClock

__all__ = ["Timers"]


class Timers:
    """Due times, soonest first: a heap, and no task per item."""

    __slots__ = ("_clock", "_heap")

    def __init__(self, clock: WallClock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float:
        """The soonest, on Trio's clock; infinity if there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    @property
    def due(self) -> float:
        """The soonest, UTC; infinity if there is none."""
        return self._clock.now() + self.next - trio.current_time()

    def add(self, due: float, id_: int) -> None:
        """An item is due then (UTC)."""
        heapq.heappush(self._heap, (self._clock.deadline(due), id_))

    def pop(self) -> int:
        """The item that is due soonest."""
        return heapq.heappop(self._heap)[1]
