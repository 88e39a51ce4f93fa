"""The slots of one runtime, which limit how many of its runs are at work at once."""

from __future__ import annotations

import contextvars
from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from blazen_trio._concurrency import Changes
    from blazen_trio._dispatch.control import Control

__all__ = ["Place", "Slots", "belongs_to", "lending_slot"]

T = TypeVar("T")


class Place:
    """A place in the queue for a slot."""

    __slots__ = ("given", "tell")

    def __init__(self, tell: Callable[[], None]) -> None:
        self.tell = tell
        self.given = False


class Slots:
    """The slots for runs at work. A run that waits or is paused holds none.

    A run that continues gets a slot before one that starts: it is in memory already, and a caller
    may be waiting for it.

    Args:
        count: The number of slots.
        changes: Notified when a slot becomes free.
    """

    def __init__(self, count: int, changes: Changes) -> None:
        self._count = count
        self._changes = changes
        self._going_on: deque[Place] = deque()
        self._beginning: deque[Place] = deque()
        self.free = count
        """The number of free slots."""

    @property
    def taken(self) -> int:
        """The number of slots in use."""
        return self._count - self.free

    def take_nowait(self) -> bool:
        """Take a free slot. Return `False` if there is none."""
        if self.free:
            self.free -= 1
            return True
        return False

    def queue_up(self, tell: Callable[[], None]) -> Place:
        """Queue for a slot as a run that continues.

        Args:
            tell: Called when the run has its slot, which may be at once.
        """
        return self._queue_up(Place(tell), self._going_on)

    def _queue_up(self, place: Place, queue: deque[Place]) -> Place:
        if self.take_nowait():
            place.given = True
            place.tell()
        else:
            queue.append(place)
        return place

    async def acquire(self) -> None:
        """Wait for a slot as a run that starts; first come, first served."""
        await trio.lowlevel.checkpoint_if_cancelled()
        given = trio.Event()
        place = self._queue_up(Place(given.set), self._beginning)
        try:
            await given.wait()
        except BaseException:
            self.withdraw(place)
            raise

    def withdraw(self, place: Place) -> None:
        """Give up a place in the queue, or the slot if the place has received one already.

        A slot can be handed over just before its waiter is cancelled. If it were not released then,
        the runtime would have one slot less for good.
        """
        if place.given:
            self.release()
        elif place in self._going_on:
            self._going_on.remove(place)
        else:
            self._beginning.remove(place)

    def release(self) -> None:
        """Release a slot, which goes to the next run in the queue."""
        for queue in (self._going_on, self._beginning):
            if queue:
                place = queue.popleft()
                place.given = True
                place.tell()
                return
        self.free += 1
        self._changes.notify()


# Lending. A step that waits for its own runtime gives up its run's slot meanwhile. Otherwise all
# slots could be held by steps that wait for other runs of the same runtime. Those runs would never
# get a slot, and the runtime would be deadlocked.


class Borrower(Protocol):
    """A run that has a slot, as it is seen from here."""

    changes: Changes
    control: Control
    has_slot: bool

    def queue_for_slot(self) -> None:
        """Ask for a slot."""

    def give_slot(self) -> None:
        """Release the slot."""


_current: contextvars.ContextVar[str] = contextvars.ContextVar("blazen_trio run")
"""The id of the run that this task belongs to."""


def belongs_to(run_id: str) -> None:
    """Mark the present context: tasks started in it belong to this run."""
    _current.set(run_id)


async def lending_slot(driving: Mapping[str, Borrower], wait: Callable[[], Awaitable[T]]) -> T:
    """Wait for something of a runtime without holding one of its slots.

    If the caller is a step of one of these runs, it continues only once its run has a slot again.
    The run gets one before any run that starts.

    Args:
        driving: The runs that the runtime drives, by id.
        wait: Called and awaited without a slot.
    """
    run = driving.get(_current.get(""))
    if run is None or not run.control.accepts:
        return await wait()
    run.give_slot()
    try:
        return await wait()
    finally:
        run.queue_for_slot()
        # A cancelled caller does not wait for the slot; its run gets it when its turn comes.
        await run.changes.wait_until(  # noqa: ASYNC102
            lambda: run.has_slot or not run.control.accepts
        )
