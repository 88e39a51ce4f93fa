"""What the runs of one runtime share: the slots for those at work, and a place to rest without a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from blazen_trio._dispatch.dispatcher import Dispatcher

__all__ = ["Host", "Slots"]


class Slots:
    """So many runs may be at work at once. One that waits or is paused is not at work, and has none.

    Attributes:
        freed: Set, and replaced, whenever one is free again.
    """

    def __init__(self, count: int) -> None:
        self._semaphore = trio.Semaphore(count, max_value=count)
        self.freed = trio.Event()

    @property
    def value(self) -> int:
        """How many are free."""
        return self._semaphore.value

    @property
    def taken(self) -> int:
        """How many runs have one."""
        return (self._semaphore.max_value or 0) - self._semaphore.value

    async def acquire(self) -> None:
        """Wait for one, first come first served."""
        await self._semaphore.acquire()

    def acquire_nowait(self) -> None:
        """Take one.

        Raises:
            trio.WouldBlock: None is free.
        """
        self._semaphore.acquire_nowait()

    def release(self) -> None:
        """Give one back."""
        self._semaphore.release()
        self.tell()

    def tell(self) -> None:
        """Let those look again who wait for a run to leave."""
        self.freed.set()
        self.freed = trio.Event()


class Host(Protocol):
    """Drives many runs."""

    slots: Slots

    def lets_rest(self, dispatcher: Dispatcher) -> bool:
        """Whether a run that waits may leave its task and its dispatcher: nobody here has hold of it, and the host will bring it
        back when what it waits for has come.
        """
