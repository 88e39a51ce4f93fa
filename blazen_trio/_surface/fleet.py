"""The runs that a runtime drives: one at work has a task and a slot, one that waits is at rest and has neither."""

from __future__ import annotations

import weakref
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Final, cast

import trio

from blazen_trio._clock import wall_clock
from blazen_trio._dispatch.driving import drive
from blazen_trio._dispatch.host import Slots
from blazen_trio._stores.arguments import not_driven
from blazen_trio._stores.protocol import SUSPECT
from blazen_trio._surface.opening import Options, open_claimed
from blazen_trio._surface.resting import RestingRun, RestingRuns
from blazen_trio._surface.run import Run, attach
from blazen_trio._telemetry.logs import about, logger
from blazen_trio.errors import IncompatibleRunError, StaleRunError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun
    from blazen_trio._surface.workflow import Workflow

__all__ = ["Fleet"]

_TAKEN_AT_ONCE: Final = 64
_WORTH_A_REST: Final = 1.0
"""Seconds: a run that goes on sooner keeps its task."""
_FIRST_HOLD: Final = 1.0
_LONGEST_HOLD: Final = 60.0
"""Seconds for which a run that can't be driven here is left to others, twice as long each time."""
_HELD_KNOWN: Final = 10_000
"""So many such runs are remembered."""
_GIVE_BACK_SECONDS: Final = 5.0


class Fleet:
    """Drives runs in a nursery.

    Args:
        store: Where the runs are.
        workflows: Those that may be taken, by name; others come in by `start`.
        slots: How many runs are driven at once.
        max_crashes: How many drivers a run may take down before it is set aside.

    Attributes:
        driving: The runs that have a dispatcher here, by id.
        resting: Those that wait without one.
        slots: For the runs at work.
        owed: The runs that could not be given back, which the store failed to do.
    """

    def __init__(self, store: CheckpointStore, workflows: dict[str, Workflow], slots: int, max_crashes: int) -> None:
        self._store = store
        self._workflows = workflows
        self._max_crashes = max_crashes
        self.slots = Slots(slots)
        self.driving: dict[str, Dispatcher] = {}
        self.resting = RestingRuns()
        self.owed: set[str] = set()
        self.nursery: trio.Nursery | None = None
        self.closed = False
        self.started = self.taken = self.left = self.ended = self.refused = 0
        self._handles: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()
        self._served: set[str] = set()
        self._suspects: set[str] = set()
        self._holds: dict[str, float] = {}
        self._opening: dict[str, trio.Event] = {}
        self._options: dict[Workflow, Options] = {}
        """Of the runs that rest."""

    @property
    def idle(self) -> bool:
        """Whether it drives nothing, and is not about to."""
        return not (self.driving or self.resting or self._opening or self.owed)

    @property
    def working(self) -> int:
        """How many runs are at work."""
        return self.slots.taken

    @property
    def waiting(self) -> int:
        """How many are driven here, and wait or are paused."""
        return max(0, len(self.driving) + len(self.resting) - self.slots.taken)

    def options(self, workflow: Workflow) -> Options:
        """How its runs are driven."""
        return workflow.options(self._store, None, Options.KEEP, workflow.input_handler)

    def at(self, run_id: str) -> Dispatcher | None:
        """The run, if it is driven here and will be for now; one that rests is brought back."""
        d = self.driving.get(run_id) or self.bring_back(run_id)
        if d is None or d.over or d.closing or d.detached or d.dismissed or d.draining or d.failure is not None:
            return None
        return d

    async def opened(self, run_id: str) -> None:
        """Wait while a run that was taken is being made ready."""
        if (opening := self._opening.get(run_id)) is not None:
            await opening.wait()
        else:
            await trio.lowlevel.checkpoint()

    def handle(self, dispatcher: Dispatcher) -> Run:
        """The `Run` that holds this run in memory while somebody has it."""
        run_id = dispatcher.state.run_id
        run = self._handles.get(run_id)
        if run is None:
            run = self._handles[run_id] = Run(dispatcher)
        return run

    # Runs that somebody here asked for

    async def open(self, begin: Callable[[], Awaitable[Dispatcher]]) -> Run:
        """Drive what `begin` makes ready, once there is a slot."""
        self.check_open()
        await self.slots.acquire()
        try:
            dispatcher = await begin()
        except BaseException:
            self.slots.release()
            raise
        run = self.handle(dispatcher)
        self.started += 1
        if dispatcher.detached:
            self.slots.release()
        else:
            dispatcher.has_slot = True
            self._launch(dispatcher)
        return run

    def check_open(self) -> None:
        """Refuse to begin anything in a block that has ended.

        Raises:
            RuntimeError: It has.
        """
        if self.closed:
            msg = "this runtime is closed: open_runtime opens it for as long as its block lasts"
            raise RuntimeError(msg)

    def _launch(self, dispatcher: Dispatcher) -> None:
        assert self.nursery is not None
        dispatcher.host = self
        self.driving[dispatcher.state.run_id] = dispatcher
        self.nursery.start_soon(self._drive, dispatcher)

    async def _drive(self, dispatcher: Dispatcher) -> None:
        run_id = dispatcher.state.run_id
        if self.closed:
            self._let_go(dispatcher)
        try:
            await drive(dispatcher)
        finally:
            del self.driving[run_id]
            self.slots.tell()
            if dispatcher.at_rest:
                self._rest(dispatcher)
            else:
                self._forget(run_id)
                if dispatcher.over:
                    self.ended += 1
                else:
                    self.left += 1
        failure = dispatcher.failure
        if failure is not None and not isinstance(failure, StaleRunError):
            extra = about(run_id, dispatcher.state.workflow)
            logger.warning("run %r is driven no more by this process: %s", run_id, failure, extra=extra)
            self.owed.add(run_id)

    def _forget(self, run_id: str) -> Run | None:
        """It is not this process's any more. Returns its handle, if somebody has it."""
        self._served.discard(run_id)
        self._suspects.discard(run_id)
        return self._handles.pop(run_id, None)

    # Runs that rest

    def lets_rest(self, dispatcher: Dispatcher) -> bool:
        """See `Host.lets_rest`. What is due in a moment is not worth the while."""
        return not self.closed and dispatcher.timers.next - trio.current_time() > _WORTH_A_REST and dispatcher.can_rest

    def _rest(self, dispatcher: Dispatcher) -> None:
        run_id = dispatcher.state.run_id
        workflow = cast("Workflow", dispatcher.definition)
        options = self._options.get(workflow)
        if options is None:
            options = self._options[workflow] = self.options(workflow)
        self.resting.add(RestingRun.of(dispatcher, options))
        if (run := self._handles.get(run_id)) is not None:
            attach(run, partial(self._needed_back, run_id))

    def _needed_back(self, run_id: str) -> Dispatcher:
        dispatcher = self.bring_back(run_id)
        assert dispatcher is not None, "a handle is told when its run does not rest any more"
        return dispatcher

    def bring_back(self, run_id: str) -> Dispatcher | None:
        """Go on with a run that rests; `None`: it does not."""
        rested = self.resting.take(run_id)
        if rested is None:
            return None
        dispatcher = rested.brought_back()
        if (run := self._handles.get(run_id)) is not None:
            attach(run, dispatcher)
        rested.context.run(self._launch, dispatcher)
        return dispatcher

    async def keep(self) -> None:  # noqa: ASYNC910  # it waits while there is anything to keep
        """Bring runs back when a time has come that they wait for, until this is closed and none waits any more."""
        try:
            while not self.closed or self.resting:
                for run_id in await self.resting.next():
                    self.bring_back(run_id)
        finally:
            self.closed = True
            if self.resting:
                with trio.move_on_after(_GIVE_BACK_SECONDS, shield=True):
                    await self.let_resting_go(list(self.resting))  # noqa: ASYNC102

    async def let_resting_go(self, going: Sequence[RestingRun]) -> None:
        """Give some of them back; others go on with them when what they wait for has come."""
        for run in going:
            self.resting.take(run.state.run_id)
            if (handle := self._forget(run.state.run_id)) is not None:
                attach(handle, run.left())
        self.left += len(going)
        async with trio.open_nursery() as nursery:
            for run in going:
                nursery.start_soon(self._give_back, run.state.run_id, run.wake)
        self.resting.tell()

    # Runs that anybody may drive

    async def take(self, *, serving: bool) -> tuple[list[str], bool]:
        """Take what can go on, as far as there are slots. Returns their ids, and whether there may be more."""
        reserved = 0
        try:
            while reserved < _TAKEN_AT_ONCE and self.slots.value:
                self.slots.acquire_nowait()
                reserved += 1
            if not reserved:
                await trio.lowlevel.checkpoint()
                return [], True
            suspects = 0 if self._suspects else 1
            taken = await self._store.take(tuple(self._workflows), reserved, suspects=suspects)
            more = len(taken) == reserved
            reserved -= len(taken)
        finally:
            for _ in range(reserved):
                self.slots.release()
        self.taken += len(taken)
        self._open_all(taken, serving=serving)
        return [stored.info.run_id for stored in taken], more

    def _open_all(self, taken: Sequence[StoredRun], *, serving: bool) -> None:
        assert self.nursery is not None
        for stored in taken:
            self.owed.discard(stored.info.run_id)
            self._note(stored, serving=serving)
            self._opening[stored.info.run_id] = trio.Event()
            self.nursery.start_soon(self._open_and_drive, stored, serving)

    def _note(self, stored: StoredRun, *, serving: bool) -> None:
        if serving:
            self._served.add(stored.info.run_id)
        if stored.crashes >= SUSPECT:
            self._suspects.add(stored.info.run_id)

    async def _open_and_drive(self, stored: StoredRun, serving: bool) -> None:  # for start_soon
        """Drive a run that was taken. Whatever is wrong with it, it is left to others, who may know better."""
        run_id = stored.info.run_id
        try:
            try:
                await self._end_stale(run_id)
                self._note(stored, serving=serving)
                options = self.options(self._workflows[stored.info.workflow])
                dispatcher = await open_claimed(options, stored, max_crashes=self._max_crashes)
            finally:
                if (opening := self._opening.pop(run_id, None)) is not None:
                    opening.set()
        except Exception as failure:  # noqa: BLE001  # a run that can't be read must not take the others down
            self._refuse(stored, failure)
            await self._give_back(run_id)
            return
        except BaseException:
            with trio.move_on_after(_GIVE_BACK_SECONDS, shield=True):
                await self._give_back(run_id)  # noqa: ASYNC102, ASYNC120
            raise
        self._holds.pop(run_id, None)
        dispatcher.host, dispatcher.has_slot = self, True
        self.driving[run_id] = dispatcher
        await self._drive(dispatcher)

    async def _end_stale(self, run_id: str) -> None:
        """We were taken for dead, and are the first to take up what we lost: what we drove of it has to end before."""
        if (rested := self.resting.take(run_id)) is not None and (handle := self._forget(run_id)) is not None:
            attach(handle, rested.left(not_driven(run_id)))
        while (stale := self.driving.get(run_id)) is not None:
            freed = self.slots.freed
            stale.crash(not_driven(run_id))
            await freed.wait()
        await trio.lowlevel.checkpoint()

    def _refuse(self, stored: StoredRun, failure: Exception) -> None:
        run_id = stored.info.run_id
        self._forget(run_id)
        self.slots.release()
        self.refused += 1
        if run_id not in self._holds and len(self._holds) >= _HELD_KNOWN:
            del self._holds[next(iter(self._holds))]
        self._holds[run_id] = min(_LONGEST_HOLD, 2 * self._holds.get(run_id, _FIRST_HOLD / 2))
        what = "does not fit its workflow here" if isinstance(failure, IncompatibleRunError) else "can't be driven here"
        extra = about(run_id, stored.info.workflow)
        logger.warning("run %r %s, and is left to others: %s", run_id, what, failure, extra=extra)

    async def _give_back(self, run_id: str, wake: float | None = None) -> None:  # noqa: ASYNC910  # the store suspends
        held = self._holds.get(run_id)
        try:
            await self._store.release(run_id, wake=wake, hold=None if held is None else wall_clock().now() + held)
            self.owed.discard(run_id)
        except StoreError:
            self.owed.add(run_id)

    async def give_back_owed(self) -> None:  # noqa: ASYNC910  # called where something is owed
        """Give back what could not be given back before."""
        for run_id in sorted(self.owed):
            if run_id in self.driving:
                self.owed.discard(run_id)
            else:
                await self._give_back(run_id)

    # Leaving

    async def dismiss_idle(self, idle_after: float, *, serving: bool) -> None:  # noqa: ASYNC910  # mostly there are none
        """Let runs leave that have waited for so many seconds, and that nobody here holds: those that wait, if somebody
        here takes them up again; and those that are paused. Let others that wait rest as soon as nobody watches them any more.
        """
        since = trio.current_time() - idle_after
        for run_id, d in self.driving.items():
            if ((d.parked and serving) or d.paused) and d.rest_began <= since and run_id not in self._handles:
                d.dismiss()
            elif d.parked and self.lets_rest(d):
                d.wake()
        if serving and self.resting:
            rested = takewhile(lambda run: run.since <= since, self.resting)
            await self.let_resting_go([run for run in rested if run.state.run_id not in self._handles])

    def close(self) -> list[Dispatcher]:
        """Nobody starts anything here any more. Runs that were started here go on until they end or wait for what comes from
        outside; those that were served are drained. Returns these.
        """
        self.closed = True
        self.resting.tell()
        return [d for d in self.driving.values() if self._let_go(d)]

    def not_waited_for(self) -> list[RestingRun]:
        """Of the runs that rest, those that the end of the block does not wait for: others go on with them, or have to send them
        something.
        """
        return [run for run in self.resting if run.state.run_id in self._served or not run.waits_for_a_time_only]

    def _let_go(self, dispatcher: Dispatcher) -> bool:
        """The runtime's block has ended. Returns whether the run is drained."""
        if dispatcher.state.run_id in self._served:
            dispatcher.drain()
            return True
        dispatcher.leaving = dispatcher.abandoned = True
        dispatcher.wake()
        return False
