"""The turns of re-runs.

A step whose commit conflicts is re-run. If all such steps were re-run at once, all but one would
conflict again: n steps on one key would take n * n attempts. Re-runs therefore take turns, in a
queue. While the step whose turn it is runs, a commit that would change what it has read waits. No
commit waits for a turn holder that is not running, and a holder never waits for a turn, so this
can't deadlock.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from blazen_trio._dispatch.transaction import Transaction
    from blazen_trio._state.model import Delivery

__all__ = ["Rerun", "Turns"]


class Rerun(enum.Enum):
    """The answer to a step whose commit conflicts, and which has to run again."""

    NOW = "now"
    QUEUED = "queued"
    """The delivery waits for its turn, without a task."""


class Turns:
    """The queue of a run's re-runs.

    Only the head of the queue, the holder, is re-run. `_running` is its transaction while it runs,
    and only then do other commits wait, if they would change what it has read. So three steps that
    get and set one counter take at most 1 + 2 + 2 attempts:

        a reads, b reads, c reads; a commits; b and c conflict
        b holds the turn and runs again; c waits in the queue, without a task
        a fourth step that sets the counter waits with its commit until b has committed
        b commits; c gets the turn

    The holder gives up its turn on every way out (`Attempt.in_turn` sees to it). Otherwise the
    queue would stand still, and with it every delivery in it.
    """

    def __init__(self) -> None:
        self._queue: list[Delivery] = []  # short, and mostly empty
        self._holder: Delivery | None = None
        self._running: Transaction | None = None
        self._moved: trio.Event | None = None
        self._reruns: dict[int, int] = {}

    def reruns(self, delivery: Delivery) -> int:
        """Return how often a delivery has been re-run."""
        return self._reruns.get(delivery.id, 0)

    def begins(self, transaction: Transaction) -> None:
        """Note that an attempt starts."""
        if transaction.delivery is self._holder:
            self._running = transaction

    def ask(self, delivery: Delivery) -> Rerun:
        """Request a re-run. If it is queued, `ended` hands out its turn.

        A holder that conflicts again keeps its turn, so it is not overtaken and the re-runs end.
        """
        self._reruns[delivery.id] = self._reruns.get(delivery.id, 0) + 1
        if self._holder is None:
            self._holder = delivery
        if self._holder is delivery:
            self._running = None
            return Rerun.NOW
        self._queue.append(delivery)
        return Rerun.QUEUED

    def blocks(self, transaction: Transaction) -> bool:
        """Return whether this commit would change what the running turn holder has read."""
        holder = self._running
        return (
            holder is not None
            and holder is not transaction
            and transaction.touches(holder.footprint())
        )

    async def wait_moved(self) -> None:
        """Wait until the holder has passed on its turn: it has committed, failed or ended."""
        if self._moved is None:
            self._moved = trio.Event()
        await self._moved.wait()

    def ended(self, delivery: Delivery, *, done: bool) -> Delivery | None:
        """Note that a delivery is no longer in flight, and pass on its turn.

        Its attempt has committed, failed or been cancelled.

        Args:
            delivery: The delivery.
            done: Whether it is no longer pending. If it is, the count of its re-runs is kept.

        Returns:
            The delivery that has the next turn, to be run now; `None` if there is none.
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
