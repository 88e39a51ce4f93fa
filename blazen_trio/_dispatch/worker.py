"""Workers: tasks that run ready deliveries one after the other.

Whichever worker leaves something ready sees to it that another begins in the next turn of the event loop. That one recruits,
for the turn after, as many as there are workers whose steps have long not come back: where steps wait, their number
grows by about a half per turn; where they are short, by an eighth while they are few; and a chain never has more than one. While
many wait for the disk, none begins. Each takes the next ready delivery itself, so a bound on concurrency costs no waiting task.
"""

from __future__ import annotations

import contextvars
from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio

from blazen_trio._dispatch.attempt import NONE, Attempts
from blazen_trio._dispatch.ready import BoundedQueue

if TYPE_CHECKING:
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._telemetry.hooks import RunListener

__all__ = ["Workers"]

_STEPS_PER_TURN: Final = 32
_SECONDS_PER_TURN: Final = 0.005
"""A worker gives way at least this often, also to steps that never do."""


_PLENTY: Final = 128
"""So many whose steps are short, or that wait for the disk, are as good as more."""


class Workers:
    """The workers of one run."""

    __slots__ = ("_attempts", "_d", "_last", "_seen", "_seen_before", "_starting", "_stopped", "count", "waiting")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._d = dispatcher
        self._attempts = Attempts(dispatcher)
        self.count = 0
        self.waiting = 0
        """How many of them wait for the disk."""
        self._starting = 0
        self._seen = self._seen_before = 0
        """How often one has begun, or come back for more after others had run: since one last recruited, and between the two before."""
        self._stopped = False
        """Whether the period was cancelled, or is ended by a KeyboardInterrupt or the like."""
        self._last: object = None
        """Whichever worker ran last."""

    def listened_to(self, listener: RunListener) -> None:
        """Tell of each attempt, from the first on."""
        from blazen_trio._dispatch.heard import HeardAttempts

        self._attempts = HeardAttempts(self._d, listener)

    @property
    def interrupted(self) -> frozenset[str]:
        """The steps whose attempts were cancelled."""
        return self._attempts.interrupted

    @property
    def halted(self) -> bool:
        """Whether no further step may start."""
        d = self._d
        return d.over or d.holds > 0 or d.draining or d.failure is not None or d.cancel_reason is not None

    def start(self) -> None:
        """A period begins."""
        self._stopped = False
        self.waiting = 0
        self._attempts.interrupted = NONE
        self.recruit()

    def recruit(self) -> None:
        """See to it that a worker begins with what is ready, and recruits others."""
        if not self._starting and self._d.ready:
            self._start(1)

    def _start(self, number: int) -> None:
        """Start so many, the first of which recruits."""
        d = self._d
        # Those who wait for the disk come back for more all in one turn: a few of them keep it busy.
        if d.nursery is None or self._stopped or self.halted or self.waiting >= _PLENTY:
            return
        for index in range(number):
            self._starting += 1
            self.count += 1
            # In the run's own context: what one step sets in its context variables ends with its worker.
            d.task_context.run(d.nursery.start_soon, self._work, index == 0)

    def _recruit_others(self) -> None:
        # The order within a turn is random, so it takes two counts to see each worker that comes back in every turn.
        away = self.count - self._starting - self._seen - self._seen_before - self.waiting
        self._seen_before, self._seen = self._seen, 0
        wanted = len(self._d.ready) - 1 - self._starting  # this one takes one itself
        short = self.count // 8 if self.count < _PLENTY else 0
        self._start(min(wanted, max(away, short, 1)))

    def gave_way(self) -> None:
        """The worker that runs has just waited for something, so others have run."""
        self._last = None

    async def _work(self, recruits: bool) -> None:
        d = self._d
        ready, steps = d.ready, d.definition.steps
        once, in_turn = self._attempts.once, self._attempts.in_turn
        bounded = ready if isinstance(ready, BoundedQueue) else None
        self._starting -= 1
        self._seen += 1
        context = contextvars.copy_context()
        turn_began, taken = perf_counter(), 0
        me = self._last = object()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            if recruits and len(ready) > 1:
                self._recruit_others()
            while ready and not (self._stopped or self.halted) and (delivery := ready.popleft()) is not None:
                if ready:
                    self.recruit()
                try:
                    step = steps[delivery.step]
                    await (in_turn(delivery, step) if step.passes_context else once(delivery, step))
                finally:
                    if bounded is not None:
                        bounded.done(delivery.step)
                if contextvars.copy_context() != context:
                    self.recruit()
                    break
                if self._last is not me:
                    # Others have run meanwhile, so this one gave way.
                    self._last = me
                    self._seen += 1
                    turn_began, taken = perf_counter(), 0
                    if d.journal is not None:
                        # It may have given way for its commit alone, which can't be cancelled.
                        await trio.lowlevel.checkpoint_if_cancelled()
                taken += 1
                if taken >= _STEPS_PER_TURN or perf_counter() - turn_began > _SECONDS_PER_TURN:
                    await trio.lowlevel.checkpoint()
                    self._last = me
                    self._seen += 1
                    turn_began, taken = perf_counter(), 0
        except Exception as failure:  # noqa: BLE001  # the store's, or a bug: told to whoever asks for the run
            d.crash(failure)
        except BaseException:
            # Cancelled: what was in flight is ready again, and nobody else must begin with it, to be cancelled in turn.
            self._stopped = True
            raise
        finally:
            self.count -= 1
            if not self.count:
                d.wake()
