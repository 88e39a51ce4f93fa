"""The slots of one runtime: so many of its runs may be at work at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from blazen_trio._concurrency import Changes

__all__ = ["Place", "Slots"]


class Place:
    """A place in the queue for a slot."""

    __slots__ = ("given", "tell")

    def __init__(self, tell: Callable[[], None]) -> None:
        self.tell = tell
        self.given = False


class Slots:
    """So many runs may be at work at once. One that waits or is paused is not at work, and has none.

    A run that goes on gets its slot before one that begins: it is in memory already, and somebody may wait for it.

    Args:
        count: How many there are.
        changes: Told whenever one becomes free.
    """

    def __init__(self, count: int, changes: Changes) -> None:
        self._count = count
        self._changes = changes
        self._going_on: deque[Place] = deque()
        self._beginning: deque[Place] = deque()
        self.free = count
        """How many nobody has."""

    @property
    def taken(self) -> int:
        """How many runs have one."""
        return self._count - self.free

    def take_nowait(self) -> bool:
        """Take one, if one is free. Return whether it was."""
        if self.free:
            self.free -= 1
            return True
        return False

    def queue_up(self, tell: Callable[[], None]) -> Place:
        """Queue up as a run that goes on. `tell` is called when it has its slot, maybe at once."""
        return self._queue_up(Place(tell), self._going_on)

    def _queue_up(self, place: Place, queue: deque[Place]) -> Place:
        if self.take_nowait():
            place.given = True
            place.tell()
        else:
            queue.append(place)
        return place

    async def acquire(self) -> None:
        """Wait for a slot as a run that begins; first come, first served."""
        await trio.lowlevel.checkpoint_if_cancelled()
        given = trio.Event()
        place = self._queue_up(Place(given.set), self._beginning)
        try:
            await given.wait()
        except BaseException:
            self.withdraw(place)
            raise

    def withdraw(self, place: Place) -> None:
        """Give up a place in the queue, and the slot if it was given by now."""
        if place.given:
            self.release()
        elif place in self._going_on:
            self._going_on.remove(place)
        else:
            self._beginning.remove(place)

    def release(self) -> None:
        """Give a slot back: whoever is next in the queue has it."""
        for queue in (self._going_on, self._beginning):
            if queue:
                place = queue.popleft()
                place.given = True
                place.tell()
                return
        self.free += 1
        self._changes.notify()
