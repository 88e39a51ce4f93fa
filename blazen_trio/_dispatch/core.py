"""One run being driven: what all who have a part in it share, and how they wake its dispatcher.

The dispatcher is the task that decides (`driving`); step tasks run its deliveries; whoever holds the run, its inbox and its store
act on it from outside. All of them know this and not each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import trio

from blazen_trio._concurrency import Changes
from blazen_trio._dispatch.control import Control, Hold, Leave, Phase, Stop
from blazen_trio._dispatch.schedule import BoundedQueue, Timers, WorkClock
from blazen_trio._dispatch.transaction import Turns
from blazen_trio._state.machine import Moment
from blazen_trio._state.model import Delayed, Delivery, Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blazen_trio._clock import Utc
    from blazen_trio._codec.codec import Codec
    from blazen_trio._dispatch.journal import Journal
    from blazen_trio._dispatch.observers import Broadcast, Recorder
    from blazen_trio._dispatch.slots import Place, Slots
    from blazen_trio._dispatch.standstill import Standstill
    from blazen_trio._dispatch.transaction import Transaction
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.machine import Machine
    from blazen_trio._state.model import Item
    from blazen_trio._stores.driver import Mail

__all__ = ["Host", "InputHandler", "RunCore"]

InputHandler = Callable[[Any], Awaitable[Any]]
"""Takes an `InputRequestEvent`; returns the response, or an `InputResponseEvent`, or `None` to leave the question open."""


class Host(Protocol):
    """Drives many runs."""

    slots: Slots

    def lets_rest(self, core: RunCore) -> bool:
        """Whether a run that waits may leave its task: the host brings it back when what it waits for has come."""

    def rests(self, core: RunCore) -> None:
        """The run waits without a task from now on; the one that it has is about to end. At once,
        and not when that has ended: whoever asks for the run, sends to it or closes the host
        meanwhile would meet one that is neither driven nor waits.
        """

    def holds(self, core: RunCore) -> bool:
        """Whether somebody here has the run's handle."""


class RunCore:
    """One run being driven by this process.

    Args:
        machine: Decides the run's transitions.
        codec: Encodes events and values.
        journal: Takes the entries to the store; `None`: the run lives in memory only.
        broadcast: The run's observers.
        recorder: The run's history.
        standstill: Closed while the run's state is being written down.
        clock: Tells UTC.
        input_handler: Answers questions; `None`: they wait for `respond`.
        make_context: Makes what a step gets as its context.
    """

    __slots__ = (
        "__weakref__",
        "_keys",
        "_place",
        "_ready",
        "_signalled",
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
        """Told whenever the phase, or what it rests on, changes."""
        self.cause: BaseException | None = None
        """The exception that failed the run, as long as this process lives."""
        self.pins = 0
        """How many tasks rely on this very object to drive the run."""
        self.rest_began = 0.0
        """When the present pause or wait began, on Trio's clock."""
        self.crashes = 0
        """How many drivers of it have died or failed, since a step of it was last committed, before this one."""

        self._begin_idle()

    def _begin_idle(self) -> None:
        """Set what is kept of its work, of which there is none yet."""
        self._ready: deque[Delivery] | BoundedQueue | None = None
        self.timers = Timers()
        self.inbox: deque[Mail] | None = None
        """Mail that has come and was not taken yet."""
        self.foreign_mail: tuple[str, ...] = ()
        """The kinds of mail that lie in the inbox for a later version of this package."""
        self.mail_holds: dict[int, Hold] | None = None
        """What pauses in the inbox have asked for, by their rows."""
        self._keys: set[str] | None = None
        self.mail_seen = self.mail_done = 0
        """How many rows of it have come, and how many of these were taken."""
        self.in_flight = 0
        """How many step tasks there are."""
        self.waiting = 0
        """How many of them wait for the disk."""
        self.last_task: object = None
        """Whichever of them ran last; `None`: others have run since."""
        self._turns: Turns | None = None
        self.interrupted: frozenset[str] = frozenset()
        """The steps whose attempts were cancelled, since step tasks last began."""
        self.deciding = 0
        """How many transitions are decided and on their way to the disk, besides those of steps."""
        self.asking: set[str] | None = None
        """The questions that the input handler is at work on."""
        self.ask: Callable[[Iterable[Question]], None] | None = None
        """Hands out the questions that it asks."""
        self.nursery: trio.Nursery | None = None
        """Where step tasks run. Its scope is theirs: cancelled to stop them, its deadline the run's timeout."""
        self._signalled: trio.Event | None = None

        # Among many.
        self.host: Host | None = None
        self.has_slot = False
        self._place: Place | None = None

        # Time.
        self.work = WorkClock(self.state)
        self.runs_ahead = self.journal is not None and self.journal.durability == "async"
        """Whether what is decided may be ahead of the disk."""
        self.timed = self.journal is not None or self.recorder.detailed
        """Whether anybody asks for the time of a step's commit; otherwise it is that of `still`, and no clock is read."""
        self.still = Moment(self.state.updated, self.state.elapsed)

    # Work that is ready, and time

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

    @property
    def turns(self) -> Turns:
        """The queue of the re-runs of its steps."""
        if self._turns is None:
            self._turns = Turns()
        return self._turns

    def slim(self) -> None:
        """Drop what has grown: the run waits, maybe for long, maybe with many like it."""
        if not self.state.deliveries:
            self._ready = None
            self.state.deliveries.clear()

    def moment(self) -> Moment:
        """Return now: UTC, and the run's time at work so far."""
        return Moment(self.clock.now(), self.work.elapsed)

    def restart(self, elapsed: float) -> None:
        """Count the run's time from here on."""
        self.work.restart(elapsed)
        self.still = Moment(self.clock.now(), elapsed)

    # Signals

    def wake(self) -> None:
        """Let the dispatcher look again. Signals are many, looks are few: one that waits is enough."""
        if self._signalled is None:
            self._signalled = trio.Event()
        self._signalled.set()

    def signal_taken(self) -> None:
        """The dispatcher is about to look at everything."""
        self._signalled = None

    async def wait_signalled(self) -> None:
        """Wait for a signal, which is taken by that."""
        if self._signalled is None:
            self._signalled = trio.Event()
        await self._signalled.wait()
        self._signalled = None

    def enter(self, phase: Phase) -> None:
        """Stand there from now on, and tell all who wait for it."""
        self.control.enter(phase)
        if phase is Phase.PAUSED or phase is Phase.PARKED:
            self.rest_began = self.work.trio_time()
        self.changes.notify()

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """While somebody watches the run or is about to act on it: it may wait, and not leave for a rest."""
        self.pins += 1
        try:
            yield
        finally:
            self.pins -= 1

    # Requests

    def cancel(self, reason: str | None) -> None:
        """Cancel the run: its steps are cancelled and awaited, and what is undone stays so. Nothing happens to one that is
        being cancelled, or has ended.
        """
        if self.control.cancel(reason):
            self.stop_steps(Stop.CANCELLED)

    def crash(self, failure: BaseException) -> None:
        """The engine can't go on with the run: its steps are cancelled, and whoever waits is told once they have ended."""
        if self.control.fail(failure):
            self.stop_steps(Stop.FAILED)

    def leave_at(self, leave: Leave) -> None:
        """Leave the run then."""
        self.control.leave_at(leave)
        self.wake()

    def stop_steps(self, why: Stop) -> None:
        """Cancel the steps in flight, if there are any; and let the dispatcher look."""
        if self.in_flight and self.nursery is not None:
            self.nursery.cancel_scope.cancel(reason=why.value)
        self.wake()

    # From the store

    def mail_came(self, mail: Sequence[Mail]) -> None:
        """Rows of the inbox: the dispatcher takes them when it comes to it."""
        if self.inbox is None:
            self.inbox = deque()
        self.inbox.extend(mail)
        self.mail_seen += len(mail)
        self.wake()

    def driver_lost(self, error: Exception) -> None:
        """Somebody else drives the run, or it could not be written."""
        self.crash(error)

    def has_key(self, key: str) -> bool:
        """Return whether a sender's key was used before, in a run without a store."""
        return self._keys is not None and key in self._keys

    def use_key(self, key: str) -> None:
        """Note that a sender's key is used."""
        self._keys = self._keys or set()
        self._keys.add(key)

    async def wait_mail_taken(self) -> None:
        """Wait until all mail that has come by now is taken, or the run takes none any more."""
        seen = self.mail_seen
        if self.mail_done < seen:
            await self.changes.wait_until(
                lambda: self.mail_done >= seen or not self.control.accepts
            )

    # Transitions

    async def may_decide(self) -> None:
        """Wait until a transition may happen: the state is not being written down, nor too far ahead of the disk. Not
        cancellable, since what waits here has happened already. The caller must make its transition without a
        checkpoint in between.
        """
        await self.standstill.opened()
        while self.runs_ahead and self.journal is not None and self.journal.full:
            with trio.CancelScope(shield=True):
                await self.journal.wait_room()
            await self.standstill.opened()

    def absorb(self, effects: Iterable[Item]) -> None:
        """Act on what a transition brought in, once that is as durable as it has to be."""
        for item in effects:
            if type(item) is Delivery:
                (self.ready if self._ready is None else self._ready).append(item)
            elif type(item) is Delayed:
                self.set_timer(item.due, item.id)
            elif type(item) is Question and self.ask is not None:
                self.ask((item,))

    def asks(self, entry: Entry) -> bool:
        """Return whether a transition has opened a question, which is told only once it is on disk."""
        return any(type(item) is Question for item in entry.effects)

    def set_timer(self, due: float, id_: int) -> None:
        """Look at this item again when it is due (UTC)."""
        self.timers.add(due, id_)
        self.wake()

    def woken(self) -> None:
        """Something came in: a run that waited does so no more. A paused one stays so."""
        if self.control.phase is Phase.PARKED:
            self.enter(Phase.WORKING)
        self.wake()

    def note(self, entry: Entry) -> None:
        """Hand a transition of the run's status to the journal."""
        if self.journal is not None:
            self.journal.record(entry)

    # Among many

    def queue_for_slot(self) -> None:
        """Ask the host for a slot; the dispatcher is woken when there is one."""
        if self._place is None and self.host is not None:
            place = self.host.slots.queue_up(self._slot_given)
            self._place = None if place.given else place

    def _slot_given(self) -> None:
        self._place = None
        self.has_slot = True
        self.wake()
        self.changes.notify()

    def give_slot(self) -> None:
        """No step is about to run: let another run be at work."""
        if self.host is None:
            return
        if self._place is not None:
            place, self._place = self._place, None
            self.host.slots.withdraw(place)
        if self.has_slot:
            self.has_slot = False
            self.host.slots.release()

    def dissolve(self) -> None:
        """No task drives this any more: drop what refers back to it, so that it is freed with its last user and not by the
        garbage collector.
        """
        self.give_slot()
        self.ask = None
        if self.journal is not None and self.control.phase is Phase.LEFT:
            self.journal.driver.listen(None)

    @property
    def can_rest(self) -> bool:
        """Return whether nothing is lost with this object while the run waits: nobody watches,
        nothing is on its way to the disk or was just taken from there, no input handler is at
        work, and no row of the inbox is left for a later version (the store gives it once).
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
