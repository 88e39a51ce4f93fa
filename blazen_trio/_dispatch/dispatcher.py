"""Drives one run: periods in which steps run, and rests between them.

A *period* is a nursery with a cancel scope. In it the dispatcher (the task that opened it) and workers run: a worker
runs a delivery, commits it, and takes the next ready one itself, so a chain of steps costs no task and no channel
per step. A period ends when the last worker has; only then the run is finished, parked, paused or stalled. The run's
timeout is the period's deadline, so it counts only while something is runnable or in flight: the clock stands still in
a *rest* because there is none.

Whoever stops a period early (a stop event, a failure, a pause out of patience, a cancel) leaves word of why in a field
here and cancels the scope; the reason is acted on once all steps have ended, by the dispatcher alone. So the steps
of a run never outlive what ended it.
"""

from __future__ import annotations

import contextvars
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import trio

from blazen_trio._dispatch.endings import Endings
from blazen_trio._dispatch.inputs import InputDesk
from blazen_trio._dispatch.mail import MailDesk
from blazen_trio._dispatch.ready import BoundedQueue
from blazen_trio._dispatch.rests import Rests
from blazen_trio._dispatch.timers import Timers
from blazen_trio._dispatch.turns import Turns
from blazen_trio._dispatch.worker import Workers
from blazen_trio._state.machine import Moment
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.clock import wall_clock
from blazen_trio.errors import StaleRunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blazen_trio._codec.codec import Codec
    from blazen_trio._dispatch.inputs import InputHandler
    from blazen_trio._dispatch.journal import Journal
    from blazen_trio._dispatch.postbox import Postbox
    from blazen_trio._dispatch.recorder import Recorder
    from blazen_trio._dispatch.standstill import Standstill
    from blazen_trio._dispatch.streams import Broadcast
    from blazen_trio._dispatch.transaction import Transaction
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.machine import Machine
    from blazen_trio._state.model import Delivery

__all__ = ["Dispatcher"]

_FLUSH_SECONDS: Final = 5.0
"""How long a run that is cancelled from outside may take to write what is committed and give its lease back."""

_AFTER_FAILURE: Final = 1.0
"""Seconds for which no worker takes a run that the engine could not go on with."""

_DUE_PER_TURN: Final = 32
"""Due events routed between two checkpoints."""

_open_signals = trio.open_memory_channel[None]


class Dispatcher:
    """One run being driven by this process.

    Args:
        machine: Decides the run's transitions.
        codec: Encodes events and values.
        journal: Takes the entries to the store; `None`: the run lives in memory only.
        broadcast: The run's observers.
        recorder: The run's history.
        standstill: Closed while the run's state is being written down.
        input_handler: Answers questions; `None`: they wait for `respond`.
        make_context: Makes what a step gets as its context.
    """

    __slots__ = (
        "_attending",
        "_elapsed",
        "_keys",
        "_mail",
        "_period_began",
        "_signals",
        "_turns",
        "abandoned",
        "broadcast",
        "cancel_reason",
        "cause",
        "changed",
        "clock",
        "closing",
        "codec",
        "definition",
        "detached",
        "dismissed",
        "draining",
        "encode",
        "failure",
        "held",
        "inputs",
        "journal",
        "leaving",
        "machine",
        "make_context",
        "nursery",
        "over",
        "parked",
        "paused",
        "postbox",
        "ready",
        "recorder",
        "rest_began",
        "runs_ahead",
        "scope",
        "standstill",
        "state",
        "still",
        "task_context",
        "timed",
        "timers",
        "workers",
    )

    def __init__(
        self,
        machine: Machine,
        codec: Codec,
        journal: Journal | None,
        broadcast: Broadcast,
        recorder: Recorder,
        standstill: Standstill,
        *,
        input_handler: InputHandler | None,
        make_context: Callable[[Dispatcher, Transaction], Any],
    ) -> None:
        definition, routing = machine.definition, machine.routing
        self.machine = machine
        self.state = machine.state
        self.definition = definition
        self.codec = codec
        self.journal = journal
        if journal is not None:
            journal.on_failure = self.crash
        self.encode = codec.encode_event if journal is not None else None
        self.broadcast = broadcast
        self.recorder = recorder
        self.standstill = standstill
        self.make_context = make_context
        self.task_context = contextvars.copy_context()
        self.postbox: Postbox | None = None
        """Where to look for mail, if nobody else does."""

        # Why a period ends early, and where the run stands.
        self.over = False
        """The run has ended, in memory: nothing of it commits any more."""
        self.held = False
        """No new step may start: the run pauses, or is paused."""
        self.cancel_reason: tuple[str | None] | None = None
        self.failure: BaseException | None = None
        """The engine's own: the store failed, or the run was lost to another process."""
        self.cause: BaseException | None = None
        """The exception that failed the run, as long as this process lives."""
        self.leaving = False
        """Nobody is there any more to answer or unpause: don't wait for it."""
        self.abandoned = False
        """The block that held the run has ended: somebody else, later, may send what it waits for."""
        self.dismissed = False
        """The run is to leave this process as soon as it rests, whatever it waits for; somebody takes it up when that comes."""
        self.draining = False
        """No new step may start, and once those in flight have ended the run leaves this process; somebody else goes on with it."""
        self.closing = False
        """This process is writing down what is committed and giving the run back: nothing may be decided any more."""
        self.rest_began = 0.0
        """When the present rest began, on Trio's clock."""
        self.parked = False
        """The run waits for something from outside or for a time, and that is on disk."""
        self.paused = False
        """The run is paused, and that is on disk."""
        self.detached = False
        """This process drives the run no more."""
        self.changed = trio.Event()
        """Set, and replaced, whenever the status or what it rests on changes."""

        # What is to be done, and by whom.
        bounded = routing.bounds or definition.max_concurrency is not None
        self.ready: deque[Delivery] | BoundedQueue = (
            BoundedQueue(routing.bounds, definition.max_concurrency) if bounded else deque()
        )
        self.clock = wall_clock()
        self.timers = Timers(self.clock)
        self.workers = Workers(self)
        self.inputs = InputDesk(self, input_handler)
        self.scope: trio.CancelScope | None = None
        """The period's, while there is one."""
        self.nursery: trio.Nursery | None = None
        self._attending = False
        self._elapsed = self.state.elapsed
        self._period_began: float | None = None
        self.runs_ahead = journal is not None and journal.durability == "async"
        """Whether what is decided may be ahead of the disk."""
        self.timed = journal is not None or recorder.detailed
        """Whether anybody asks for the time of a step's commit; otherwise it is that of `still`, and no clock is read."""
        self.still = Moment(self.state.updated, self.state.elapsed)

        # What most runs never need.
        self._signals: tuple[trio.MemorySendChannel[None], trio.MemoryReceiveChannel[None]] | None = None
        self._turns: Turns | None = None
        self._mail: MailDesk | None = None
        self._keys: set[str] | None = None

    @property
    def turns(self) -> Turns:
        """The queue of its steps' re-runs."""
        if self._turns is None:
            self._turns = Turns()
        return self._turns

    @property
    def mail(self) -> MailDesk:
        """Takes what others send."""
        if self._mail is None:
            self._mail = MailDesk(self)
        return self._mail

    @property
    def endings(self) -> Endings:
        """How it ends."""
        return Endings(self)

    @property
    def rests(self) -> Rests:
        """What the run does while no step can run."""
        return Rests(self)

    # Time

    def moment(self) -> Moment:
        """Now."""
        clock = self.clock
        current = clock.trio_time()
        elapsed = self._elapsed
        if self._period_began is not None:
            elapsed += current - self._period_began
        return Moment(clock.at(current), elapsed)

    def restart(self, elapsed: float) -> None:
        """Count the run's time from here on."""
        self._elapsed = elapsed
        self.still = Moment(self.clock.now(), elapsed)

    # Signals

    def wake(self) -> None:
        """Let what has become possible be done: what is ready by workers, what is due or over by the dispatcher."""
        if self.nursery is None or self._attending:
            self._signal()
        elif self.workers.count:
            self.workers.recruit()
            if self._has_to_attend():
                self._attending = True
                self.nursery.start_soon(self._attend)
        # Otherwise the last worker has ended, which ends the period; after that all is looked at anyway.

    def _signal(self) -> None:
        """Signals are many, looks are few: one waiting is enough."""
        send, receive = self._signals or self._open_signals()
        if not receive.statistics().current_buffer_used:
            send.send_nowait(None)

    def _open_signals(self) -> tuple[trio.MemorySendChannel[None], trio.MemoryReceiveChannel[None]]:
        self._signals = _open_signals(1)
        return self._signals

    async def signalled(self) -> None:
        """Wait for a signal."""
        await (self._signals or self._open_signals())[1].receive()

    def notify(self) -> None:
        """Let those who wait for the run look again."""
        self.changed.set()
        self.changed = trio.Event()

    def absorb(self, entry: Entry) -> None:
        """Act on what a transition brought in, once it is as durable as it has to be."""
        if entry.ready:
            self.ready.extend(entry.ready)
        if entry.timers:
            for delayed in entry.timers:
                self.set_timer(delayed.due, delayed.id)
        if entry.asked:
            self.inputs.ask(entry.asked)

    def set_timer(self, due: float, id_: int) -> None:
        """Look at this item again when it is due (UTC)."""
        self.timers.add(due, id_)
        self.wake()

    def stop_period(self, reason: str) -> None:
        """Cancel the steps in flight, if there are any; and let the dispatcher look."""
        if self.scope is not None:
            self.scope.cancel(reason=reason)
        self.wake()

    def cancel(self, reason: str | None) -> None:
        """Cancel the run: its steps are cancelled and awaited, and what is undone stays so. Nothing happens to one that is
        being cancelled, or has ended.
        """
        if not (self.over or self.detached or self.cancel_reason is not None):
            self.cancel_reason = (reason,)
            self.parked = self.paused = False
            self.stop_period("the run was cancelled")

    def dismiss(self) -> None:
        """Leave this process once the run rests."""
        self.dismissed = True
        self.wake()

    def drain(self) -> None:
        """Leave this process once the steps in flight have ended."""
        self.draining = True
        self.wake()

    def crash(self, failure: BaseException) -> None:
        """The engine can't go on with the run."""
        if self.failure is None:
            self.failure = failure
        self.stop_period("the engine failed")

    async def post_with_key(self, event: Any, key: str) -> tuple[bool, int | None]:
        """Reserve a sender's key for an event. Returns whether it was free, and the inbox row that holds the event."""
        if self.journal is None:
            self._keys = self._keys or set()
            if key in self._keys:
                return False, None
            self._keys.add(key)
            return True, None
        return await self.mail.post_with_key(event, key)

    # Driving

    def take_up(self) -> None:
        """Take up what is undone. Before anybody has the run, since what comes in from then on brings itself in."""
        for delivery in self.state.deliveries.values():
            if delivery.due is not None and delivery.due > self.clock.now():
                self.set_timer(delivery.due, delivery.id)
            else:
                self.ready.extend((delivery,))
        for delayed in self.state.delayed.values():
            self.set_timer(delayed.due, delayed.id)

    async def drive(self) -> None:
        """Drive the run until it has ended, or rests and nobody is left to wait for (`leaving`).

        Never raises on behalf of the run: `failure` and the run's state tell what happened. What comes out is a
        cancellation from outside, a KeyboardInterrupt or SystemExit out of a step, or a bug.
        """
        if self.postbox is not None:
            self.postbox.join(self)
        try:
            if self.journal is not None and self.journal.durability == "async":
                async with trio.open_nursery() as services:
                    services.start_soon(self._write_behind, self.journal)
                    try:
                        await self._drive_with_inputs()
                    finally:
                        self.journal.stop_writing_behind()
            elif self.inputs.has_handler:
                await self._drive_with_inputs()
            else:
                await self._drive()
        finally:
            await self._leave()  # noqa: ASYNC102  # shields itself, for a bounded time

    async def _drive_with_inputs(self) -> None:
        async with trio.open_nursery() as nursery:
            self.inputs.open(nursery)
            await self._drive()
            nursery.cancel_scope.cancel()

    async def _write_behind(self, journal: Journal) -> None:
        try:
            await journal.write_behind()
        except Exception as failure:  # noqa: BLE001  # kept, and raised to whoever asks for the run
            self.crash(failure)

    async def _drive(self) -> None:
        try:
            self.inputs.ask(self.state.questions.values())
            while True:
                # Whatever is decided below is decided without a checkpoint in between.
                await self.may_decide()
                if self.over or self.failure is not None:
                    break
                if self.cancel_reason is not None:
                    self.endings.cancelled(self.cancel_reason[0])
                elif self.held:
                    if not await self.rests.pause():
                        return
                elif self.draining:
                    return
                elif len(self.ready):
                    await self._period()
                elif not await self.rests.rest():
                    return
            if self.failure is None and self.journal is not None:
                await self.journal.settle()
        except Exception as failure:  # noqa: BLE001  # kept, and raised to whoever asks for the run
            self.crash(failure)

    async def _leave(self) -> None:
        """Write what is committed and give the run back, also when cancelled; then tell everybody."""
        self.closing = True
        if self.postbox is not None:
            self.postbox.leave(self)
        if self.journal is not None and not (self.over and self.failure is None and self.journal.settled):
            with trio.CancelScope(shield=True) as shield:
                shield.deadline = trio.current_time() + _FLUSH_SECONDS
                try:
                    if self.failure is None:
                        await self.journal.settle()
                    # What was lost to another driver is not ours to give back, also where that one is in this process.
                    if not isinstance(self.failure, StaleRunError) and (not self.over or self.failure is not None):
                        # Where the engine failed, what is on disk may wait for something else than what is in memory.
                        waits = self.failure is None and self.state.status is RunStatus.WAITING
                        wake = self.timers.due if waits else None
                        # What failed here may fail again at once; others, or a little later we, may do better.
                        hold = None if self.failure is None else self.clock.now() + _AFTER_FAILURE
                        await self.journal.store.release(self.state.run_id, wake=wake, hold=hold)
                except Exception as failure:  # noqa: BLE001
                    self.failure = self.failure or failure
        stop = self.state.stop if self.failure is None else None
        self.detached = True
        self.broadcast.end(stop)  # type: ignore[arg-type]
        self.notify()

    # Periods

    async def _period(self) -> None:
        """Run steps until none is ready or in flight."""
        began = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                self.nursery, self.scope = nursery, nursery.cancel_scope
                if self.state.timeout is not None:
                    nursery.cancel_scope.deadline = began + max(0.0, self.state.timeout - self._elapsed)
                self._period_began = began
                self.workers.start()
                if self._has_to_attend():
                    self._attending = True
                    await self._attend()
        finally:
            self.scope = self.nursery = None
        self._elapsed += trio.current_time() - began
        self._period_began = None
        await self.may_decide()
        if not self.workers.halted and nursery.cancel_scope.cancelled_caught:
            self.endings.timed_out()

    def _has_to_attend(self) -> bool:
        """Whether there is more to a period than its workers: something may become due, or mail has to be looked for."""
        return bool(self.timers) or (self.postbox is not None and self.postbox.next_look(self) < float("inf"))

    async def _attend(self) -> None:
        """While workers are at it: start more for what becomes ready, and route what becomes due."""
        try:
            while self.workers.count or (len(self.ready) and not self.workers.halted):
                await self.signal_or_timer()
                await self.take_due()
                self.workers.recruit()
        except Exception as failure:  # noqa: BLE001  # kept, and raised to whoever asks for the run
            self.crash(failure)
        finally:
            self._attending = False

    async def signal_or_timer(self) -> None:
        # What becomes due while no step may start is taken later: its time is past, so waiting for it would spin.
        due = self.timers.next if not self.workers.halted else float("inf")
        if self.postbox is not None and (look := self.postbox.next_look(self)) < due:
            with trio.move_on_at(look) as scope:
                await self.signalled()
            if scope.cancelled_caught and self.journal is not None:
                await self.postbox.look(self.journal.store)
        elif due < float("inf"):
            with trio.move_on_at(due):
                await self.signalled()
        else:
            await self.signalled()

    async def take_due(self) -> None:
        """Route the delayed events that are due, and let due retries run."""
        now = trio.current_time()
        taken = 0
        while self.timers.next <= now:
            taken += 1
            if taken % _DUE_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            await self.may_decide()
            if self.workers.halted:
                return
            id_ = self.timers.pop()
            if (delayed := self.state.delayed.get(id_)) is not None:
                await self.settle(self.machine.due(delayed, self.moment()), "event_received", delayed.event.event_type)
            elif (delivery := self.state.deliveries.get(id_)) is not None:
                self.ready.extend((delivery,))

    async def may_decide(self) -> None:
        """Wait until a transition may happen: the state is not being written down, nor too far ahead of the disk. Not
        cancellable, since what waits here has happened already. The caller must make its transition without a
        checkpoint in between.
        """
        await self.standstill.opened()
        while self.runs_ahead and self.journal is not None and self.journal.full:
            with trio.CancelScope(shield=True):
                await self.journal.room()
            await self.standstill.opened()

    async def settle(self, entry: Entry, kind: str, event_type: str, taken: int | None = None) -> None:
        """See a transition that no step made to where its durability wants it, then act on it."""
        self.recorder.record(kind, entry.at, event_type=event_type)
        if entry.stop is not None:
            self.endings.record_stop(entry)
            return
        if self.journal is not None:
            await self.journal.write(entry, taken)
            if entry.asked:
                await self.journal.settle()
        self.absorb(entry)
        self.parked = False
        self.wake()
