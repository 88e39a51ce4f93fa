"""Step tasks: they run ready deliveries, one after the other.

Whichever of them leaves something ready sees to it that another begins in the next turn of the event loop. That one recruits,
for the turn after, as many as there are tasks whose steps have long not come back: where steps wait, their number
grows by about a half per turn; where they are short, by an eighth while they are few; and a chain never has more than one. While
many wait for the disk, none begins. Each takes the next ready delivery itself, so a bound on concurrency costs no waiting task.
"""

from __future__ import annotations

import contextvars
from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio

from blazen_trio._dispatch.attempts import Attempt
from blazen_trio._dispatch.calls import breaks_out
from blazen_trio._dispatch.schedule import BoundedQueue

if TYPE_CHECKING:
    from blazen_trio._dispatch.core import RunCore

__all__ = ["StepTasks"]

_STEPS_PER_TURN: Final = 32
_SECONDS_PER_TURN: Final = 0.005
"""A step task gives way at least this often, also to steps that never do."""
_PLENTY: Final = 128
"""So many whose steps are short, or that wait for the disk, are as good as more."""
_NONE: Final[frozenset[str]] = frozenset()


class StepTasks:
    """The step tasks of one run.

    Attributes:
        attempt: What runs a delivery.
    """

    __slots__ = ("_coming", "_core", "_seen", "_seen_before", "_stopped", "attempt")

    def __init__(self, core: RunCore) -> None:
        self._core = core
        self.attempt: type[Attempt] = Attempt
        self._coming = 0
        """How many look for a delivery in the next turn: they have just been started, or have given way."""
        self._seen = self._seen_before = 0
        """How often one has begun, or come back for more after others had run: since one last recruited, and between the two before."""
        self._stopped = False
        """Whether the nursery was cancelled, or is ended by a KeyboardInterrupt or the like."""

    def new_nursery(self) -> None:
        """All that ran before has ended, and the run goes on."""
        self._stopped = False
        self._seen = self._seen_before = 0
        self._core.waiting = 0

    def recruit(self) -> None:
        """See to it that one begins with what is ready, and recruits others."""
        if not self._coming and self._core.ready:
            self._start(1)

    def _start(self, number: int) -> None:
        """Start so many, the first of which recruits."""
        core = self._core
        # Those who wait for the disk come back for more all in one turn: a few of them keep it busy.
        if core.nursery is None or self._stopped or core.control.halted or core.waiting >= _PLENTY:
            return
        for index in range(number):
            if not core.in_flight:
                core.interrupted = _NONE
                core.work.start(core.nursery.cancel_scope)
            self._coming += 1
            core.in_flight += 1
            # In the run's own context: what one step sets in its context variables ends with its task.
            core.task_context.run(core.nursery.start_soon, self._run_steps, index == 0)

    def _recruit_others(self) -> None:
        core = self._core
        # The order within a turn is random, so it takes two counts to see each task that comes back in every turn.
        away = core.in_flight - self._coming - self._seen - self._seen_before - core.waiting
        self._seen_before, self._seen = self._seen, 0
        wanted = len(core.ready) - 1 - self._coming  # this one takes one itself
        short = core.in_flight // 8 if core.in_flight < _PLENTY else 0
        self._start(min(wanted, max(away, short, 1)))

    @trio.lowlevel.enable_ki_protection
    async def _run_steps(self, recruits: bool) -> None:
        core = self._core
        try:
            self._coming -= 1
            self._seen += 1
            core.last_task = me = object()
            await trio.lowlevel.checkpoint_if_cancelled()
            if recruits and len(core.ready) > 1:
                self._recruit_others()
            await self._take_deliveries(me)
        except BaseException as error:  # noqa: ASYNC103  # sorted below; a Cancelled is raised again
            # What was in flight is ready again, and nobody else must begin with it, to be cancelled in turn.
            self._stopped = True
            if isinstance(error, trio.Cancelled) or breaks_out(error):
                raise
            # The store's, a bug, or what a step raised that is no `Exception`: it is this run that
            # can't go on, and no other.
            core.crash(error)
        finally:
            core.in_flight -= 1
            if not core.in_flight:
                nursery = None if core.control.ended else core.nursery
                core.work.stop(None if nursery is None else nursery.cancel_scope)
                core.wake()

    async def _take_deliveries(self, me: object) -> None:
        """Run deliveries, one after the other, while there are any."""
        core = self._core
        ready, steps, control = core.ready, core.definition.steps, core.control
        attempt = self.attempt
        bounded = ready if isinstance(ready, BoundedQueue) else None
        held, ids = _held(contextvars.copy_context())
        turn_began, taken = perf_counter(), 0
        while ready and not (self._stopped or control.halted):
            delivery = ready.popleft()
            if delivery is None:
                break
            if ready:
                self.recruit()
            try:
                step = steps[delivery.step]
                if step.passes_context:
                    await attempt.in_turn(core, delivery, step)
                else:
                    await attempt(core, delivery, step).run()
            finally:
                if bounded is not None:
                    bounded.done(delivery.step)
            try:
                now = contextvars.copy_context()
                changed = now != held if held is not None else [*map(id, now.values())] != ids
            except Exception:  # noqa: BLE001  # out of the `__eq__` of what the step has set
                changed = True
            if changed:
                # What it set must not reach the next step.
                self.recruit()
                break
            if core.last_task is not me:
                # Others have run meanwhile, so this one gave way.
                core.last_task = me
                self._seen += 1
                turn_began, taken = perf_counter(), 0
                if core.journal is not None:
                    # It may have given way for its commit alone, which can't be cancelled.
                    await trio.lowlevel.checkpoint_if_cancelled()
            taken += 1
            if taken >= _STEPS_PER_TURN or perf_counter() - turn_began > _SECONDS_PER_TURN:
                await self._give_way(me)
                turn_began, taken = perf_counter(), 0

    async def _give_way(self, me: object) -> None:
        """Let others run. What is ready meanwhile needs no other task: this one comes back for it."""
        self._coming += 1
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._coming -= 1
        self._core.last_task = me
        self._seen += 1


_TEXTS: Final = (str, bytes, type(None))


def _held(context: contextvars.Context) -> tuple[contextvars.Context | None, list[int]]:
    """Return what tells whether a step has set a context variable: the context; the ids of what it
    holds.

    What counts is which objects the variables hold, not what these are equal to. Two contexts are
    compared in C, though, and 20 times as fast as these ids (40 to 740 ns for four variables,
    Python 3.11): unchanged ones share one tree, and nothing in it is looked at. So the context is
    compared where all that it holds is equal to nothing but itself, or a text like it; elsewhere it
    is `None` here.
    """
    values = [*context.values()]
    own = object.__eq__
    plain = all(
        type(value) in _TEXTS or getattr(type(value), "__eq__", None) is own for value in values
    )
    return (context if plain else None), [*map(id, values)]
