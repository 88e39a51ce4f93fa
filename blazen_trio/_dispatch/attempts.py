"""One attempt at a delivery: run its step, then commit the outcome or handle the failure."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from blazen_trio._concurrency import in_slices
from blazen_trio._definitions.events import Event, StepFailedEvent
from blazen_trio._dispatch.calls import (
    call,
    is_failure,
    next_delay,
    run_bounded,
    stored_error,
    text_of_failure,
)
from blazen_trio._dispatch.transaction import Transaction
from blazen_trio._dispatch.transitions import WIDE, absorb_all, complete, completed, fail
from blazen_trio._dispatch.turns import Rerun
from blazen_trio._state.entry import drained
from blazen_trio._state.routing import check_returned
from blazen_trio.errors import (
    SerializationError,
)

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Generator, Iterable, Sequence

    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._dispatch.journal import Journal
    from blazen_trio._state.entry import Entry, Output
    from blazen_trio._state.model import Delivery, Payload

__all__ = ["Attempt", "described"]

_EVENTS: Final = 64
"""Events of a join that are rebuilt between two yields."""


class Attempt:
    """One attempt of one step at one delivery.

    Args:
        core: The run.
        delivery: The delivery.
        step: The step.
        transaction: The data behind the step's context. `None` if the step takes no context: it
            has then read nothing that another step could change.
    """

    __slots__ = ("_began", "_core", "_delivery", "_step", "_transaction")

    log_context: contextvars.Context | None = None
    """The context variables to log in; `None` for those of the run."""

    def __init__(
        self,
        core: RunCore,
        delivery: Delivery,
        step: StepDefinition,
        transaction: Transaction | None = None,
    ) -> None:
        self._core = core
        self._delivery = delivery
        self._step = step
        self._transaction = transaction
        self._began: float | None = None

    @classmethod
    async def in_turn(cls, core: RunCore, delivery: Delivery, step: StepDefinition) -> None:
        """Run a step that takes a context, and re-run it while its commit conflicts.

        A re-run starts at once only if it is the step's turn (`Turns`). Otherwise the delivery
        waits in the queue of re-runs, and the holder that ends makes it ready again.
        """
        turns = core.turns
        rerun: Rerun | None = Rerun.NOW
        try:
            while rerun is Rerun.NOW:
                transaction = Transaction(delivery, core.state, core.codec)
                turns.begins(transaction)
                rerun = await cls(core, delivery, step, transaction).run()
        finally:
            # A queued delivery does not hold the turn. `NOW` here: the attempt raised.
            if rerun is not Rerun.QUEUED:
                following = turns.ended(delivery, done=delivery.id not in core.state.deliveries)
                if following is not None:
                    core.ready.appendleft(following)
                    core.wake()

    async def run(self) -> Rerun | None:
        """Run the step once, and commit it.

        A crash before the commit is on disk loses the attempt and nothing else: the delivery is
        still pending there, and the next driver runs the step again. A crash after it loses
        nothing: the outputs are in the same transaction, and pending.

        Returns:
            Whether it has to be re-run; `None`: it is over.
        """
        core, delivery, step = self._core, self._delivery, self._step
        transaction = self._transaction
        if step.retry is not None or core.recorder.detailed:
            self._tell_begin()
        try:
            event: Any = delivery.event
            if delivery.payload is not None or transaction is not None or step.retry is not None:
                event = await self._event_as_stored()
            arguments: tuple[Any, ...] = (event,)
            if transaction is not None:
                arguments = (event, core.make_context(core, transaction))
            # The call raises a failure, a timeout or a cancellation of the step.
            if step.is_async and step.timeout is None:
                result = await call(step.call, arguments)
            else:
                result = await run_bounded(step, arguments)
            # The commit may have to wait. If the run ends during the wait, the attempt is dropped.
            if transaction is not None or core.runs_ahead or core.standstill.gate is not None:
                await self._wait_turn()
            if core.control.in_ended:
                return None
            # The decision. From here until the journal has the entry, nothing else is decided (no
            # checkpoint, or a closed gate): a key that changed after the conflict check would be a
            # lost update.
            if transaction is not None and transaction.conflict() is not None:
                return core.turns.ask(delivery)
            returned, listed = check_returned(step, result)
            members = None if listed is None else await self._members(listed)
            entry = self.decide(returned, members, core.encode)
            # Applied: until the journal has the entry, nothing may raise or be cancelled. The state
            # in memory would have a transition that is not in the journal.
            if entry.rest is not None:
                await complete(core, entry)
            if core.recorder.detailed:
                await self._record(entry)
            if entry.stop is not None:
                # This records the entry too; the dispatcher writes it once no step is in flight.
                completed(core, entry, by_step=True)
                return None
            if core.journal is not None:
                await self._write_commit(core.journal, entry)
            # The effects. Only now may steps start on the outputs: a crash could undo them before
            # (`async` durability accepts that, up to its bound).
            await absorb_all(core, entry) if len(entry.effects) > WIDE else core.absorb(
                entry.effects
            )
        except BaseException as error:  # noqa: ASYNC103, BLE001  # re-raised unless the step failed
            await self._interrupted_or_failed(error)  # noqa: ASYNC102  # raises where cancelled
        return None

    async def _write_commit(self, journal: Journal, entry: Entry) -> None:
        """Make the commit as durable as required.

        Memory is ahead of the disk until this returns. If it raises, the journal has failed for
        good: this process leaves the run, and nobody uses this memory again.
        """
        core = self._core
        core.waiting += 1
        await journal.write(entry)
        core.waiting -= 1
        if journal.durability == "sync":
            core.last_task = None  # other tasks have run during the commit
        if core.state.questions and core.asks(entry):
            # On disk before it is shown: its answer may come from another process.
            await journal.settle()

    async def _members(self, listed: list[Any]) -> list[Output]:  # noqa: ASYNC910  # if wide
        """Encode the members of a fan-out; those of a wide one in slices, behind a closed gate."""
        core = self._core
        if len(listed) <= WIDE:
            return core.machine.outputs(listed, core.encode, core.clock.now)
        making = core.machine.making(listed, core.encode, core.clock.now)
        return await core.standstill.hold(making)

    async def _event_as_stored(self) -> Any:  # noqa: ASYNC910  # mostly there is no wait
        """Return the delivery's event, or a join's events, as stored.

        An earlier attempt or another step may have mutated the object. Without this copy, the
        attempt would see an event different from the one it sees after a crash.
        """
        core, delivery = self._core, self._delivery
        event = delivery.event
        if isinstance(event, tuple):
            return await _joined(core, delivery)
        if core.codec.is_shared(event):
            return event
        if delivery.payload is None:
            # Without a store, events are passed on unencoded. If there may be another attempt,
            # keep what this one gets, provided that it can be encoded.
            with contextlib.suppress(SerializationError):
                delivery.payload = core.codec.encode_event(event)
        return core.codec.fresh_event(event, delivery.payload)

    def _tell_begin(self) -> None:
        """Note when the attempt started, for its retry and for the history."""
        core = self._core
        self._began = core.clock.now()
        if core.recorder.detailed:
            event_type = described(self._delivery)
            core.recorder.record(
                "step_dispatched",
                self._began,
                step=self._step.name,
                event_type=event_type,
                context=self.log_context,
            )

    async def _wait_turn(self) -> None:
        """Close the transaction, then wait until the attempt may commit."""
        if self._transaction is not None:
            self._transaction.closed = True
        while self._has_to_wait() and not self._core.control.in_ended:
            await self._wait()

    def _has_to_wait(self) -> bool:
        """Return whether the commit has to wait.

        It waits while a transition is applied in slices or the state is being encoded, while the
        run is too far ahead of the disk, and while it would change what the running turn holder
        has read.
        """
        core = self._core
        return (
            core.standstill.gate is not None
            or (core.runs_ahead and core.journal is not None and core.journal.full)
            or (self._transaction is not None and core.turns.blocks(self._transaction))
        )

    async def _wait(self) -> None:
        core = self._core
        if self._transaction is not None and core.turns.blocks(self._transaction):
            await core.turns.wait_moved()
        core.waiting += 1
        try:
            await core.standstill.opened()
            if core.journal is not None:
                await core.journal.wait_room()
        finally:
            core.waiting -= 1

    def decide(
        self,
        returned: Iterable[Any],
        members: list[Output] | None,
        encode: Callable[[Event], Payload] | None,
    ) -> Entry:
        """Check and encode the attempt's outcome, apply it to the state and return its entry.

        Args:
            returned: The events that the step returned outside a list.
            members: The members of the list that it returned; `None` if it returned no list.
            encode: Encodes an event; `None`: events are not stored.
        """
        core, step, transaction = self._core, self._step, self._transaction
        machine = core.machine
        moment = core.moment() if core.timed else core.still
        if transaction is None:
            outputs = machine.outputs(returned, encode, core.clock.now) if returned else ()
            return machine.committed(self._delivery, step, outputs, members, moment)
        outputs = machine.outputs([*transaction.sent, *returned], encode, core.clock.now)
        cells = transaction.cells()
        collected = transaction.collected(encode or _nothing)
        return machine.committed(self._delivery, step, outputs, members, moment, cells, collected)

    async def _record(self, entry: Entry) -> None:  # noqa: ASYNC910  # if wide
        record = partial(self._core.recorder.record, step=self._step.name, context=self.log_context)
        duration = entry.at - self._began if self._began is not None else None
        event_type = described(self._delivery)
        record("step_completed", entry.at, event_type=event_type, duration=duration)
        if entry.stop is None:
            outputs = (*entry.outputs, *(entry.fan_out.outputs if entry.fan_out else ()))
            recording = _recording(outputs, partial(record, "event_received", entry.at))
            if len(outputs) > WIDE:
                await self._core.standstill.hold(recording)
            else:
                drained(recording)

    # Attempts that did not reach their commit

    async def _interrupted_or_failed(self, error: BaseException) -> None:
        """Sort an exception: the store failed, the step was cancelled from outside, or it failed.

        Raises:
            BaseException: The error itself, if it is not the step's failure.
        """
        core = self._core
        if self._transaction is not None:
            self._transaction.closed = True
        store_failed = core.journal is not None and core.journal.failure is not None
        if store_failed and isinstance(error, Exception):
            # The store's failure outweighs the step's: this process can't continue the run.
            assert core.journal is not None
            assert core.journal.failure is not None
            core.crash(core.journal.failure)
            await trio.lowlevel.checkpoint()
            return
        if not is_failure(error):
            self._undo()
            raise error
        # A `Cancelled` counts as a failure here: it may have leaked from a scope of another task.
        # Only the scope around this task tells.
        if trio.current_effective_deadline() == float("-inf"):
            # The run was ended, paused or left: the delivery stays pending. An exception that the
            # step raised while it cleaned up is dropped, as everything of this attempt is.
            # Counting it as a failure would use up a retry, or fail a run that was only paused.
            core.interrupted |= {self._step.name}
            self._undo()
            if isinstance(error, trio.Cancelled):
                raise error
            await trio.lowlevel.checkpoint()  # raises Cancelled
        if not core.control.in_ended:
            await self._failed(error)

    def _undo(self) -> None:
        """Make the delivery ready again, as if the attempt had not been made."""
        if self._delivery.id in self._core.state.deliveries:
            self._core.ready.appendleft(self._delivery)

    async def _failed(self, error: BaseException) -> None:
        """Schedule a retry, hand the failure to its handler, or fail the run."""
        core, delivery, step = self._core, self._delivery, self._step
        await core.may_decide()
        if core.control.in_ended:
            return
        moment = core.moment()
        began = self._began
        since = (
            delivery.since
            if delivery.since is not None
            else (began if began is not None else moment.at)
        )
        delay, error = next_delay(delivery, step, error, moment.at - since)
        error_type, text = type(error).__name__, text_of_failure(error)
        core.recorder.record(
            "step_failed",
            moment.at,
            step=step.name,
            event_type=described(delivery),
            duration=moment.at - began if began is not None else None,
            error=f"{error_type}: {text}",
            cause=error,
            context=self.log_context,
        )
        if delay is not None:
            core.recorder.record(
                "step_retried",
                moment.at,
                step=step.name,
                event_type=described(delivery),
                context=self.log_context,
            )
            await self._write(core.machine.retried(delivery, moment.at + delay, since, moment))
            core.set_timer(moment.at + delay, delivery.id)
            return
        event: Any = delivery.event
        if isinstance(event, tuple):
            event = list(map(core.codec.fresh_event, event, delivery.payload))
        else:
            event = core.codec.fresh_event(event, delivery.payload)
        failure = StepFailedEvent(step.name, event, error_type, text, delivery.attempt)
        entry = None
        try:
            entry = core.machine.handled(delivery, failure, core.encode, moment)
        except SerializationError as untold:
            # The failure's event nests a few levels deeper than the event that it contains.
            text += f" (its handler was not run, because the failure can't be stored: {untold})"
        if entry is not None:
            await self._write(entry)
            await absorb_all(core, entry) if len(entry.effects) > WIDE else core.absorb(
                entry.effects
            )
            return
        text += core.machine.given_up(delivery)
        fail(core, stored_error(core.state.run_id, delivery, error, text), error)

    async def _write(self, entry: Entry) -> None:
        core = self._core
        if entry.rest is not None:
            await complete(core, entry)
        if core.journal is not None:
            await core.journal.write(entry)


async def _joined(core: RunCore, delivery: Delivery) -> list[Any]:
    """Return the events of a join's delivery as they were stored; many of them in slices."""
    events, payloads = delivery.event, delivery.payload
    assert isinstance(events, tuple)
    if not any(payloads):
        return list(events)
    if len(events) <= WIDE:
        return list(map(core.codec.fresh_event, events, payloads))
    return await in_slices(_refreshing(core, events, payloads))


def _refreshing(
    core: RunCore, events: Sequence[Event], payloads: Sequence[Payload]
) -> Generator[None, None, list[Any]]:
    found: list[Event] = []
    for start in range(0, len(events), _EVENTS):
        end = start + _EVENTS
        found += map(core.codec.fresh_event, events[start:end], payloads[start:end])
        yield
    return found


def _nothing(_event: Event) -> None:
    """Encode nothing: a run without a store needs no payloads."""


def _recording(
    outputs: Sequence[Output], record: Callable[..., None]
) -> Generator[None, None, None]:
    """Record the receipt of these outputs, `WIDE` of them per slice."""
    for number, output in enumerate(outputs, 1):
        record(event_type=output.event.event_type)
        if number % WIDE == 0:
            yield


def described(delivery: Delivery) -> str:
    """Return the type of a delivery's event, or `list[...]` with that of a join's events."""
    event = delivery.event
    if isinstance(event, Event):
        return event.event_type
    return f"list[{event[0].event_type if event else ''}]"
