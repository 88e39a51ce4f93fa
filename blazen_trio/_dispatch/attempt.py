"""One attempt at a delivery: run its step, then commit what came of it, or act on its failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from blazen_trio._dispatch.failures import Failures, described, is_failure
from blazen_trio._dispatch.transaction import Transaction
from blazen_trio._state.outputs import check_returned, unwrap
from blazen_trio.errors import StepTimeoutError

if TYPE_CHECKING:
    from blazen_trio._definitions.events import Event
    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import Delivery, Payload

__all__ = ["NONE", "Attempts"]

NONE: Final[frozenset[str]] = frozenset()

_ENCODE_PER_TURN: Final = 1000
"""Members of a fan-out encoded between two checkpoints: a few milliseconds' worth."""


class Attempts:
    """Runs the deliveries of one run, for whichever worker asks."""

    __slots__ = ("_d", "_limiter", "interrupted")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._d = dispatcher
        self._limiter: trio.CapacityLimiter | None = None
        self.interrupted = NONE
        """The steps whose attempts were cancelled."""

    async def in_turn(self, delivery: Delivery, step: StepDefinition) -> None:
        """Run a step that gets a context, and commit it; again at once if its commit comes too late and it has the turn."""
        turns = self._d.turns
        again: bool | None = True
        try:
            while again:
                transaction = Transaction(delivery, self._d.state, self._d.codec)
                turns.begins(transaction)
                again = await self.once(delivery, step, transaction)
        finally:
            if again is not False:
                following = turns.ended(delivery, done=delivery.id not in self._d.state.deliveries)
                if following is not None:
                    self._d.ready.appendleft(following)
                    self._d.wake()

    async def once(
        self, delivery: Delivery, step: StepDefinition, transaction: Transaction | None = None
    ) -> bool | None:
        """Run a step once, and commit it. One without a context has read nothing that others could change.

        Returns:
            `None`: the attempt is over. `True`: to be run again now. `False`: to be run again when it has its turn.
        """
        d = self._d
        began = None
        if step.retry is not None or d.recorder.detailed:
            began = d.clock.now()
            if d.recorder.detailed:
                d.recorder.record("step_dispatched", began, step=step.name, event_type=described(delivery))
        event: Any = list(delivery.event) if isinstance(delivery.event, tuple) else delivery.event
        arguments = (event,) if transaction is None else (event, d.make_context(d, transaction))
        try:
            if step.is_async and step.timeout is None:
                result = await step.call(*arguments)
            else:
                result = await self._bounded(step, arguments)
            if transaction is not None:
                transaction.closed = True
            encode = d.encode
            if encode is not None and type(result) is list and len(result) > _ENCODE_PER_TURN:
                encode = await self._encode_slowly(step, result)
            if transaction is not None or d.runs_ahead or d.standstill.gate is not None:
                while self._has_to_wait(transaction) and not d.over:
                    await self._wait(transaction)
            if d.over:
                return None
            # From here to the record of it in the journal there is no checkpoint.
            if transaction is not None and transaction.conflict() is not None:
                return d.turns.ask(delivery)
            entry = self._decide(delivery, step, transaction, result, encode)
            if d.recorder.detailed:
                self._record(entry, step, delivery, entry.at - began if began is not None else None)
            if entry.stop is not None:
                d.endings.record_stop(entry, by_worker=True)
                return None
            if d.journal is not None:
                d.workers.waiting += 1
                await d.journal.write(entry)
                d.workers.waiting -= 1
                if d.journal.durability == "sync":
                    d.workers.gave_way()
                if entry.asked:
                    await d.journal.settle()
            d.absorb(entry)
        except BaseException as error:  # noqa: ASYNC103, BLE001  # raised again there, unless the step alone has failed
            if transaction is not None:
                transaction.closed = True
            if d.journal is not None and d.journal.failure is not None and isinstance(error, Exception):
                raise d.journal.failure from None  # noqa: ASYNC104  # nothing of the run goes on
            await self._interrupted_or_failed(delivery, step, error, began)  # noqa: ASYNC102  # raises where cancelled
        return None

    async def _bounded(self, step: StepDefinition, arguments: tuple[Any, ...]) -> Any:
        """Run a step with a timeout, or in a thread."""
        limit = float("inf") if step.timeout is None else step.timeout
        with trio.move_on_after(limit) as scope:
            if step.is_async:
                result = await step.call(*arguments)
            else:
                if self._limiter is None:
                    # Its own, so that steps that block don't starve the store or the program's other threads.
                    self._limiter = trio.CapacityLimiter(40)
                result = await trio.to_thread.run_sync(step.call, *arguments, limiter=self._limiter)
            if not scope.cancel_called:
                return result
            # It comes too late: a thread can't be interrupted, and a step may shield itself.
        raise StepTimeoutError(
            f"step {step.name!r} took longer than its timeout of {limit:g} s",
            step_name=step.name,
            error_type="StepTimeoutError",
        )

    # The end of an attempt

    def _has_to_wait(self, transaction: Transaction | None) -> bool:
        """Whether nothing may be decided yet: the state is being written down, the run is too far ahead of the disk, or
        the commit would change what the running turn holder has read.
        """
        d = self._d
        return (
            d.standstill.gate is not None
            or (d.runs_ahead and d.journal is not None and d.journal.full)
            or (transaction is not None and d.turns.blocks(transaction))
        )

    async def _wait(self, transaction: Transaction | None) -> None:
        d = self._d
        if transaction is not None and d.turns.blocks(transaction):
            await d.turns.moved()
        d.workers.waiting += 1
        try:
            await d.standstill.opened()
            if d.journal is not None:
                await d.journal.room()
        finally:
            d.workers.waiting -= 1

    def _decide(
        self, delivery: Delivery, step: StepDefinition, transaction: Transaction | None, result: Any, encode: Any
    ) -> Entry:
        """What the attempt comes to: checked, encoded, and applied to the run's state."""
        d = self._d
        machine = d.machine
        returned, listed = check_returned(step, result)
        members = None if listed is None else machine.outputs(listed, encode, d.clock.now)
        moment = d.moment() if d.timed else d.still
        if transaction is None:
            outputs = machine.outputs(returned, encode, d.clock.now) if returned else ()
            return machine.committed(delivery, step, outputs, members, moment)
        outputs = machine.outputs([*transaction.sent, *returned], encode, d.clock.now)
        cells = transaction.cells()
        collected = transaction.collected(encode or _nothing)
        return machine.committed(delivery, step, outputs, members, moment, cells, collected)

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
        record("step_completed", entry.at, step=step.name, event_type=described(delivery), duration=duration)
        if entry.stop is None:
            for output in (*entry.outputs, *(entry.fan_out.outputs if entry.fan_out else ())):
                record("event_received", entry.at, step=step.name, event_type=output.event.event_type)

    async def _interrupted_or_failed(
        self, delivery: Delivery, step: StepDefinition, error: BaseException, began: float | None
    ) -> None:
        """An attempt did not get to its commit: it was cancelled from outside of it, or it failed."""
        d = self._d
        if not is_failure(error):
            raise error
        if trio.current_effective_deadline() == float("-inf"):
            # Cancelled by whoever ended or paused the run: the delivery stays undone. What the step raised while
            # it cleaned up is part of an attempt that never was.
            self.interrupted |= {step.name}
            if delivery.id in d.state.deliveries:
                d.ready.appendleft(delivery)
            if isinstance(error, trio.Cancelled):
                raise error
            await trio.lowlevel.checkpoint()
        if not d.over:
            await Failures(d).failed(delivery, step, error, began)


def _nothing(_event: Event) -> None:
    """In a run without a store, no event is encoded."""
