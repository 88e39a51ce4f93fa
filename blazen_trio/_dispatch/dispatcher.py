"""One run being driven: where it stands, and what wakes it. It is driven in periods, with rests between them.

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
from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._clock import wall_clock
from blazen_trio._dispatch.endings import Endings
from blazen_trio._dispatch.inputs import InputDesk
from blazen_trio._dispatch.mail import MailDesk
from blazen_trio._dispatch.periods import attend, has_to_attend
from blazen_trio._dispatch.ready import BoundedQueue
from blazen_trio._dispatch.rests import Rests
from blazen_trio._dispatch.standing import Standing
from blazen_trio._dispatch.timers import Timers
from blazen_trio._dispatch.turns import Turns
from blazen_trio._dispatch.worker import Workers
from blazen_trio._state.machine import Moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from blazen_trio._codec.codec import Codec
    from blazen_trio._dispatch.host import Host
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
    from blazen_trio._telemetry.hooks import RunListener

__all__ = ["Dispatcher"]


class Dispatcher(Standing):
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
        "_keys",
        "_mail",
        "_ready",
        "_signalled",
        "_turns",
        "broadcast",
        "clock",
        "codec",
        "definition",
        "elapsed",
        "encode",
        "host",
        "input_handler",
        "input_nursery",
        "journal",
        "machine",
        "make_context",
        "nursery",
        "period_began",
        "postbox",
        "recorder",
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
        super().__init__()
        definition = machine.definition
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
        self.host: Host | None = None
        """Who drives this run among many."""

        # What is to be done, and by whom.
        self._ready: deque[Delivery] | BoundedQueue | None = None
        self.clock = wall_clock()
        self.timers = Timers(self.clock)
        self.workers = Workers(self)
        self.input_handler = input_handler
        self.input_nursery: trio.Nursery | None = None
        """Where the handler's calls run."""
        self.scope: trio.CancelScope | None = None
        """The period's, while there is one."""
        self.nursery: trio.Nursery | None = None
        self.elapsed = self.state.elapsed
        """Seconds that count against the run's timeout, without the present period."""
        self.period_began: float | None = None
        self.runs_ahead = journal is not None and journal.durability == "async"
        """Whether what is decided may be ahead of the disk."""
        self.timed = journal is not None or recorder.detailed
        """Whether anybody asks for the time of a step's commit; otherwise it is that of `still`, and no clock is read."""
        self.still = Moment(self.state.updated, self.state.elapsed)

        # What most runs never need.
        self._signalled: trio.Event | None = None
        self._turns: Turns | None = None
        self._mail: MailDesk | None = None
        self._keys: set[str] | None = None

    @property
    def ready(self) -> deque[Delivery] | BoundedQueue:
        """The deliveries that are to be run, in order."""
        if self._ready is None:
            bounds, most = self.machine.routing.bounds, self.definition.max_concurrency
            self._ready = BoundedQueue(bounds, most) if bounds or most is not None else deque()
        return self._ready

    @property
    def anything_ready(self) -> bool:
        """Whether a delivery could be run now."""
        return bool(self._ready)

    def slim(self) -> None:
        """It rests, maybe for long, maybe with many like it: an empty queue, and what was a full dictionary, hold on to what they
        have grown to.
        """
        if not self.state.deliveries:
            self._ready = None
            self.state.deliveries.clear()

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

    def look_begins(self) -> None:
        """Somebody looks for mail: what was taken before is not seen again."""
        if self._mail is not None:
            self._mail.look_begins()

    @property
    def inputs(self) -> InputDesk:
        """Hands its questions out, and takes the answers."""
        return InputDesk(self)

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
        elapsed = self.elapsed
        if self.period_began is not None:
            elapsed += current - self.period_began
        return Moment(clock.at(current), elapsed)

    def restart(self, elapsed: float) -> None:
        """Count the run's time from here on."""
        self.elapsed = elapsed
        self.still = Moment(self.clock.now(), elapsed)

    # Signals

    def wake(self) -> None:
        """Let what has become possible be done: what is ready by workers, what is due or over by the dispatcher."""
        if self.nursery is None or self.attending:
            self._signal()
        elif self.workers.count:
            self.workers.recruit()
            if has_to_attend(self):
                self.attending = True
                self.nursery.start_soon(attend, self)
        # Otherwise the last worker has ended, which ends the period; after that all is looked at anyway.

    def _signal(self) -> None:
        """Signals are many, looks are few: one that waits is enough."""
        if self._signalled is None:
            self._signalled = trio.Event()
        self._signalled.set()

    async def signalled(self) -> None:
        """Wait for a signal, which is taken by that."""
        if self._signalled is None:
            self._signalled = trio.Event()
        await self._signalled.wait()
        self._signalled = None

    def absorb(self, entry: Entry) -> None:
        """Act on what a transition brought in, once it is as durable as it has to be."""
        if entry.ready:
            (self._ready or self.ready).extend(entry.ready)
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

    def take_up(self) -> None:
        """Take up what is undone. Before anybody has the run, since what comes in from then on brings itself in."""
        for delivery in self.state.deliveries.values():
            if delivery.due is not None and delivery.due > self.clock.now():
                self.set_timer(delivery.due, delivery.id)
            else:
                self.ready.extend((delivery,))
        for delayed in self.state.delayed.values():
            self.set_timer(delayed.due, delayed.id)

    def listened_to(self, listener: RunListener) -> None:
        """Tell of what happens, until this process drives the run no more."""
        self.recorder.listener = listener
        self.workers.listened_to(listener)
        listener.driven_in(self.task_context)

    def tell_end(self, listener: RunListener) -> None:
        """This process drives the run no more."""
        if self.failure is not None:
            listener.lost(self.failure)
        else:
            listener.ended(self.state)

    def dissolve(self) -> None:
        """No task drives this any more: drop what refers back to it, so that it is freed with its last user and not by the
        garbage collector.
        """
        self.give_slot()
        self._mail = None
        del self.workers
        if self.journal is not None:
            self.journal.on_failure = None

    def give_slot(self) -> None:
        """No step is about to run: let another run be at work."""
        if self.has_slot and self.host is not None:
            self.has_slot = False
            self.host.slots.release()

    @property
    def can_rest(self) -> bool:
        """Whether nothing is lost with this dispatcher while the run waits: nobody watches, nothing is on its way to the disk or was
        just taken from there, and no input handler is at work.
        """
        return (
            not self.pins
            and self.journal is not None
            and self.journal.settled
            and not self.runs_ahead
            and self.input_handler is None
            and not self.broadcast.observed
            and (self._mail is None or self._mail.at_rest)
        )

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
