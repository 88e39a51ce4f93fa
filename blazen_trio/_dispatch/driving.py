"""The dispatcher of one run, from its start in this process until the run ends or is left.

The dispatcher is the one task that makes decisions: it calls `control.decide`, which is
synchronous, and acts on the answer. It never leaves its loop, even while the run waits or is
paused. Step tasks live in its nursery and have that nursery's cancel scope to themselves:
cancelling it stops them, and its deadline is the run's timeout while they are at work. After steps
have been cancelled, the loop continues in a new nursery once all of them have ended. The steps of a
run therefore never outlive the event that ended or paused it.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from blazen_trio._concurrency import bare_errors
from blazen_trio._dispatch.calls import LONGEST_HOLD, breaks_out, hold_after
from blazen_trio._dispatch.control import Next, Phase, decide
from blazen_trio._dispatch.inbox import ask, take_some, unanswered
from blazen_trio._dispatch.step_tasks import StepTasks
from blazen_trio._dispatch.transitions import cancel, settle, stall, time_out
from blazen_trio._state.safe_text import text_of
from blazen_trio._state.status import RunStatus
from blazen_trio._telemetry import hooks
from blazen_trio._telemetry.logs import about, logger
from blazen_trio.errors import StaleRunError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._dispatch.journal import Journal
    from blazen_trio._telemetry.hooks import RunListener

__all__ = ["drive", "listen_to"]

_DUE_PER_TURN: Final = 32
"""Due items taken between two checkpoints."""
_LOOK_AGAIN: Final = 0.5
"""Seconds after which a run that waits for a time reads the clock again: the clock may have been
set, or the machine suspended."""


@trio.lowlevel.enable_ki_protection
async def drive(core: RunCore, *, asked: bool = False) -> None:
    """Drive a run until it has ended, or this process leaves it (`Leave`).

    Never raises an error of the run: `control.failure` and the run's state report those. It raises
    only a cancellation from outside, a `KeyboardInterrupt` or `SystemExit` from a step, or a bug's
    exception.

    Args:
        core: The run.
        asked: Whether this process has already asked the questions that are open.
    """
    core.broadcast.begin()
    if hooks.listener is not None and core.recorder.listener is None:
        listen_to(core, hooks.listener.run(core.state.run_id, core.state.workflow, core.state))
    crash: BaseException | None = None
    try:
        if core.journal is not None and core.journal.durability == "async":
            with bare_errors():
                async with trio.open_nursery() as services:
                    services.start_soon(_write_behind, core, core.journal)
                    try:
                        await _drive_in_nursery(core, asked=asked)
                    finally:
                        core.journal.stop_writing_behind()
        elif core.input_handler is not None:
            await _drive_in_nursery(core, asked=asked)
        else:
            await _Dispatcher(core, None).run(asked=asked)
    except BaseException as error:
        crash = error
        raise
    finally:
        if core.control.phase is not Phase.RESTING:
            await _leave(core, crash)  # noqa: ASYNC102  # its waits are bounded
            _tell_end(core)
        core.dissolve()


def listen_to(core: RunCore, listener: RunListener) -> None:
    """Report to this listener until this process no longer drives the run."""
    core.recorder.listener = listener
    listener.driven_in(core.task_context)


def _tell_end(core: RunCore) -> None:
    """Report to the listener that this process, or this object, no longer drives the run."""
    listener = core.recorder.listener
    if listener is None:
        return
    if core.control.failure is not None:
        listener.lost(core.control.failure)
    else:
        listener.ended(core.state)


async def _drive_in_nursery(core: RunCore, *, asked: bool) -> None:
    """Drive a run inside a nursery, which is for the calls of its input handler, if it has one."""
    with bare_errors():
        async with trio.open_nursery() as nursery:
            handlers = nursery if core.input_handler is not None else None
            await _Dispatcher(core, handlers).run(asked=asked)
            nursery.cancel_scope.cancel(reason="the run has come to rest")


async def _write_behind(core: RunCore, journal: Journal) -> None:
    try:
        await journal.write_behind()
    except Exception as failure:  # noqa: BLE001  # kept, and raised to every waiter of the run
        core.crash(failure)


class _Dispatcher:
    """The task that drives one run.

    Args:
        core: The run.
        handlers: The nursery of the input handler's calls; `None`: there is no handler.
    """

    def __init__(self, core: RunCore, handlers: trio.Nursery | None) -> None:
        self._core = core
        self._tasks = StepTasks(core)
        core.ask = self._ask = partial(ask, core, handlers)
        if core.recorder.listener is not None:
            from blazen_trio._dispatch.traced_attempts import TracedAttempt

            self._tasks.attempt = TracedAttempt

    async def run(self, *, asked: bool) -> None:
        """Drive the run until it rests, or has ended and is to be left."""
        core = self._core
        core.machine.slices = True
        core.signal.clear()  # the first decision looks at everything
        if core.state.questions and not asked:
            self._ask(core.state.questions.values())
        over = False
        while not over:
            with bare_errors():
                async with trio.open_nursery() as nursery:
                    core.nursery = nursery
                    self._tasks.new_nursery()
                    try:
                        await self._dispatch()
                    except Exception as failure:  # noqa: BLE001  # raised to every waiter
                        core.crash(failure)
                    over = True
            # No step is in flight now. If steps were cancelled (a pause after its grace, a timeout,
            # an end), the `Cancelled` of their scope has ended the loop as well, before `over` was
            # set: the run continues in a new nursery. A cancellation from outside is not caught.
            core.nursery = None
        # Only here: an end that is stored while a step is at work would not be the end.
        if core.control.failure is None and core.journal is not None:
            try:
                await core.journal.settle()
            except Exception as failure:  # noqa: BLE001  # raised to every waiter
                core.crash(failure)

    async def _dispatch(self) -> None:
        """Decide and act until no action follows."""
        core = self._core
        control, now = core.control, _Now(core)
        while True:
            await core.may_decide()
            if not control.accepts:
                return
            if core.inbox:
                await take_some(core)
                continue
            # No checkpoint between the look and the transition that `_act` makes of it: an event
            # that arrived in between would be missed, and the run would park with it.
            match decide(control, now):
                case Next.RUN:
                    self._tasks.recruit()
                    await self._wait()
                case Next.WAIT:
                    await self._wait()
                case Next.GET_SLOT:
                    core.queue_for_slot()
                    await self._wait()
                case Next.LEAVE:
                    return
                case Next.REST:
                    self._rest()
                    return
                case following:
                    await self._act(following)

    async def _act(self, following: Next) -> None:
        """Make the transition that is the next action."""
        match following:
            case Next.TAKE_DUE:
                await self._take_due()
            case Next.WAKE:
                self._wake()
            case Next.PARK:
                await self._park()
            case Next.PAUSE:
                await self._pause()
            case Next.UNPAUSE:
                await self._unpause()
            case Next.CANCEL:
                cancel(self._core)
            case Next.TIME_OUT:
                time_out(self._core)
            case _:
                assert following is Next.STALL
                stall(self._core)

    def _wait(self) -> Awaitable[None]:
        """Wait for a signal, or until the next timer is due."""
        # While no step may start, due timers are not taken. Waiting for one would busy-loop.
        if self._core.timers and not self._core.control.halted:
            return self._wait_timer()
        return self._core.signal.wait()

    async def _wait_timer(self) -> None:
        core = self._core
        seconds = max(0.0, core.timers.next - core.clock.now())
        if core.clock.may_be_set:
            seconds = min(seconds, _LOOK_AGAIN)
        with trio.move_on_after(seconds):
            await core.signal.wait()

    async def _take_due(self) -> None:
        """Route the delayed events that are due, and make the due retries ready."""
        core = self._core
        taken = 0
        while core.timers.next <= core.clock.now():
            taken += 1
            if taken % _DUE_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            await core.may_decide()
            if core.control.halted:
                return
            # An item is out of the heap for as long as its transition takes, which can't be
            # cancelled. So no cancellation can lose one.
            id_ = core.timers.pop()
            if (delayed := core.state.delayed.get(id_)) is not None:
                await settle(
                    core,
                    core.machine.due(delayed, core.moment()),
                    "event_received",
                    delayed.event.event_type,
                )
            elif (delivery := core.state.deliveries.get(id_)) is not None:
                core.ready.append(delivery)

    # Rests

    def _rest(self) -> None:
        """Hand the waiting run to its host, which resumes it."""
        core = self._core
        assert core.host is not None
        core.enter(Phase.RESTING)
        _tell_end(core)  # before the next dispatcher of the run reports its start
        core.host.rests(core)

    def _wake(self) -> None:
        """Record that the run no longer waits."""
        core = self._core
        core.note(core.machine.changed("woken", RunStatus.RUNNING, core.moment()))
        core.enter(Phase.WORKING)

    async def _park(self) -> None:
        """Record that the run waits, and release its slot once that is on disk."""
        core = self._core
        if core.state.status is not RunStatus.WAITING:
            if core.state.questions:
                core.recorder.record("workflow_paused", core.clock.now(), error="input")
            core.note(core.machine.changed("waiting", RunStatus.WAITING, core.moment()))
            if core.journal is not None:
                await core.journal.settle()
        if core.state.status is RunStatus.WAITING and core.control.phase is Phase.WORKING:
            # An event that arrived during the commit has set the status back to running, and an end
            # has changed the phase. A run parked in spite of either would never be woken.
            core.give_slot()
            core.slim()
            core.enter(Phase.PARKED)

    async def _pause(self) -> None:
        """Record that the run is paused."""
        core = self._core
        if core.state.status is not RunStatus.PAUSED:
            core.recorder.record("workflow_paused", core.clock.now(), error="manual")
            core.note(core.machine.changed("paused", RunStatus.PAUSED, core.moment()))
            if core.journal is not None:
                await core.journal.settle()
                # No worker takes a paused run because of its inbox. A sender that posts from now
                # on finds it paused on disk. A message that was posted before is fetched here, or
                # it would lie in the inbox of a run that this process is about to leave.
                with suppress(StoreError):
                    await core.journal.store.poll(())
        if core.control.accepts:  # the input handler may have failed the run during the commit
            core.give_slot()
            core.enter(Phase.PAUSED)

    async def _unpause(self) -> None:
        """Record that the run continues; the caller of `unpause` waits until that is on disk."""
        core = self._core
        moment = core.moment()
        core.recorder.record("workflow_resumed", moment.at)
        core.note(core.machine.changed("unpaused", RunStatus.RUNNING, moment))
        if core.journal is not None:
            await core.journal.settle()
        if core.control.accepts:  # see `_pause`
            core.enter(Phase.WORKING)


class _Now:
    """The situation of a driven run. What `decide` does not look at costs nothing."""

    __slots__ = ("_core",)

    def __init__(self, core: RunCore) -> None:
        self._core = core

    @property
    def in_flight(self) -> bool:
        return self._core.in_flight > 0

    @property
    def deciding(self) -> bool:
        return self._core.deciding > 0

    @property
    def out_of_time(self) -> bool:
        return self._core.work.used_up

    @property
    def ready(self) -> bool:
        return self._core.anything_ready

    @property
    def due(self) -> bool:
        core = self._core
        return bool(core.timers) and core.timers.next <= core.clock.now()

    @property
    def timers(self) -> bool:
        return bool(self._core.timers)

    @property
    def questions(self) -> bool:
        return bool(self._core.state.questions)

    @property
    def asking(self) -> bool:
        return bool(self._core.asking)

    @property
    def unanswered(self) -> bool:
        return bool(unanswered(self._core))

    @property
    def external(self) -> bool:
        return bool(self._core.definition.external)

    @property
    def stored(self) -> bool:
        return self._core.journal is not None

    @property
    def slot(self) -> bool:
        return self._core.host is None or self._core.has_slot

    @property
    def may_rest(self) -> bool:
        host = self._core.host
        return host is not None and host.lets_rest(self._core)


async def _leave(core: RunCore, crash: BaseException | None) -> None:
    """Write what is committed and release the run, even when cancelled; then notify every waiter.

    No deadline is set: neither a commit nor a release can be cancelled, and the store bounds both.
    The order matters. Released before its last commit, the run could be taken by another process,
    which would not find that commit. Notified before the release, a waiter that resumes the run at
    once would be told that a live process drives it. A run whose end is on disk is not released
    here: the commit of the end has released it.
    """
    control, journal = core.control, core.journal
    ended = control.in_ended
    written = journal is None or journal.settled
    if not (ended and control.failure is None and written):
        control.enter(Phase.CLOSING)
    if journal is not None and control.phase is Phase.CLOSING:
        try:
            if control.failure is None:
                await journal.settle()
        except Exception as failure:  # noqa: BLE001
            control.fail(failure)
        try:
            # A run that was lost to another driver is not ours to release.
            if not isinstance(control.failure, StaleRunError) and (
                not ended or control.failure is not None
            ):
                await _give_back(core, journal, crash)
        except Exception as failure:  # noqa: BLE001  # the store owes the release, and keeps trying
            control.fail(failure)
            # If the block is cancelled, this log message is the only report.
            logger.warning(
                "run %r could not be released yet; the store keeps trying: %s",
                core.state.run_id,
                failure,
                extra=about(core.state.run_id, core.state.workflow),
            )
    stop = core.state.stop if control.failure is None else None
    core.broadcast.end(stop)  # type: ignore[arg-type]
    core.enter(Phase.LEFT)


async def _give_back(core: RunCore, journal: Journal, crash: BaseException | None) -> None:
    failure = core.control.failure
    if crash is not None and breaks_out(crash) and _is_exit(crash):
        failure = failure or crash
    # After a failure of the engine, the run on disk may wait for something else than the run in
    # memory. The latter's timer could be too late for it; `wake=None` (at once) is always safe.
    waits = failure is None and core.state.status is RunStatus.WAITING
    hold = told = None
    if failure is not None:
        # The failure may repeat at once. The hold keeps every worker away for a while.
        hold = core.clock.now() + hold_after(core.crashes)
        told = f"{type(failure).__name__}: {text_of(failure)}"
    elif core.foreign_mail:
        # An inbox message makes a worker take a waiting run. One that no worker can read would make
        # them take and release the run in a busy loop.
        hold = core.clock.now() + LONGEST_HOLD
    await journal.store.release(
        journal.driver, wake=core.timers.next if waits else None, hold=hold, crash=told
    )


def _is_exit(error: BaseException) -> bool:
    """Return whether a step ended the program with `SystemExit`, rather than Ctrl-C."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(SystemExit)[0] is not None
    return isinstance(error, SystemExit)
