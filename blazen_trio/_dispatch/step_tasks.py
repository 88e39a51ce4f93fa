"""The step tasks of a run, which run its ready deliveries one after the other.

A step task that takes a delivery and leaves others ready has one more step task started in the next
turn of the event loop. The new one starts further ones for the turn after: as many as are away,
that is, have not come back for a delivery for some time. If steps wait, the number of step tasks
thus grows by about a half per turn. If steps are short, it grows by an eighth while there are few.
A chain of steps never has more than one. While many wait for the disk, none is started. Each takes
the next ready delivery itself, so a bound on concurrency costs no waiting task.
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
"""The steps, and the seconds, after which a step task checkpoints, even if its steps never do."""
_PLENTY: Final = 128
"""The number of step tasks beyond which more are useless if steps are short or wait for the disk.
"""
_NONE: Final[frozenset[str]] = frozenset()


class StepTasks:
    """The step tasks of one run.

    Attributes:
        attempt: The class that runs a delivery.
    """

    __slots__ = ("_coming", "_core", "_seen", "_seen_before", "_stopped", "attempt")

    def __init__(self, core: RunCore) -> None:
        self._core = core
        self.attempt: type[Attempt] = Attempt
        self._coming = 0
        """The number of step tasks that will look for a delivery in the next turn: they have just
        been started, or have yielded."""
        self._seen = self._seen_before = 0
        """The number of times that a step task has started, or has come back for a delivery after
        other tasks had run: since the last count, and between the two counts before it."""
        self._stopped = False
        """True once the nursery was cancelled, or a KeyboardInterrupt or the like is ending it."""

    def new_nursery(self) -> None:
        """Reset the counts for a new nursery: all earlier step tasks have ended."""
        self._stopped = False
        self._seen = self._seen_before = 0
        self._core.waiting = 0

    def recruit(self) -> None:
        """Start a step task, which may start others, unless one is about to look for a delivery."""
        if not self._coming and self._core.ready:
            self._start(1)

    def _start(self, number: int) -> None:
        """Start this many step tasks, the first of which may start others."""
        core = self._core
        # Step tasks that wait for the disk all come back in one turn, which other tasks need too.
        # `_PLENTY` of them keep the disk busy.
        if core.nursery is None or self._stopped or core.control.halted or core.waiting >= _PLENTY:
            return
        for index in range(number):
            if not core.in_flight:
                core.interrupted = _NONE
                core.work.start(core.nursery.cancel_scope)
            self._coming += 1
            core.in_flight += 1
            # In a copy of the run's context, so that context variables set by a step don't leak.
            core.task_context.run(core.nursery.start_soon, self._run_steps, index == 0)

    def _recruit_others(self) -> None:
        core = self._core
        # Trio's order within a turn is random. Only over two counts has each task that comes back
        # in every turn been seen for certain.
        away = core.in_flight - self._coming - self._seen - self._seen_before - core.waiting
        self._seen_before, self._seen = self._seen, 0
        wanted = len(core.ready) - 1 - self._coming  # this task takes one itself
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
        except BaseException as error:  # noqa: ASYNC103  # sorted below; a Cancelled is re-raised
            # The delivery is ready again. No other step task may take it, only to be cancelled.
            self._stopped = True
            if isinstance(error, trio.Cancelled) or breaks_out(error):
                raise
            # An error of the store, a bug, or a step's exception that is not an `Exception`: only
            # this run can't continue.
            core.crash(error)
        finally:
            core.in_flight -= 1
            if not core.in_flight:
                nursery = None if core.control.in_ended else core.nursery
                core.work.stop(None if nursery is None else nursery.cancel_scope)
                core.wake()

    async def _take_deliveries(self, me: object) -> None:
        """Run deliveries one after the other while any are ready."""
        core = self._core
        ready, steps, control = core.ready, core.definition.steps, core.control
        attempt = self.attempt
        bounded = ready if isinstance(ready, BoundedQueue) else None
        before, held = contextvars.copy_context(), None
        turn_began, taken = perf_counter(), 0
        while ready and not (self._stopped or control.halted):
            delivery = ready.popleft()
            if delivery is None:
                break  # all are over their steps' bounds; the task that frees one takes the next
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
            if not ready:
                break  # A delivery that comes now has a task recruited for it.
            if held is None:
                held = _Held(before)
            if held.changed():
                # The step has changed context variables, which the next step must not see.
                self.recruit()
                break
            if core.last_task is not me:
                # Other tasks have run in between, so this one has yielded.
                core.last_task = me
                self._seen += 1
                turn_began, taken = perf_counter(), 0
                if core.journal is not None:
                    # Maybe only for its commit, which can't be cancelled. Without this check, a
                    # `sync` run whose steps never wait could not be cancelled or time out.
                    await trio.lowlevel.checkpoint_if_cancelled()
            taken += 1
            if taken >= _STEPS_PER_TURN or perf_counter() - turn_began > _SECONDS_PER_TURN:
                await self._give_way(me)
                turn_began, taken = perf_counter(), 0

    async def _give_way(self, me: object) -> None:
        """Checkpoint. Counts as coming: this task itself comes back for ready deliveries."""
        self._coming += 1
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._coming -= 1
        self._core.last_task = me
        self._seen += 1


_TEXTS: Final = (str, bytes, type(None))


class _Held:
    """The objects that a task's context variables held before its first step.

    What counts is which objects the variables hold, not what these are equal to. Two contexts are
    compared in C, though, and 20 times as fast as the objects' ids (40 to 740 ns for four
    variables, Python 3.11): unchanged ones share one tree, and nothing in it is looked at. So the
    contexts are compared if each object is equal to nothing but itself, or a text like it, and the
    ids otherwise.
    """

    __slots__ = ("_context", "_ids")

    def __init__(self, context: contextvars.Context) -> None:
        values = [*context.values()]
        own = object.__eq__
        plain = all(
            type(value) in _TEXTS or getattr(type(value), "__eq__", None) is own for value in values
        )
        self._context = context if plain else None
        self._ids = [*map(id, values)]

    def changed(self) -> bool:
        """Return whether the present task's variables hold anything else by now."""
        now = contextvars.copy_context()
        try:
            if self._context is not None:
                return now != self._context
            return [*map(id, now.values())] != self._ids
        except Exception:  # noqa: BLE001  # out of the `__eq__` of what a step has set
            return True
