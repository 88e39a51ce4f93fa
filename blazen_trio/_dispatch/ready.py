"""The deliveries that are to be run, first in, first out, within the bounds on concurrency.

Where nothing is bounded, a `deque` is all that it takes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blazen_trio._state.model import Delivery

__all__ = ["BoundedQueue"]


class BoundedQueue:
    """As far as it goes a `deque`; a delivery over its step's bound waits aside, at no cost but its place there.

    Args:
        bounds: How many deliveries of each bounded step may be in flight at once.
        max_concurrency: How many deliveries may be in flight at once in all; `None`: no bound.
    """

    def __init__(self, bounds: Mapping[str, int], max_concurrency: int | None) -> None:
        self._queue: deque[Delivery] = deque()
        self._total_room = float("inf") if max_concurrency is None else max_concurrency
        self._room = dict(bounds)
        self._aside: dict[str, deque[Delivery]] = {name: deque() for name in bounds}

    def __len__(self) -> int:
        """How many could be taken now, at most."""
        return len(self._queue) if self._total_room else 0

    def extend(self, deliveries: Iterable[Delivery]) -> None:
        self._queue.extend(deliveries)

    def appendleft(self, delivery: Delivery) -> None:
        self._queue.appendleft(delivery)

    def popleft(self) -> Delivery | None:
        """The next that may run now, if there is one; `done` must be told when it has."""
        queue = self._queue
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
        """A delivery of this step that was taken is in flight no more."""
        self._total_room += 1
        if step in self._room:
            self._room[step] += 1
            if aside := self._aside[step]:
                self._queue.appendleft(aside.popleft())
