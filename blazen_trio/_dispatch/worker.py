"""Workers: tasks that run ready deliveries one after the other, and commit each.

A worker that takes a delivery while more are ready first recruits up to two others, each of which does the same: their
number doubles per turn of the event loop up to what is runnable, and a chain never has more than one. Each takes the
next ready delivery itself, so a bound on concurrency costs no waiting task.
"""

from __future__ import annotations

import contextvars
import random
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import trio

from blazen_trio._definitions.events import Event, StepFailedEvent
from blazen_trio._dispatch.transaction import Transaction
from blazen_trio._state.model import StoredError
from blazen_trio._state.outputs import check_returned, unwrap
from blazen_trio.errors import (
    SerializationError,
    StateConflictError,
    StepFailedError,
    StepOutputError,
    StepTimeoutError,
)

if TYPE_CHECKING:
    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import Delivery, Payload

__all__ = ["Workers"]

_STEPS_PER_TURN: Final = 32
_SECONDS_PER_TURN: Final = 0.005
"""A worker gives way at least this often, also to steps that never do."""
_ENCODE_PER_TURN: Final = 1000
"""Members of a fan-out encoded between two checkpoints: a few milliseconds' worth."""
_NEVER_RETRIED: Final = (StepOutputError, StateConflictError, SerializationError)
"""Faults of the code or its data, which another attempt would only repeat."""


class Workers:
    """The workers of one run."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._d = dispatcher
        self.count = 0
        self.interrupted: set[str] = set()
        """The steps whose attempts were cancelled last."""
        self._starting = 0
        self._limiter: trio.CapacityLimiter | None = None

    @property
    def halted(self) -> bool:
        """Whether no further step may start."""
        d = self._d
        return d.over or d.held or d.failure is not None or d.cancel_reason is not None

    def recruit(self) -> None:
        """Start workers for what is ready: two at most, who start more."""
        d = self._d
        if d.nursery is None or self.halted:
            return
        for _ in range(min(2, len(d.ready) - self._starting)):
            self._starting += 1
            self.count += 1
            # In a context of its own, so that what one step sets in its context variables ends with its worker.
            d.task_context.copy().run(d.nursery.start_soon, self._work)

    async def _work(self) -> None:
        d = self._d
        ready = d.ready
        self._starting -= 1
        context = contextvars.copy_context()
        turn_began, in_turn = perf_counter(), 0
        try:
            while not self.halted and (delivery := ready.pop()) is not None:
                if ready:
                    self.recruit()
                try:
                    await self._run(delivery)
                finally:
                    ready.done(delivery.step)
                if contextvars.copy_context() != context:
                    break
                in_turn += 1
                if in_turn >= _STEPS_PER_TURN or perf_counter() - turn_began > _SECONDS_PER_TURN:
                    await trio.lowlevel.checkpoint()
                    turn_began, in_turn = perf_counter(), 0
        except Exception as failure:  # noqa: BLE001  # the store's, or a bug: told to whoever asks for the run
            d.crash(failure)
        finally:
            self.count -= 1
            if not self.count or ready:
                d.wake()

    # An attempt

    async def _run(self, delivery: Delivery) -> None:
        """Run a delivery's step and commit it, again at once if its commit comes too late and it has the turn."""
        d = self._d
        again: bool | None = True
        try:
            while again:
                again = await self._attempt(delivery)
        finally:
            if again is not False and (following := d.turns.ended(delivery)) is not None:
                d.ready.push_first(following)
                d.wake()

    async def _attempt(self, delivery: Delivery) -> bool | None:
        """`None`: the attempt is over. `True`: to be run again now. `False`: to be run again when it has its turn."""
        d = self._d
        step = d.definition.steps[delivery.step]
        event: Any = list(delivery.event) if step.is_join else delivery.event
        transaction = None
        arguments: tuple[Any, ...]
        if step.passes_context:
            transaction = Transaction(delivery, d.state, d.codec)
            d.turns.begins(transaction)
            arguments = (event, d.make_context(d, transaction))
        else:
            arguments = (event,)
        began = None
        if step.retry is not None or d.recorder.detailed:
            began = d.clock.now()
            if d.recorder.detailed:
                d.recorder.record("step_dispatched", began, step=step.name, event_type=_event_type(delivery))
        try:
            if step.is_async and step.timeout is None:
                result = await step.call(*arguments)
            else:
                result = await self._bounded(step, arguments)
            if transaction is not None:
                transaction.closed = True
            return await self._commit(delivery, step, transaction, result, began)
        except BaseException as error:
            if transaction is not None:
                transaction.closed = True
            if d.journal is not None and d.journal.failure is not None and isinstance(error, Exception):
                raise d.journal.failure from None
            await self._interrupted_or_failed(delivery, step, error, began)
            return None

    async def _bounded(self, step: StepDefinition, arguments: tuple[Any, ...]) -> Any:
        """Run a step with a timeout, or in a thread."""
        limit = float("inf") if step.timeout is None else step.timeout
        with trio.move_on_after(limit) as scope:
            if step.is_async:
                return await step.call(*arguments)
            if self._limiter is None:
                # Its own, so that steps that block don't starve the store or the program's other threads.
                self._limiter = trio.CapacityLimiter(40)
            result = await trio.to_thread.run_sync(step.call, *arguments, limiter=self._limiter)
            if not scope.cancel_called:
                return result
            # A thread can't be interrupted: it was awaited, and its result comes too late.
        raise StepTimeoutError(
            f"step {step.name!r} took longer than its timeout of {limit:g} s",
            step_name=step.name,
            error_type="StepTimeoutError",
        )

    # The end of an attempt

    async def _commit(
        self, delivery: Delivery, step: StepDefinition, transaction: Transaction | None, result: Any, began: float | None
    ) -> bool | None:
        """Commit an attempt; returns what `_attempt` does."""
        d = self._d
        journal = d.journal
        encode = d.encode
        if encode is not None and type(result) is list and len(result) > _ENCODE_PER_TURN:
            encode = await self._encode_slowly(step, result)
        if d.standstill.closed:
            await d.standstill.opened()
        if transaction is not None:
            while d.turns.blocks(transaction):
                await d.turns.moved()
            if not d.over and transaction.conflict() is not None:
                return d.turns.ask(delivery)
        if d.over:
            return None
        returned, listed = check_returned(step, result)
        machine = d.machine
        sent = transaction.sent if transaction is not None else ()
        events = [*sent, *returned] if sent else returned
        outputs = machine.outputs(events, encode, d.clock.now) if events else ()
        members = None if listed is None else machine.outputs(listed, encode, d.clock.now)
        cells = collected = None
        if transaction is not None:
            cells = transaction.cells()
            collected = transaction.collected(encode or _nothing)
        moment = d.step_moment()
        entry = machine.committed(delivery, step, outputs, members, moment, cells, collected or ())
        if d.recorder.detailed:
            self._record(entry, step, delivery, moment.at - began if began is not None else None)
        if entry.stop is not None:
            d.record_stop(entry)
            return None
        if journal is not None:
            journal.record(entry)
            await journal.written()
            if journal.fold_due:
                await journal.fold()
            if entry.asked:
                await journal.settle()
        d.absorb(entry)
        return None

    async def _encode_slowly(self, step: StepDefinition, members: list[Any]) -> Any:
        """Encode a wide fan-out's members ahead, giving way in between."""
        encode = self._d.encode
        assert encode is not None
        check_returned(step, members)
        payloads: dict[int, Payload] = {}
        for index, member in enumerate(members):
            event = unwrap(member)
            payloads[id(event)] = encode(event)
            if index % _ENCODE_PER_TURN == _ENCODE_PER_TURN - 1:
                await trio.lowlevel.checkpoint()

        def encoded(event: Event) -> Payload:
            return payloads.get(id(event)) or encode(event)

        return encoded

    def _record(self, entry: Entry, step: StepDefinition, delivery: Delivery, duration: float | None) -> None:
        record = self._d.recorder.record
        record(
            "step_completed", entry.at, step=step.name, event_type=_event_type(delivery), duration=duration
        )
        if entry.stop is None:
            for output in (*entry.outputs, *(entry.fan_out.outputs if entry.fan_out else ())):
                record("event_received", entry.at, step=step.name, event_type=output.event.event_type)

    async def _interrupted_or_failed(
        self, delivery: Delivery, step: StepDefinition, error: BaseException, began: float | None
    ) -> None:
        """An attempt did not get to its commit: it was cancelled from outside of it, or it failed."""
        d = self._d
        if _contains(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            raise error
        if trio.current_effective_deadline() == float("-inf"):
            # Cancelled by whoever ended or paused the run: the delivery stays undone. What the step raised while
            # it cleaned up is part of an attempt that never was.
            self.interrupted.add(step.name)
            if delivery.id in d.state.deliveries:
                d.ready.push_first(delivery)
            if isinstance(error, trio.Cancelled):
                raise error
            await trio.lowlevel.checkpoint()
        if not d.over:
            await self._failed(delivery, step, error, began)

    async def _failed(
        self, delivery: Delivery, step: StepDefinition, error: BaseException, began: float | None
    ) -> None:
        d = self._d
        await d.standstill.opened()
        if d.over:
            return
        moment = d.moment()
        error_type, text = type(error).__name__, str(error)
        if _contains(error, (trio.Cancelled,)):
            text = "it raised a Cancelled that no cancel scope around it asked for: one leaked out of another task"
        duration = moment.at - began if began is not None else None
        d.recorder.record(
            "step_failed",
            moment.at,
            step=step.name,
            event_type=_event_type(delivery),
            duration=duration,
            error=f"{error_type}: {text}",
        )
        since = delivery.since if delivery.since is not None else (began if began is not None else moment.at)
        delay = None
        if step.retry is not None and isinstance(error, Exception) and not isinstance(error, _NEVER_RETRIED):
            delay = step.retry.next_delay(
                error, attempt=delivery.attempt, elapsed=moment.at - since, random=random.random()
            )
        if delay is not None:
            d.recorder.record("step_retried", moment.at, step=step.name, event_type=_event_type(delivery))
            await self._settle(d.machine.retried(delivery, moment.at + delay, since, moment))
            d.set_timer(moment.at + delay, delivery.id)
            return
        event = delivery.event if isinstance(delivery.event, Event) else list(delivery.event)
        failure = StepFailedEvent(step.name, event, error_type, text, delivery.attempt)
        entry = d.machine.handled(delivery, failure, d.encode, moment)
        if entry is not None:
            await self._settle(entry)
            d.absorb(entry)
            return
        kind = error_type if isinstance(error, (StepFailedError,)) else "StepFailedError"
        message = f"step {step.name!r} of run {d.state.run_id!r} failed"
        if delivery.attempt > 1:
            message += f" after {delivery.attempt} attempts"
        d.fail(
            StoredError(
                kind, f"{message}: {error_type}: {text}", step=step.name, attempts=delivery.attempt, error_type=error_type
            ),
            error,
        )

    async def _settle(self, entry: Entry) -> None:
        if self._d.journal is not None:
            self._d.journal.record(entry)
            await self._d.journal.written()


def _event_type(delivery: Delivery) -> str:
    event = delivery.event
    if isinstance(event, Event):
        return event.event_type
    return f"list[{event[0].event_type if event else ''}]"


def _nothing(_event: Event) -> None:
    """In a run without a store, no event is encoded."""


def _contains(error: BaseException, types: tuple[type[BaseException], ...]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(types)[0] is not None
    return isinstance(error, types)
