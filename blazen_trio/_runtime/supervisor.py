"""The runs that a runtime drives: one at work has a task and a slot, one that waits has neither."""

from __future__ import annotations

import weakref
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Final, TypeVar, cast

import trio

from blazen_trio._concurrency import Changes
from blazen_trio._dispatch.control import Leave, Phase
from blazen_trio._dispatch.driving import drive
from blazen_trio._dispatch.slots import Slots
from blazen_trio._runtime.lent_slots import belongs_to, lending_slot
from blazen_trio._runtime.parked import ParkedRun, ParkedRuns
from blazen_trio._runtime.refusals import Refusals, give_back
from blazen_trio._stores.protocol import SUSPECT
from blazen_trio._surface.outcome import Handle
from blazen_trio._surface.prepare import Options, open_claimed
from blazen_trio._surface.run import Run
from blazen_trio._telemetry.logs import about, logger
from blazen_trio.errors import StaleRunError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._stores.driver import Driver, Mail
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun
    from blazen_trio._surface.workflow import Workflow

__all__ = ["Supervisor"]

T = TypeVar("T")

_TAKEN_AT_ONCE: Final = 64
_WORTH_A_REST: Final = 1.0
"""Seconds: a run that goes on sooner keeps its task."""
_LOOK_AGAIN: Final = 0.5
"""Seconds after which UTC is looked at again, while runs wait for a time: it may have been set."""


class Supervisor:
    """Drives runs in a nursery.

    Args:
        store: Where the runs are.
        workflows: Those that may be taken, by name; others come in by `start`.
        slots: How many runs are driven at once.
        max_crashes: How many drivers a run may take down before it is set aside.

    Attributes:
        driving: The runs that have a task here, by id.
        parked: Those that wait without one.
        slots: For the runs at work.
        changes: Told when a slot is free, a run has left, one that was taken is ready, another may be taken, and when this closes.
    """

    def __init__(
        self, store: CheckpointStore, workflows: dict[str, Workflow], slots: int, max_crashes: int
    ) -> None:
        self._store = store
        self._workflows = workflows
        self._max_crashes = max_crashes
        self._refusals = Refusals(store, max_crashes)
        self.changes = Changes()
        self.slots = Slots(slots, self.changes)
        self.driving: dict[str, RunCore] = {}
        self.parked = ParkedRuns()
        self.nursery: trio.Nursery | None = None
        self.closed = False
        self.started = self.taken = self.left = self.ended = self._mail = 0
        self._handles: weakref.WeakValueDictionary[str, Handle] = weakref.WeakValueDictionary()
        self._served: set[str] = set()
        self._suspects: set[str] = set()
        self._opening: set[str] = set()
        self._options: dict[Workflow, Options] = {}
        """Of the runs that wait without a task."""

    @property
    def idle(self) -> bool:
        """Whether it drives nothing, and is not about to."""
        return not (self.driving or self.parked or self._opening)

    @property
    def working(self) -> int:
        """How many runs are at work."""
        return self.slots.taken

    @property
    def waiting(self) -> int:
        """How many are driven here, and wait or are paused."""
        return max(0, len(self.driving) + len(self.parked) - self.slots.taken)

    @property
    def refused(self) -> int:
        """How often a run that was taken could not be driven here."""
        return self._refusals.count

    @property
    def mail(self) -> int:
        """How many rows of their inboxes its runs were given."""
        return self._mail + sum(core.mail_seen for core in self.driving.values())

    def options(self, workflow: Workflow) -> Options:
        """Return how its runs are driven."""
        return workflow.options(self._store, None, Options.KEEP, workflow.input_handler)

    def at(self, run_id: str) -> RunCore | None:
        """Return the run, if it is driven here and will be for now; one that waits without a task is brought back."""
        core = self.driving.get(run_id) or self.bring_back(run_id)
        return core if core is not None and core.control.stays else None

    def is_gone(self, core: RunCore) -> bool:
        """Return whether this core drives its run here no more."""
        return self.driving.get(core.state.run_id) is not core

    async def wait_opened(self, run_id: str) -> None:  # noqa: ASYNC910  # mostly it is made already
        """Wait while a run that was taken is being made ready."""
        if run_id in self._opening:
            await self.changes.wait_until(lambda: run_id not in self._opening)

    def handle(self, core: RunCore) -> Run:
        """Return a `Run`, which holds this run in memory while somebody has it."""
        run_id = core.state.run_id
        handle = self._handles.get(run_id)
        if handle is None:
            handle = self._handles[run_id] = Handle(core)
        return Run.of(handle)

    def holds(self, core: RunCore) -> bool:
        """See `Host.holds`."""
        return core.state.run_id in self._handles

    # Runs that somebody here asked for

    async def open(self, begin: Callable[[], Awaitable[RunCore]]) -> Run:
        """Drive what `begin` makes ready, once there is a slot."""
        await self.check_open()
        await self.lending_slot(self.slots.acquire)
        core = None
        try:
            await self.check_open()
            core = await begin()
            run_id = core.state.run_id
            if run_id in self.driving:
                # We lost the run, and have it again before what drove it here has ended.
                await self.changes.wait_until(lambda: run_id not in self.driving)
            await self.check_open(stored=run_id)
        except BaseException:
            self.slots.release()
            if core is not None and core.journal is not None:
                await self._give_back(core.journal.driver)  # noqa: ASYNC102, ASYNC120  # not cancellable, and bounded
            raise
        self.started += 1
        run = self.handle(core)
        if core.control.phase is Phase.LEFT:
            self.slots.release()
        else:
            core.has_slot = True
            self._launch(core)
        return run

    async def check_open(self, *, stored: str | None = None) -> None:  # noqa: ASYNC910
        """Refuse to begin anything in a block that has ended; `stored` is a run that is on disk.

        Raises:
            RuntimeError: It has.
        """
        if self.closed:
            # A cancelled block closes the runtime before its own task has heard of it.
            await trio.lowlevel.checkpoint_if_cancelled()
            msg = "this runtime is closed: open_runtime opens it for as long as its block lasts"
            also = f"; run {stored!r} is stored, and goes on by resume_from or a worker"
            raise RuntimeError(msg + (also if stored is not None else ""))

    async def lending_slot(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Wait for something of this runtime; see `lending_slot`."""
        return await lending_slot(self.driving, wait)

    def _launch(self, core: RunCore) -> None:
        core.host = self
        self.driving[core.state.run_id] = core
        core.task_context.run(self._start_driving, core)

    def _start_driving(self, core: RunCore) -> None:
        assert self.nursery is not None
        belongs_to(core.state.run_id)
        self.nursery.start_soon(self._drive, core)

    async def _drive(self, core: RunCore) -> None:
        run_id = core.state.run_id
        if self.closed:
            self._let_go(core)
        try:
            await drive(core, asked=core.control.phase is Phase.PARKED)
        finally:
            if core.control.phase is not Phase.RESTING:
                del self.driving[run_id]
                self._mail += core.mail_seen
                self._forget(run_id)
                if core.state.status.ended and core.control.failure is None:
                    self.ended += 1
                else:
                    self.left += 1
                self.changes.notify()
        failure = core.control.failure
        if failure is not None and not isinstance(failure, StaleRunError):
            extra = about(run_id, core.state.workflow)
            logger.warning(
                "run %r is driven no more by this process: %s", run_id, failure, extra=extra
            )

    def _forget(self, run_id: str) -> Handle | None:
        """It is not this process's any more. Return its handle, if somebody has it."""
        self._served.discard(run_id)
        self._suspects.discard(run_id)
        return self._handles.pop(run_id, None)

    # Runs that wait without a task

    def lets_rest(self, core: RunCore) -> bool:
        """See `Host.lets_rest`. What is due in a moment is not worth the while."""
        return (
            not self.closed
            and core.timers.next - core.clock.now() > _WORTH_A_REST
            and core.can_rest
        )

    def rests(self, core: RunCore) -> None:
        """See `Host.rests`."""
        run_id = core.state.run_id
        workflow = cast("Workflow", core.definition)
        options = self._options.get(workflow)
        if options is None:
            options = self._options[workflow] = self.options(workflow)
        del self.driving[run_id]
        self._mail += core.mail_seen
        if (handle := self._handles.get(run_id)) is not None:
            handle.rest(partial(self._needed_back, run_id))
        self.parked.add(ParkedRun.of(core, options, self))
        self.changes.notify()

    def _needed_back(self, run_id: str) -> RunCore:
        core = self.bring_back(run_id)
        assert core is not None, "a handle is told when its run does not wait here any more"
        return core

    def bring_back(self, run_id: str) -> RunCore | None:
        """Go on with a run that waits without a task; `None`: it does not."""
        parked = self.parked.take(run_id)
        if parked is None:
            return None
        core = parked.brought_back()
        if (handle := self._handles.get(run_id)) is not None:
            handle.attach(core)
        self._launch(core)
        return core

    def mail_came(self, run_id: str, mail: Sequence[Mail]) -> None:
        """Somebody has sent this to a run that waits without a task."""
        core = self.bring_back(run_id)
        if core is not None:
            core.mail_came(mail)

    def lost(self, run_id: str, error: Exception) -> None:
        """A run that waits without a task is somebody else's now: whoever waits for it here is told."""
        parked = self.parked.take(run_id)
        if parked is not None:
            if (handle := self._forget(run_id)) is not None:
                handle.attach(parked.left(error))
            self.left += 1
            self.parked.changes.notify()
            self.changes.notify()

    async def keep(self) -> None:  # noqa: ASYNC910  # it waits while there is anything to keep
        """Bring runs back when a time has come that they wait for, until this is closed and none waits any more."""
        clock = self._store.clock()
        parked = self.parked
        try:
            while not self.closed or parked:
                soonest = parked.next
                seconds = max(0.0, soonest - clock.now())
                if clock.may_be_set:
                    seconds = min(seconds, _LOOK_AGAIN) if soonest < float("inf") else seconds
                with trio.move_on_after(seconds):
                    await parked.changes.wait_until(partial(self._has_to_look, soonest))
                for run_id in parked.due(clock.now()):
                    self.bring_back(run_id)
        finally:
            self.closed = True
            # Neither cancelled nor without a bound.
            await self.let_parked_go(list(parked))  # noqa: ASYNC102

    def _has_to_look(self, soonest: float) -> bool:
        """Return whether another run is due soonest by now, or none is waited for any more."""
        return self.parked.next != soonest or (self.closed and not self.parked)

    async def let_parked_go(self, going: Sequence[ParkedRun]) -> None:  # noqa: ASYNC910  # mostly there are none
        """Give some of them back; others go on with them when what they wait for has come."""
        if not going:
            return  # noqa: ASYNC910
        for run in going:
            self.parked.take(run.state.run_id)
            if (handle := self._forget(run.state.run_id)) is not None:
                handle.attach(run.left())
            else:
                run.driver.listen(None)
        self.left += len(going)
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for run in going:
                    nursery.start_soon(partial(self._give_back, run.driver, wake=run.due))
        self.parked.changes.notify()

    # Runs that anybody may drive

    async def take(self, *, serving: bool, patient: bool = False) -> tuple[list[str], bool]:
        """Take what can go on, as far as there are slots. Return their ids, and whether there may be more."""
        reserved = 0
        try:
            while reserved < _TAKEN_AT_ONCE and self.slots.take_nowait():
                reserved += 1
            if not reserved:
                await trio.lowlevel.checkpoint()
                return [], True
            suspects = 0 if self._suspects else 1
            taken = await self._store.take(
                tuple(self._workflows), reserved, suspects=suspects, patient=patient
            )
            more = len(taken) == reserved
            reserved -= len(taken)
        finally:
            for _ in range(reserved):
                self.slots.release()
        self.taken += len(taken)
        await self._open_all(taken, serving=serving)
        return [stored.info.run_id for stored in taken], more

    async def _open_all(self, taken: Sequence[StoredRun], *, serving: bool) -> None:  # noqa: ASYNC910  # mostly all are opened
        assert self.nursery is not None
        for stored in taken:
            if self.closed:
                # Nobody would drive it: the nursery may have ended while the store was at it.
                self.slots.release()
                if stored.driver is not None:
                    await self._give_back(stored.driver)
                continue
            self._note(stored, serving=serving)
            self._opening.add(stored.info.run_id)
            self.nursery.start_soon(self._open_and_drive, stored, serving)

    def _note(self, stored: StoredRun, *, serving: bool) -> None:
        if serving:
            self._served.add(stored.info.run_id)
        if stored.crashes >= SUSPECT:
            self._suspects.add(stored.info.run_id)

    async def _open_and_drive(self, stored: StoredRun, serving: bool) -> None:  # for start_soon
        """Drive a run that was taken. Whatever is wrong with it, the others go on."""
        run_id = stored.info.run_id
        assert stored.driver is not None
        try:
            try:
                self._lose_parked(run_id)
                await self.changes.wait_until(lambda: run_id not in self.driving)
                self._note(stored, serving=serving)
                if stored.fault is not None:
                    raise stored.fault
                options = self.options(self._workflows[stored.info.workflow])
                core = await open_claimed(options, stored, max_crashes=self._max_crashes)
            finally:
                self._opening.discard(run_id)
                self.changes.notify()
        except Exception as failure:  # noqa: BLE001  # a run that can't be read must not take the others down
            self._forget(run_id)
            self.slots.release()
            await self._refusals.refuse(stored, stored.driver, failure)
            return
        except BaseException:
            self.slots.release()
            await self._give_back(stored.driver)  # noqa: ASYNC102, ASYNC120  # not cancellable, and bounded
            raise
        self._refusals.forget(run_id)
        core.host, core.has_slot = self, True
        core.task_context.run(belongs_to, run_id)
        self.driving[run_id] = core
        await self._drive(core)

    def _lose_parked(self, run_id: str) -> None:
        """We were taken for dead, and are the first to take up what we lost: what waited here for it is told."""
        parked = self.parked.take(run_id)
        if parked is not None and (handle := self._forget(run_id)) is not None:
            lost = f"run {run_id!r} was lost to another process, and is driven here anew"
            handle.attach(parked.left(StaleRunError(lost, run_id=run_id)))

    async def _give_back(self, driver: Driver, *, wake: float | None = None) -> None:  # noqa: ASYNC910  # the store suspends
        driver.listen(None)
        await give_back(self._store, driver, wake=wake)

    # Leaving

    async def dismiss_idle(self, idle_after: float, *, serving: bool) -> None:  # noqa: ASYNC910  # mostly there are none
        """Let runs leave that have waited for so many seconds, and that nobody here holds: those that wait, if somebody
        here takes them up again; and those that are paused. Let others that wait rest as soon as nobody watches them any more.
        """
        since = trio.current_time() - idle_after
        for run_id, core in self.driving.items():
            parked, paused = core.control.phase is Phase.PARKED, core.control.phase is Phase.PAUSED
            if (
                ((parked and serving) or paused)
                and core.rest_began <= since
                and run_id not in self._handles
            ):
                core.leave_at(Leave.AT_REST)
            elif parked and self.lets_rest(core):
                core.wake()
        if serving and self.parked:
            rested = takewhile(lambda run: run.since <= since, self.parked)
            await self.let_parked_go(
                [run for run in rested if run.state.run_id not in self._handles]
            )

    def close(self) -> list[RunCore]:
        """Nobody starts anything here any more. Runs that were started here go on until they end or wait for what comes from
        outside; those that were served are drained. Return these.
        """
        self.closed = True
        self.parked.changes.notify()
        self.changes.notify()
        return [core for core in self.driving.values() if self._let_go(core)]

    def not_waited_for(self) -> list[ParkedRun]:
        """Return, of the runs without a task, those that the end of the block does not wait for: others go on with them, or have to
        send them something.
        """
        return [
            run
            for run in self.parked
            if run.state.run_id in self._served or not run.waits_for_a_time_only
        ]

    def _let_go(self, core: RunCore) -> bool:
        """The runtime's block has ended. Return whether the run is drained."""
        served = core.state.run_id in self._served
        core.leave_at(Leave.AFTER_STEPS if served else Leave.ONCE_WAITING)
        return served
