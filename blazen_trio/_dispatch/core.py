"""The state that all parts of a driven run share, and the signals that wake its dispatcher.

The dispatcher is the task that decides (`driving`). Step tasks run the deliveries. The holder of
the `Run`, the inbox and the store act on the run from outside. All of these know the `RunCore`, and
not each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import trio

from blazen_trio._concurrency import Changes, Signal
from blazen_trio._dispatch.control import Control, Hold, Leave, Phase, Stop
from blazen_trio._dispatch.schedule import BoundedQueue, Timers, WorkClock
from blazen_trio._dispatch.turns import Turns
from blazen_trio._state.machine import Moment
from blazen_trio._state.model import Delayed, Delivery, Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blazen_trio._clock import Utc
    from blazen_trio._codec.codec import Codec
    from blazen_trio._dispatch.journal import Journal
    from blazen_trio._dispatch.observers import Broadcast, Recorder
    from blazen_trio._dispatch.schedule import Standstill
    from blazen_trio._dispatch.slots import Place, Slots
    from blazen_trio._dispatch.transaction import Transaction
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.machine import Machine
    from blazen_trio._state.model import Item
    from blazen_trio._stores.driver import Mail

__all__ = ["Host", "InputHandler", "RunCore"]

InputHandler = Callable[[Any], Awaitable[Any]]
"""Takes an `InputRequestEvent` and returns the response or an `InputResponseEvent`; `None` leaves
the question open."""


class Host(Protocol):
    """The owner of many runs in one process: the runtime, seen from a run."""

    slots: Slots

    def lets_rest(self, core: RunCore) -> bool:
        """Return whether a waiting run may end its task. The host then resumes it when it can."""

    def rests(self, core: RunCore) -> None:
        """Register the run as waiting without a task; its present task is about to end.

        The registration happens at once, not when the task has ended. Otherwise a caller that asks
        for the run, sends to it or closes the host in between would find a run that is neither
        driven nor waiting.
        """

    def holds(self, core: RunCore) -> bool:
        """Return whether the run's handle is referenced in this process."""


class RunCore:
    """One run being driven by this process.

    Args:
        machine: Decides the run's transitions.
        codec: Encodes events and values.
        journal: Takes the entries to the store; `None`: the run is in memory only.
        broadcast: The run's observers.
        recorder: The run's history.
        standstill: Closed while a transition is applied in slices or the state is being encoded.
        clock: Returns UTC.
        input_handler: Answers questions; `None`: they wait for `respond`.
        make_context: Makes the context that a step gets.
    """

    __slots__ = (
        "__weakref__",
        "_keys",
        "_place",
        "_ready",
        "_turns",
        "ask",
        "asking",
        "broadcast",
        "cause",
        "changes",
        "clock",
        "codec",
        "control",
        "crashes",
        "deciding",
        "definition",
        "encode",
        "foreign_mail",
        "has_slot",
        "host",
        "in_flight",
        "inbox",
        "input_handler",
        "interrupted",
        "journal",
        "last_task",
        "machine",
        "mail_done",
        "mail_holds",
        "mail_seen",
        "make_context",
        "nursery",
        "pins",
        "recorder",
        "rest_began",
        "runs_ahead",
        "signal",
        "standstill",
        "state",
        "still",
        "task_context",
        "timed",
        "timers",
        "waiting",
        "work",
    )

    def __init__(
        self,
        machine: Machine,
        codec: Codec,
        journal: Journal | None,
        broadcast: Broadcast,
        recorder: Recorder,
        standstill: Standstill,
        clock: Utc,
        *,
        input_handler: InputHandler | None,
        make_context: Callable[[RunCore, Transaction], Any],
    ) -> None:
        self.make_context = make_context
        self.machine = machine
        self.state = machine.state
        self.definition = machine.definition
        self.codec = codec
        self.journal = journal
        self.encode = codec.encode_event if journal is not None else None
        self.broadcast = broadcast
        self.recorder = recorder
        self.standstill = standstill
        self.clock = clock
        self.input_handler = input_handler
        self.task_context = recorder.context

        self.control = Control()
        self.changes = Changes()
        """Notified of every change of the phase and of what its waiters' predicates depend on."""
        self.cause: BaseException | None = None
        """The exception that failed the run, as long as this process lives."""
        self.pins = 0
        """The number of tasks that rely on this very object to drive the run."""
        self.rest_began = 0.0
        """The start of the present pause or wait, on Trio's clock."""
        self.crashes = 0
        """The number of earlier drivers that have died or failed since a step last committed."""

        self._begin_idle()

    def _begin_idle(self) -> None:
        """Set the attributes that describe the run's work to those of a run without any."""
        self._ready: deque[Delivery] | BoundedQueue | None = None
        self.timers = Timers()
        self.inbox: deque[Mail] | None = None
        """Inbox messages that have arrived and have not been taken yet."""
        self.foreign_mail: tuple[str, ...] = ()
        """The kinds of the inbox messages that only a later version of this package can read."""
        self.mail_holds: dict[int, Hold] | None = None
        """The holds that pauses in the inbox have made, by the ids of their rows."""
        self._keys: set[str] | None = None
        self.mail_seen = self.mail_done = 0
        """The number of inbox messages that have arrived, and of those that were taken."""
        self.in_flight = 0
        """The number of step tasks."""
        self.waiting = 0
        """The number of step tasks that wait for the disk."""
        self.last_task: object = None
        """The step task that ran last; `None`: other tasks have run since."""
        self._turns: Turns | None = None
        self.interrupted: frozenset[str] = frozenset()
        """The steps whose attempts were cancelled in the present or last period."""
        self.deciding = 0
        """The number of transitions on their way to the disk, besides those of steps."""
        self.asking: set[str] | None = None
        """The ids of the questions that the input handler is at work on."""
        self.ask: Callable[[Iterable[Question]], None] | None = None
        """Hands out new questions to the handler and the observers."""
        self.nursery: trio.Nursery | None = None
        """The nursery of the step tasks. Cancelling its scope stops them; the scope's deadline is
        the run's timeout."""
        self.signal = Signal()
        """Wakes the dispatcher."""

        # Among many.
        self.host: Host | None = None
        self.has_slot = False
        self._place: Place | None = None

        # Time.
        self.work = WorkClock(self.state)
        self.runs_ahead = self.journal is not None and self.journal.durability == "async"
        """True if decisions may be ahead of the disk."""
        self.timed = self.journal is not None or self.recorder.detailed
        """True if the time of a step's commit is recorded. If not, `still` is used, and no clock is
        read."""
        self.still = Moment(self.state.updated, self.state.elapsed)

    # Work that is ready, and time

    @property
    def ready(self) -> deque[Delivery] | BoundedQueue:
        """The deliveries that are ready to run, in order."""
        if self._ready is None:
            bounds, most = self.machine.routing.bounds, self.definition.max_concurrency
            self._ready = BoundedQueue(bounds, most) if bounds or most is not None else deque()
        return self._ready

    @property
    def anything_ready(self) -> bool:
        """True if a delivery could be run now."""
        return bool(self._ready)

    @property
    def turns(self) -> Turns:
        """The queue of the re-runs of its steps."""
        if self._turns is None:
            self._turns = Turns()
        return self._turns

    def slim(self) -> None:
        """Drop empty containers before a wait: deques and dicts keep their peak capacity."""
        if not self.state.deliveries:
            self._ready = None
            self.state.deliveries.clear()

    def moment(self) -> Moment:
        """Return the present moment: UTC, and the run's time at work so far."""
        return Moment(self.clock.now(), self.work.elapsed)

    def restart(self, elapsed: float) -> None:
        """Count the run's time at work from this number of seconds on."""
        self.work.restart(elapsed)
        self.still = Moment(self.clock.now(), elapsed)

    # Signals

    def wake(self) -> None:
        """Make the dispatcher look at the run again. Any number of signals cause one look."""
        self.signal.set()

    def enter(self, phase: Phase) -> None:
        """Enter a phase, and notify the tasks that wait for it."""
        self.control.enter(phase)
        if phase is Phase.PAUSED or phase is Phase.PARKED:
            self.rest_began = self.work.trio_time()
        self.changes.notify()

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep the run from resting while a caller watches it or is about to act on it."""
        self.pins += 1
        try:
            yield
        finally:
            self.pins -= 1

    # Requests

    def cancel(self, reason: str | None) -> None:
        """Cancel the run: its steps are cancelled and awaited, and pending work stays pending.

        Does nothing if the run is being cancelled or has ended.
        """
        if self.control.cancel(reason):
            self.stop_steps(Stop.CANCELLED)

    def crash(self, failure: BaseException) -> None:
        """Stop driving the run: the engine can't continue it.

        Its steps are cancelled. Every waiter gets the failure once they have ended.
        """
        if self.control.fail(failure):
            self.stop_steps(Stop.FAILED)

    def leave_at(self, leave: Leave) -> None:
        """Leave the run at that moment, if no earlier one was requested."""
        self.control.leave_at(leave)
        self.wake()

    def stop_steps(self, why: Stop) -> None:
        """Cancel the steps in flight, if there are any, and wake the dispatcher."""
        if self.in_flight and self.nursery is not None:
            self.nursery.cancel_scope.cancel(reason=why.value)
        self.wake()

    # From the store

    def mail_came(self, mail: Sequence[Mail]) -> None:
        """Queue inbox messages for the dispatcher, which takes them at its next look."""
        if self.inbox is None:
            self.inbox = deque()
        self.inbox.extend(mail)
        self.mail_seen += len(mail)
        self.wake()

    def driver_lost(self, error: Exception) -> None:
        """Stop driving the run: it was lost to another driver, or a commit failed."""
        self.crash(error)

    def has_key(self, key: str) -> bool:
        """Return whether a sender's key was used before, in a run without a store."""
        return self._keys is not None and key in self._keys

    def use_key(self, key: str) -> None:
        """Note that a sender's key is used."""
        self._keys = self._keys or set()
        self._keys.add(key)

    async def wait_mail_taken(self) -> None:
        """Wait until all inbox messages that have arrived are taken, or the run takes no more."""
        seen = self.mail_seen
        if self.mail_done < seen:
            await self.changes.wait_until(
                lambda: self.mail_done >= seen or not self.control.accepts
            )

    # Transitions

    async def may_decide(self) -> None:
        """Wait until a transition may be made. Not cancellable.

        That is while no state is being encoded, no transition is half applied, and the run is not
        too far ahead of the disk. A cancellation must not interfere, since the cause of the
        transition has already happened. The caller must make its transition before its next
        checkpoint: at a checkpoint the gate may close again.
        """
        if self.standstill.gate is not None:
            await self.standstill.opened()
        while self.runs_ahead and self.journal is not None and self.journal.full:
            with trio.CancelScope(shield=True):
                await self.journal.wait_room()
            await self.standstill.opened()

    def absorb(self, effects: Iterable[Item]) -> None:
        """Act on the effects of a transition, once it is as durable as it has to be.

        The caller wakes the dispatcher, unless it is a step task, which takes the next delivery.
        """
        for item in effects:
            if type(item) is Delivery:
                (self.ready if self._ready is None else self._ready).append(item)
            elif type(item) is Delayed:
                self.set_timer(item.due, item.id)
            elif type(item) is Question and self.ask is not None:
                self.ask((item,))

    def asks(self, entry: Entry) -> bool:
        """Return whether a transition opened a question, which is shown only once it is on disk."""
        return any(type(item) is Question for item in entry.effects)

    def set_timer(self, due: float, id_: int) -> None:
        """Take up this item again when it is due (UTC, seconds)."""
        self.timers.add(due, id_)
        self.wake()

    def woken(self) -> None:
        """Return a waiting run to work, since something has arrived. A paused run stays paused."""
        if self.control.phase is Phase.PARKED:
            self.enter(Phase.WORKING)
        self.wake()

    def note(self, entry: Entry) -> None:
        """Hand a transition of the run's status to the journal."""
        if self.journal is not None:
            self.journal.record(entry)

    # Among many

    def queue_for_slot(self) -> None:
        """Ask the host for a slot; the dispatcher is woken once the run has it."""
        if self._place is None and self.host is not None:
            # If a slot is free, `_slot_given` is called before `queue_up` returns.
            place = self.host.slots.queue_up(self._slot_given)
            self._place = None if place.given else place

    def _slot_given(self) -> None:
        self._place = None
        self.has_slot = True
        self.wake()
        self.changes.notify()

    def give_slot(self) -> None:
        """Release the slot, or the place in the queue for one: no step is about to run."""
        if self.host is None:
            return
        if self._place is not None:
            place, self._place = self._place, None
            self.host.slots.withdraw(place)
        if self.has_slot:
            self.has_slot = False
            self.host.slots.release()

    def dissolve(self) -> None:
        """Drop references back to this object, which no task drives any more.

        It is then freed with its last user, and not by the garbage collector.
        """
        self.give_slot()
        self.ask = None
        if self.journal is not None and self.control.phase is Phase.LEFT:
            # A resting run is listened to by its `ParkedRun` by now.
            self.journal.driver.listen(None)

    @property
    def can_rest(self) -> bool:
        """True if nothing is lost when this object is dropped while the run waits.

        There must be no watcher, nothing on its way to or from the disk, no input handler, and no
        inbox message left for a later version (the store hands each one out only once). A run that
        may be ahead of the disk has a task of its own that writes behind.
        """
        return (
            not self.pins
            and self.journal is not None
            and self.journal.settled
            and not self.runs_ahead
            and self.input_handler is None
            and not self.broadcast.observed
            and not self.inbox
            and not self.foreign_mail
        )
