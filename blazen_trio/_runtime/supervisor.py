"""The runs that a runtime drives. A run at work has a task and a slot; a waiting one has none."""

from __future__ import annotations

import weakref
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Final, TypeVar, cast

import trio

from blazen_trio._concurrency import Changes
from blazen_trio._dispatch.control import Leave, Phase
from blazen_trio._dispatch.driving import drive
from blazen_trio._dispatch.slots import Slots, belongs_to, lending_slot
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
"""Seconds: a run that continues sooner keeps its task."""
_LOOK_AGAIN: Final = 0.5
"""Seconds after which the clock is read again while runs wait for a time: it may have been set."""


class Supervisor:
    """The owner of a runtime's runs, and of the nursery in which they are driven.

    Args:
        store: The store of the runs.
        workflows: The workflows whose runs may be taken, by name; `start` accepts others too.
        slots: The number of runs that may be at work at once.
        max_crashes: The number of drivers that a run may crash before it is set aside.

    Attributes:
        driving: The runs that have a task in this process, by id.
        parked: The runs that wait without a task.
        changes: Notified of free slots, runs that left, opened or can be taken, and the closing.
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
        """The options of the runs that wait without a task."""

    @property
    def idle(self) -> bool:
        """True if it drives no run and is not about to."""
        return not (self.driving or self.parked or self._opening)

    @property
    def working(self) -> int:
        """The number of runs at work."""
        return self.slots.taken

    @property
    def waiting(self) -> int:
        """The number of this process's runs that wait or are paused."""
        return max(0, len(self.driving) + len(self.parked) - self.slots.taken)

    @property
    def refused(self) -> int:
        """The number of times that a taken run could not be driven."""
        return self._refusals.count

    @property
    def mail(self) -> int:
        """The number of inbox messages that its runs have received."""
        return self._mail + sum(core.mail_seen for core in self.driving.values())

    def options(self, workflow: Workflow) -> Options:
        """Return the options for driving a workflow's runs."""
        return workflow.options(self._store, None, Options.KEEP, workflow.input_handler)

    def at(self, run_id: str) -> RunCore | None:
        """Return a run that this process keeps driving for now, giving it a task if it has none."""
        core = self.driving.get(run_id) or self.bring_back(run_id)
        return core if core is not None and core.control.stays else None

    def is_gone(self, core: RunCore) -> bool:
        """Return whether this core no longer drives its run."""
        return self.driving.get(core.state.run_id) is not core

    async def wait_opened(self, run_id: str) -> None:  # noqa: ASYNC910  # if it is open
        """Wait while a run that was taken is being opened."""
        if run_id in self._opening:
            await self.changes.wait_until(lambda: run_id not in self._opening)

    def handle(self, core: RunCore) -> Run:
        """Return the `Run` of a core; while it is referenced, the run stays in this process."""
        run_id = core.state.run_id
        handle = self._handles.get(run_id)
        if handle is None:
            handle = self._handles[run_id] = Handle(core)
        return Run.of(handle)

    def holds(self, core: RunCore) -> bool:
        """See `Host.holds`."""
        return core.state.run_id in self._handles

    # Runs that a caller in this process asked for

    async def open(self, begin: Callable[[], Awaitable[RunCore]]) -> Run:
        """Wait for a slot, then open a run with `begin` and drive it.

        The runtime may close during each wait: the slot and the run's ownership are given up then.
        """
        await self.check_open()
        await self.lending_slot(self.slots.acquire)
        core = None
        try:
            await self.check_open()
            core = await begin()
            run_id = core.state.run_id
            if run_id in self.driving:
                # The run was lost and claimed again; never drive it beside its old task.
                await self.changes.wait_until(lambda: run_id not in self.driving)
            await self.check_open(stored=run_id)
        except BaseException:
            self.slots.release()
            if core is not None and core.journal is not None:
                await self._give_back(core.journal.driver)  # noqa: ASYNC102, ASYNC120  # bounded
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
        """Check that the block has not ended; `stored` is the id of a run that is on disk by now.

        Raises:
            RuntimeError: It has ended.
        """
        if self.closed:
            # A cancelled block closes the runtime before its own task is cancelled.
            await trio.lowlevel.checkpoint_if_cancelled()
            msg = "this runtime is closed: it can be used only inside its open_runtime block"
            also = f"; run {stored!r} is stored: resume_from or a worker continues it"
            raise RuntimeError(msg + (also if stored is not None else ""))

    async def lending_slot(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Wait for something of this runtime without a slot; see `slots.lending_slot`."""
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
            # The entry of a resting run may be that of its next task by now: see `rests`.
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
            text = "run %r is no longer driven by this process: %s"
            logger.warning(text, run_id, failure, extra=about(run_id, core.state.workflow))

    def _forget(self, run_id: str) -> Handle | None:
        """Stop tracking a run that has left. Return its handle if it is still referenced."""
        self._served.discard(run_id)
        self._suspects.discard(run_id)
        return self._handles.pop(run_id, None)

    # Runs that wait without a task

    def lets_rest(self, core: RunCore) -> bool:
        """See `Host.lets_rest`. A run that is due in a moment keeps its task."""
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
        assert core is not None, "a handle is detached from a run that is no longer parked"
        return core

    def bring_back(self, run_id: str) -> RunCore | None:
        """Give a run that waits without a task a task again; `None` if it is not such a run."""
        parked = self.parked.take(run_id)
        if parked is None:
            return None
        core = parked.brought_back()
        if (handle := self._handles.get(run_id)) is not None:
            handle.attach(core)
        self._launch(core)
        return core

    def mail_came(self, run_id: str, mail: Sequence[Mail]) -> None:
        """Resume a run that waits without a task, and pass these inbox messages to it."""
        if (core := self.bring_back(run_id)) is not None:
            core.mail_came(mail)

    def lost(self, run_id: str, error: Exception) -> None:
        """Drop a parked run that was lost to another process; its waiters get the error."""
        parked = self.parked.take(run_id)
        if parked is not None:
            if (handle := self._forget(run_id)) is not None:
                handle.attach(parked.left(error))
            self.left += 1
            self.parked.changes.notify()
            self.changes.notify()

    async def keep(self) -> None:  # noqa: ASYNC910  # it waits while runs wait
        """Resume parked runs when they are due, until this is closed and none is left."""
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
            # Not cancellable, and bounded.
            await self.let_parked_go(list(parked))  # noqa: ASYNC102

    def _has_to_look(self, soonest: float) -> bool:
        """Return whether the earliest due time has changed, or no run is left to wait for."""
        return self.parked.next != soonest or (self.closed and not self.parked)

    async def let_parked_go(self, going: Sequence[ParkedRun]) -> None:  # noqa: ASYNC910  # if any
        """Release parked runs, which any process may continue once they can."""
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

    # Runs that any worker may drive

    async def take(self, *, serving: bool, patient: bool = False) -> tuple[list[str], bool]:
        """Take runs that can continue, one per free slot. Return their ids, and if more may be."""
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

    async def _open_all(  # noqa: ASYNC910  # mostly there is nothing to wait for
        self, taken: Sequence[StoredRun], *, serving: bool
    ) -> None:
        assert self.nursery is not None
        for stored in taken:
            if self.closed:
                # The nursery may have ended while the store took the run: no task would drive it.
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
        """Open and drive a run that was taken. Its faults do not affect the other runs.

        Until `_drive`, only this task knows of the slot and of the ownership, so each of its ways
        out releases both: an error of the run (which is counted), a cancellation, and Ctrl-C.

        This process may have lost the run and taken it again. It waits for the end of the old
        driving: two tasks of one run would share its id, its handle and its inbox.
        """
        run_id = stored.info.run_id
        assert stored.driver is not None
        try:
            try:
                again = f"run {run_id!r} was lost and taken again by this process: get a new handle"
                self.lost(run_id, StaleRunError(again, run_id=run_id))  # if it rests here
                await self.changes.wait_until(lambda: run_id not in self.driving)
                self._note(stored, serving=serving)  # again: `lost` and the old end forget it
                if stored.fault is not None:
                    raise stored.fault
                options = self.options(self._workflows[stored.info.workflow])
                core = await open_claimed(options, stored, max_crashes=self._max_crashes)
            finally:
                self._opening.discard(run_id)
                self.changes.notify()
        except Exception as failure:  # noqa: BLE001  # one unreadable run must not end the others
            self._forget(run_id)
            self.slots.release()
            await self._refusals.refuse(stored, stored.driver, failure)
            return
        except BaseException:
            self.slots.release()
            await self._give_back(stored.driver)  # noqa: ASYNC102, ASYNC120  # bounded
            raise
        self._refusals.forget(run_id)  # earlier failures to open it count no more
        core.host, core.has_slot = self, True
        core.task_context.run(belongs_to, run_id)
        self.driving[run_id] = core
        await self._drive(core)

    async def _give_back(  # noqa: ASYNC910  # the store suspends
        self, driver: Driver, *, wake: float | None = None
    ) -> None:
        driver.listen(None)
        await give_back(self._store, driver, wake=wake)

    # Leaving

    async def dismiss_idle(self, idle_after: float, *, serving: bool) -> None:  # noqa: ASYNC910
        """Release runs that have been idle for this many seconds and whose `Run` is unreferenced.

        That is, paused runs, and waiting ones if this serves. Wake others that may rest by now.
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
        """Accept no more runs, and return the drained ones; others continue until end or wait."""
        self.closed = True
        self.parked.changes.notify()
        self.changes.notify()
        return [core for core in self.driving.values() if self._let_go(core)]

    def not_waited_for(self) -> list[ParkedRun]:
        """Return the parked runs that continue elsewhere or wait for something from outside."""
        return [
            run
            for run in self.parked
            if run.state.run_id in self._served or not run.waits_for_a_time_only
        ]

    def _let_go(self, core: RunCore) -> bool:
        """Make a run leave at the end of the runtime's block. Return whether it is drained."""
        served = core.state.run_id in self._served
        core.leave_at(Leave.AFTER_STEPS if served else Leave.ONCE_WAITING)
        return served
