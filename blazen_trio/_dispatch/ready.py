"""The deliveries that are to be run, in order, within the bounds on concurrency."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blazen_trio._state.model import Delivery

__all__ = ["ReadyQueue"]


class ReadyQueue:
    """First in, first out; a delivery over its step's bound waits aside, at no cost but its place there.

    Args:
        bounds: How many deliveries of each bounded step may be in flight at once.
        max_concurrency: How many deliveries may be in flight at once in all; `None`: no bound.
    """

    def __init__(self, bounds: Mapping[str, int], max_concurrency: int | None) -> None:
        self._queue: deque[Delivery] = deque()
        self.bounded = bool(bounds) or max_concurrency is not None
        self._total_room = float("inf") if max_concurrency is None else max_concurrency
        if self.bounded:
            self._room = dict(bounds)
            self._aside: dict[str, deque[Delivery]] = {name: deque() for name in bounds}

    def __len__(self) -> int:
        """How many could be popped now, at most."""
        return len(self._queue) if self._total_room else 0

    def extend(self, deliveries: Iterable[Delivery]) -> None:
        self._queue.extend(deliveries)

    def push_first(self, delivery: Delivery) -> None:
        self._queue.appendleft(delivery)

    def pop(self) -> Delivery | None:
        """The next that may run now; `done` must be told when it has."""
        queue = self._queue
        if not self.bounded:
            return queue.popleft() if queue else None
        while queue and self._total_room:
            delivery = queue.popleft()
            room = self._room.get(delivery.step)
            if room == 0:
                self._aside[delivery.step].append(delivery)
                continue
            if room is not None:
                self._room[delivery.step] = room - 1
            self._total_room -= 1
            return delivery
        return None

    def done(self, step: str) -> None:
        """A popped delivery of this step is in flight no more."""
        if not self.bounded:
            return
        self._total_room += 1
        if step in self._room:
            self._room[step] += 1
            if aside := self._aside[step]:
                self._queue.appendleft(aside.popleft())
