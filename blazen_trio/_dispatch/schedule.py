"""When the deliveries of a run are done: those that are ready, within their bounds; those that wait
for a time; and how long the run has been at work, which its timeout bounds.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blazen_trio._state.model import Delivery, RunState

__all__ = [
    "BoundedQueue",
    "Timers",
    "WorkClock",
]


class BoundedQueue:
    """Ready deliveries, first in, first out, within the bounds on concurrency. Where nothing is bounded, a `deque` is used.

    A delivery over its step's bound waits aside, at no cost but its place there.

    Args:
        bounds: How many deliveries of each bounded step may be in flight at once.
        max_concurrency: How many deliveries may be in flight at once in all; `None`: no bound.
    """

    def __init__(self, bounds: Mapping[str, int], max_concurrency: int | None) -> None:
        self._queue: deque[Delivery] = deque()
        self._total_room = float("inf") if max_concurrency is None else max_concurrency
        self._room = dict(bounds)
        self._queued = dict.fromkeys(bounds, 0)
        """How many of each bounded step are in the queue: not more than there is room for, so that none is passed over."""
        self._aside: dict[str, deque[Delivery]] = {name: deque() for name in bounds}

    def __len__(self) -> int:
        """How many could be taken now, at most."""
        return len(self._queue) if self._total_room else 0

    def append(self, delivery: Delivery) -> None:
        step = delivery.step
        if step in self._room:
            if self._queued[step] >= self._room[step]:
                self._aside[step].append(delivery)
                return
            self._queued[step] += 1
        self._queue.append(delivery)

    def appendleft(self, delivery: Delivery) -> None:
        if delivery.step in self._room:
            self._queued[delivery.step] += 1
        self._queue.appendleft(delivery)

    def popleft(self) -> Delivery | None:
        """Take the next that may run now, if there is one; `done` must be told when it has."""
        queue = self._queue
        while queue and self._total_room:
            delivery = queue.popleft()
            room = self._room.get(delivery.step)
            if room is not None:
                self._queued[delivery.step] -= 1
                if room == 0:
                    # One that was taken before and came back, while its successor is in flight.
                    self._aside[delivery.step].appendleft(delivery)
                    continue
                self._room[delivery.step] = room - 1
            self._total_room -= 1
            return delivery
        return None

    def done(self, step: str) -> None:
        """A delivery of this step that was taken is in flight no more."""
        self._total_room += 1
        if step in self._room:
            self._room[step] += 1
            if (aside := self._aside[step]) and self._queued[step] < self._room[step]:
                self.appendleft(aside.popleft())


class Timers:
    """Items that wait for a time (UTC), soonest first: a heap, and no task per item."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float:
        """The soonest, UTC; infinity where there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def add(self, due: float, id_: int) -> None:
        """An item is due then (UTC)."""
        heapq.heappush(self._heap, (due, id_))

    def pop(self) -> int:
        """Take the item that is due soonest."""
        return heapq.heappop(self._heap)[1]


class WorkClock:
    """Counts while step tasks are at work, and stands still while the run waits or is paused.

    It is apart from the nursery in which they run: while it counts, the deadline of that nursery's
    scope is when the run's timeout is used up; else there is none.

    Args:
        state: The run's.
    """

    __slots__ = ("_began", "_elapsed", "_state", "trio_time")

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._elapsed = state.elapsed
        self._began: float | None = None
        self.trio_time = trio.lowlevel.current_clock().current_time
        """Returns what `trio.current_time` does in this `trio.run`, without looking up which one
        it is."""

    @property
    def elapsed(self) -> float:
        """Seconds at work so far, in all processes that drove the run."""
        if self._began is None:
            return self._elapsed
        return self._elapsed + self.trio_time() - self._began

    @property
    def used_up(self) -> bool:
        """Whether the run has used its timeout up."""
        return self._state.timeout is not None and self.elapsed >= self._state.timeout

    def restart(self, elapsed: float) -> None:
        """Go on from there."""
        self._elapsed = elapsed

    def start(self, scope: trio.CancelScope) -> None:
        """The first step task begins. Its scope is cancelled when the timeout is used up."""
        began = self._began = self.trio_time()
        if self._state.timeout is not None:
            scope.deadline = began + max(0.0, self._state.timeout - self._elapsed)

    def stop(self, scope: trio.CancelScope | None) -> None:
        """The last step task has ended; without a scope, the run has ended too.

        A deadline that has passed stays: it has to cancel whatever waits in the scope.
        """
        self._elapsed, self._began = self.elapsed, None
        if scope is not None and self._state.timeout is not None and not self.used_up:
            scope.deadline = float("inf")
