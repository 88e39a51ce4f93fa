"""The schedule of a run: its ready deliveries, its timers, its time at work, and its standstill."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import trio

from blazen_trio._codec.document import iter_state
from blazen_trio._concurrency import in_slices

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from blazen_trio._codec.codec import Codec
    from blazen_trio._dispatch.observers import Recorder
    from blazen_trio._state.model import Delivery, RunState

__all__ = [
    "BoundedQueue",
    "Standstill",
    "Timers",
    "WorkClock",
]

T = TypeVar("T")


class BoundedQueue:
    """A FIFO queue of ready deliveries that keeps to the bounds on concurrency.

    A delivery over its step's bound is set aside until an earlier one is done; it costs no task. A
    workflow without bounds uses a plain `deque` instead.

    Args:
        bounds: How many deliveries of each bounded step may be in flight at once.
        max_concurrency: How many deliveries may be in flight at once in all; `None`: no bound.
    """

    def __init__(self, bounds: Mapping[str, int], max_concurrency: int | None) -> None:
        self._queue: deque[Delivery] = deque()
        self._total_room = float("inf") if max_concurrency is None else max_concurrency
        self._room = dict(bounds)
        self._queued = dict.fromkeys(bounds, 0)
        """The number of each bounded step's deliveries in the queue: at most as many as there is
        room for, so `popleft` need not skip any."""
        self._aside: dict[str, deque[Delivery]] = {name: deque() for name in bounds}

    def __len__(self) -> int:
        """Return an upper limit of the deliveries that could be taken now."""
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
        """Take the next delivery that may run now, if any. Call `done` when it is not in flight."""
        queue = self._queue
        while queue and self._total_room:
            delivery = queue.popleft()
            room = self._room.get(delivery.step)
            if room is not None:
                self._queued[delivery.step] -= 1
                if room == 0:
                    # It was taken and returned, and another of its step is in flight by now.
                    self._aside[delivery.step].appendleft(delivery)
                    continue
                self._room[delivery.step] = room - 1
            self._total_room -= 1
            return delivery
        return None

    def done(self, step: str) -> None:
        """Note that a delivery of this step, taken before, is no longer in flight."""
        self._total_room += 1
        if step in self._room:
            self._room[step] += 1
            if (aside := self._aside[step]) and self._queued[step] < self._room[step]:
                self.appendleft(aside.popleft())


class Timers:
    """A heap of the items that wait for a time (UTC, seconds). An item costs no task."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float:
        """The earliest due time, in UTC; infinity if there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def add(self, due: float, id_: int) -> None:
        """Add an item that is due at this time (UTC)."""
        heapq.heappush(self._heap, (due, id_))

    def pop(self) -> int:
        """Remove the item that is due first, and return its id."""
        return heapq.heappop(self._heap)[1]


class WorkClock:
    """The clock of a run's time at work, which its timeout limits.

    It runs while step tasks are at work, and stands still while the run waits or is paused. While
    it runs, the deadline of the step tasks' cancel scope is the moment at which the timeout is used
    up. While it stands still, that scope has no deadline.

    Args:
        state: The run's state.
    """

    __slots__ = ("_began", "_elapsed", "_state", "trio_time")

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._elapsed = state.elapsed
        self._began: float | None = None
        self.trio_time = trio.lowlevel.current_clock().current_time
        """The function behind `trio.current_time` in this `trio.run`, without the look-up."""

    @property
    def elapsed(self) -> float:
        """The seconds at work so far, in all processes that have driven the run."""
        if self._began is None:
            return self._elapsed
        return self._elapsed + self.trio_time() - self._began

    @property
    def used_up(self) -> bool:
        """True if the run has used up its timeout."""
        return self._state.timeout is not None and self.elapsed >= self._state.timeout

    def restart(self, elapsed: float) -> None:
        """Continue from this number of seconds."""
        self._elapsed = elapsed

    def start(self, scope: trio.CancelScope) -> None:
        """Start the clock with the first step task, and set the deadline of the tasks' scope."""
        began = self._began = self.trio_time()
        if self._state.timeout is not None:
            scope.deadline = began + max(0.0, self._state.timeout - self._elapsed)

    def stop(self, scope: trio.CancelScope | None) -> None:
        """Stop the clock with the last step task, and remove the deadline.

        A deadline that has passed stays, since it has to cancel all that waits in the scope.

        Args:
            scope: The scope of the step tasks; `None` if the run has ended.
        """
        self._elapsed, self._began = self.elapsed, None
        timeout = self._state.timeout
        if scope is not None and timeout is not None and self._elapsed < timeout:
            scope.deadline = float("inf")


class Standstill:
    """A gate: while it is closed, no transition of the run may be made.

    A task that is about to make one waits for `opened` first.
    """

    __slots__ = ("_codec", "_recorder", "_state", "gate")

    def __init__(self, state: RunState, codec: Codec, recorder: Recorder) -> None:
        self._state = state
        self._codec = codec
        self._recorder = recorder
        self.gate: trio.Event | None = None
        """Set when the gate opens; `None`: it is open."""

    async def opened(self) -> None:
        """Wait until transitions may be made.

        The caller must make its own before its next checkpoint, at which the gate may close again.
        """
        while self.gate is not None:
            # Shielded: the wait is short, and the cause of the transition has often happened
            # already (a step returned, a row was taken). A cancellation must not lose it.
            with trio.CancelScope(shield=True):
                await self.gate.wait()

    async def hold(self, pieces: Generator[None, None, T]) -> T:
        """Close the gate while a generator is drained, and return the generator's result.

        Not cancellable. The gate must be open, and closes before the first slice. A caller that has
        just made a wide transition drains its rest with this, without a checkpoint in between.
        Otherwise another task would see the state half applied. The gate opens with the last slice,
        so the result still holds on return, until the next checkpoint.
        """
        assert self.gate is None, "the gate is closed: wait for opened() without a checkpoint after"
        gate = self.gate = trio.Event()
        try:
            return await in_slices(pieces)
        finally:
            self.gate = None
            gate.set()

    async def image(self, *, inline: bool, blobs: dict[str, bytes] | None = None) -> list[bytes]:
        """Encode the present state in slices; the result holds until the next checkpoint.

        Args:
            inline: Whether to include large values and the history, rather than references.
            blobs: Receives the large values that are referred to, by digest.
        """
        await self.opened()
        history = self._recorder.records if inline else None
        return await self.hold(
            _gathered(
                iter_state(
                    self._state, inline=inline, codec=self._codec, history=history, blobs=blobs
                )
            )
        )


def _gathered(pieces: Iterable[bytes]) -> Generator[None, None, list[bytes]]:
    gathered = []
    for piece in pieces:
        if piece:
            gathered.append(piece)
        yield
    return gathered
