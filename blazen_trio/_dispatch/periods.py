"""The periods of a run: from a nursery's beginning to the end of its last worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from blazen_trio._dispatch.dispatcher import Dispatcher

__all__ = ["attend", "has_to_attend", "run_period", "signal_or_timer", "take_due"]

_DUE_PER_TURN: Final = 32
"""Due events routed between two checkpoints."""


async def run_period(d: Dispatcher) -> None:
    """Run steps until none is ready or in flight."""
    began = trio.current_time()
    try:
        async with trio.open_nursery() as nursery:
            d.nursery, d.scope = nursery, nursery.cancel_scope
            if d.state.timeout is not None:
                nursery.cancel_scope.deadline = began + max(0.0, d.state.timeout - d.elapsed)
            d.period_began = began
            d.workers.start()
            if has_to_attend(d):
                d.attending = True
                await attend(d)
    finally:
        d.scope = d.nursery = None
    now = trio.current_time()
    d.elapsed += now - began
    d.period_began = None
    await d.may_decide()
    spent = nursery.cancel_scope.cancelled_caught and now >= nursery.cancel_scope.deadline
    # Also where it was to be paused, or drained: it would go on without any time left.
    if spent and not (d.over or d.failure is not None or d.cancel_reason is not None):
        d.endings.timed_out()


def has_to_attend(d: Dispatcher) -> bool:
    """Whether there is more to a period than its workers: something may become due, or mail has to be looked for."""
    return bool(d.timers) or (d.postbox is not None and d.postbox.next_look(d) < float("inf"))


async def attend(d: Dispatcher) -> None:
    """While workers are at it: start more for what becomes ready, and route what becomes due."""
    try:
        while d.workers.count or (d.anything_ready and not d.workers.halted):
            await signal_or_timer(d)
            await take_due(d)
            d.workers.recruit()
    except Exception as failure:  # noqa: BLE001  # kept, and raised to whoever asks for the run
        d.crash(failure)
    finally:
        d.attending = False


async def signal_or_timer(d: Dispatcher) -> None:
    # What becomes due while no step may start is taken later: its time is past, so waiting for it would spin.
    due = d.timers.next if not d.workers.halted else float("inf")
    if d.postbox is not None and (look := d.postbox.next_look(d)) < due:
        with trio.move_on_at(look) as scope:
            await d.signalled()
        if scope.cancelled_caught and d.journal is not None:
            await d.postbox.look(d.journal.store)
    elif due < float("inf"):
        with trio.move_on_at(due):
            await d.signalled()
    else:
        await d.signalled()


async def take_due(d: Dispatcher) -> None:
    """Route the delayed events that are due, and let due retries run."""
    now = trio.current_time()
    taken = 0
    while d.timers.next <= now:
        taken += 1
        if taken % _DUE_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        await d.may_decide()
        if d.workers.halted:
            return
        id_ = d.timers.pop()
        if (delayed := d.state.delayed.get(id_)) is not None:
            await d.settle(d.machine.due(delayed, d.moment()), "event_received", delayed.event.event_type)
        elif (delivery := d.state.deliveries.get(id_)) is not None:
            d.ready.extend((delivery,))
