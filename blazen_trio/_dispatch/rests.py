"""The rests of a run between its periods: paused, or waiting for what may come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from blazen_trio._dispatch.periods import signal_or_timer, take_due
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._state.entry import Entry

__all__ = ["Rests"]


class Rests:
    """What one run does while no step can run."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._d = dispatcher

    async def pause(self) -> bool:
        """Stay paused until unpaused or cancelled. False: nobody is left who could."""
        d = self._d
        if d.state.status is not RunStatus.PAUSED:
            d.recorder.record("workflow_paused", d.clock.now(), error="manual")
            await self._change("paused", RunStatus.PAUSED)
        d.rest_began = trio.current_time()
        d.paused = True
        d.pauses += 1
        d.give_slot()
        d.notify()
        try:
            while d.holds and d.cancel_reason is None and not d.over:
                if d.leaving or d.dismissed or d.draining or d.failure is not None:
                    return False
                await signal_or_timer(d)
        finally:
            d.paused = False
        return True

    async def rest(self) -> bool:
        """Nothing is ready: wait for what may come. False: nobody is left to wait for."""
        d = self._d
        state = d.state
        waiting = len(d.timers)
        if len(state.deliveries) + len(state.delayed) > waiting:
            # Something is decided and on its way to the disk, and will be ready then.
            await d.signalled()
            return True
        if d.timers.next <= trio.current_time():
            # It became due while nobody drove the run: there is nothing to wait for.
            await self._wake_up()
            return True
        if not waiting and not state.questions and not d.definition.external:
            d.endings.stalled()
            return True
        if not d.asking or not state.questions:
            if state.status is not RunStatus.WAITING:
                if state.questions:
                    d.recorder.record("workflow_paused", d.clock.now(), error="input")
                await self._change("waiting", RunStatus.WAITING)
            if not self._idle():
                return True
            d.rest_began = trio.current_time()
            d.parked = True
            d.give_slot()
            d.slim()
            d.notify()
            if d.dismissed:
                return False
            if d.host is not None and d.host.lets_rest(d):
                d.at_rest = True
                return False
            if d.leaving and d.inputs.open_questions():
                return False
            if d.leaving and not waiting and not state.questions:
                # What it waits for has to be sent in, and whoever held the run here is gone.
                if d.journal is None:
                    d.endings.stalled()
                    return True
                if d.abandoned:
                    return False
        try:
            await signal_or_timer(d)
        finally:
            d.parked = False
        await self._wake_up()
        return True

    async def _wake_up(self) -> None:
        """Take what is due; if steps are to run by it, the run waits no more."""
        d = self._d
        await take_due(d)
        await d.may_decide()
        if d.anything_ready and d.state.status is RunStatus.WAITING:
            self._note(d.machine.changed("woken", RunStatus.RUNNING, d.moment()))

    def _idle(self) -> bool:
        d = self._d
        return not (d.over or d.holds or d.draining or d.cancel_reason or d.failure or d.anything_ready)

    async def _change(self, kind: str, status: RunStatus) -> None:
        d = self._d
        self._note(d.machine.changed(kind, status, d.moment()))
        if d.journal is not None:
            await d.journal.settle()

    def _note(self, entry: Entry) -> None:
        d = self._d
        if d.journal is not None:
            d.journal.record(entry)

    async def unpause(self) -> None:
        """Let a paused run go on. Not cancellable."""
        d = self._d
        await d.standstill.opened()
        d.paused = False
        d.holds = 0
        d.unpauses += 1
        if d.state.status is RunStatus.PAUSED:
            moment = d.moment()
            d.recorder.record("workflow_resumed", moment.at)
            self._note(d.machine.changed("unpaused", RunStatus.RUNNING, moment))
        d.wake()
        d.notify()
