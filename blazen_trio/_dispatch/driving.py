"""Drives one run, until it has ended or rests and nobody is left to wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from blazen_trio._dispatch.periods import run_period
from blazen_trio._state.status import RunStatus
from blazen_trio._telemetry import hooks
from blazen_trio.errors import StaleRunError

if TYPE_CHECKING:
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._dispatch.journal import Journal

__all__ = ["drive"]

_FLUSH_SECONDS: Final = 5.0
"""How long a run that is cancelled from outside may take to write what is committed and give its lease back."""

_AFTER_FAILURE: Final = 1.0
"""Seconds for which no worker takes a run that the engine could not go on with."""


async def drive(d: Dispatcher) -> None:
    """Drive the run until it has ended, or rests and nobody is left to wait for (`leaving`).

    Never raises on behalf of the run: `failure` and the run's state tell what happened. What comes out is a
    cancellation from outside, a KeyboardInterrupt or SystemExit out of a step, or a bug.
    """
    if hooks.listener is not None and d.recorder.listener is None:
        d.listened_to(hooks.listener.run(d.state.run_id, d.state.workflow, d.state))
    if d.postbox is not None:
        d.postbox.join(d)
    try:
        if d.journal is not None and d.journal.durability == "async":
            async with trio.open_nursery() as services:
                services.start_soon(_write_behind, d, d.journal)
                try:
                    await _drive_with_inputs(d)
                finally:
                    d.journal.stop_writing_behind()
        elif d.input_handler is not None:
            await _drive_with_inputs(d)
        else:
            await _drive(d)
    finally:
        if not d.at_rest:
            await _leave(d)  # noqa: ASYNC102  # shields itself, for a bounded time
        if d.recorder.listener is not None:
            d.tell_end(d.recorder.listener)
        d.dissolve()


async def _drive_with_inputs(d: Dispatcher) -> None:
    async with trio.open_nursery() as nursery:
        d.input_nursery = nursery
        await _drive(d)
        nursery.cancel_scope.cancel()


async def _write_behind(d: Dispatcher, journal: Journal) -> None:
    try:
        await journal.write_behind()
    except Exception as failure:  # noqa: BLE001  # kept, and raised to whoever asks for the run
        d.crash(failure)


async def _drive(d: Dispatcher) -> None:
    try:
        if d.state.questions and not d.has_asked:
            d.inputs.ask(d.state.questions.values())
        while True:
            # Whatever is decided below is decided without a checkpoint in between.
            await d.may_decide()
            if d.over or d.failure is not None:
                break
            if d.cancel_reason is not None:
                d.endings.cancelled(d.cancel_reason[0])
            elif d.holds:
                if not await d.rests.pause():
                    return
            elif d.draining:
                return
            elif d.anything_ready:
                if d.host is None or d.has_slot:
                    await run_period(d)
                else:
                    await d.host.slots.acquire()
                    d.has_slot = True
            elif not await d.rests.rest():
                return
        if d.failure is None and d.journal is not None:
            await d.journal.settle()
    except Exception as failure:  # noqa: BLE001  # kept, and raised to whoever asks for the run
        d.crash(failure)


async def _leave(d: Dispatcher) -> None:
    """Write what is committed and give the run back, also when cancelled; then tell everybody."""
    d.closing = True
    if d.postbox is not None:
        d.postbox.leave(d)
    if d.journal is not None and not (d.over and d.failure is None and d.journal.settled):
        with trio.CancelScope(shield=True) as shield:
            shield.deadline = trio.current_time() + _FLUSH_SECONDS
            try:
                if d.failure is None:
                    await d.journal.settle()
                # What was lost to another driver is not ours to give back, also where that one is in this process.
                if not isinstance(d.failure, StaleRunError) and (not d.over or d.failure is not None):
                    # Where the engine failed, what is on disk may wait for something else than what is in memory.
                    waits = d.failure is None and d.state.status is RunStatus.WAITING
                    wake = d.timers.due if waits else None
                    # What failed here may fail again at once; others, or a little later we, may do better.
                    hold = None if d.failure is None else d.clock.now() + _AFTER_FAILURE
                    await d.journal.store.release(d.state.run_id, wake=wake, hold=hold)
            except Exception as failure:  # noqa: BLE001
                d.failure = d.failure or failure
    stop = d.state.stop if d.failure is None else None
    d.detached = True
    d.broadcast.end(stop)  # type: ignore[arg-type]
    d.notify()
