"""Re-runs of steps whose commit came too late take turns, so that they end.

A step whose commit finds that what it relied on has changed is run again. Were all such steps to run again at once, all
but one would be too late again: n steps on one key would take n * n attempts. So they form a queue; and while the one
whose turn it is runs, a commit that would change what it has read waits behind it. Nobody waits for a turn holder that
is not running, and a holder waits for nobody, so this can't deadlock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from blazen_trio._dispatch.transaction import Transaction
    from blazen_trio._state.model import Delivery

__all__ = ["Turns"]


class Turns:
    """The queue of a run's re-runs."""

    def __init__(self) -> None:
        self._queue: list[Delivery] = []  # short, and mostly empty
        self._holder: Delivery | None = None
        self._running: Transaction | None = None
        self._moved: trio.Event | None = None
        self._reruns: dict[int, int] = {}

    def reruns(self, delivery: Delivery) -> int:
        """How often it has been run again."""
        return self._reruns.get(delivery.id, 0)

    def begins(self, transaction: Transaction) -> None:
        """An attempt begins."""
        if transaction.delivery is self._holder:
            self._running = transaction

    def ask(self, delivery: Delivery) -> bool:
        """It has to run again. True: at once; else it gets its turn through `ended`."""
        self._reruns[delivery.id] = self._reruns.get(delivery.id, 0) + 1
        if self._holder is None:
            self._holder = delivery
        if self._holder is delivery:
            self._running = None
            return True
        self._queue.append(delivery)
        return False

    def blocks(self, transaction: Transaction) -> bool:
        """Whether this commit would change what the running turn holder has read."""
        holder = self._running
        return holder is not None and holder is not transaction and transaction.touches(holder.footprint())

    async def moved(self) -> None:
        """Wait until the holder's attempt is over."""
        if self._moved is None:
            self._moved = trio.Event()
        await self._moved.wait()

    def ended(self, delivery: Delivery, *, done: bool) -> Delivery | None:
        """A delivery is in flight no more (its attempt has committed, failed or been cancelled).

        Args:
            done: Whether it will never be run again; otherwise its next attempt goes on counting.

        Returns:
            The delivery that has the next turn, to be run now.
        """
        if done:
            self._reruns.pop(delivery.id, None)
        if delivery is not self._holder:
            return None
        self._running = None
        self._holder = self._queue.pop(0) if self._queue else None
        if self._moved is not None:
            self._moved.set()
            self._moved = None
        return self._holder
