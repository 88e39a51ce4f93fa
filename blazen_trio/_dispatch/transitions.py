"""Steps of a transition: apply it in full, write it as the durability requires, act on its effects.

Step tasks do this themselves, in `attempts`, which is the hot path. This module is for all other
transitions, and for wide ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from blazen_trio._codec.entries import encoding_entry
from blazen_trio._dispatch.control import Phase, Stop
from blazen_trio._state.joins import half_collected
from blazen_trio._state.model import StoredError
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from collections.abc import Generator

    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._state.entry import Entry

__all__ = [
    "WIDE",
    "absorb_all",
    "cancel",
    "cancelled_error",
    "complete",
    "completed",
    "end",
    "fail",
    "settle",
    "stall",
    "time_out",
]

WIDE: Final = 512
"""Items that are acted on between two checkpoints."""


async def complete(core: RunCore, entry: Entry) -> None:
    """Apply the rest of a wide transition, and encode it, in slices behind a closed gate.

    The gate closes before the first checkpoint, so no other task decides anything on a state that
    is half applied.
    """
    stored = core.journal is not None and core.journal.keeps_entries
    await core.standstill.hold(_completing(entry, stored=stored))


async def settle(core: RunCore, entry: Entry, kind: str, event_type: str) -> None:
    """Make a transition that is not a step's as durable as required, then act on it.

    A question that it opens is on disk before it is shown, whatever the durability.
    """
    core.recorder.record(kind, entry.at, event_type=event_type)
    core.deciding += 1
    try:
        if entry.rest is not None:
            await complete(core, entry)
        if entry.stop is not None:
            completed(core, entry)
            return
        if core.journal is not None:
            await core.journal.write(entry)
            if core.asks(entry):
                await core.journal.settle()
    finally:
        core.deciding -= 1
    await absorb_all(core, entry) if len(entry.effects) > WIDE else core.absorb(entry.effects)
    core.woken()


async def absorb_all(core: RunCore, entry: Entry) -> None:
    """Act on the effects of a wide transition in slices; see `RunCore.absorb`."""
    for start in range(0, len(entry.effects), WIDE):
        core.absorb(entry.effects[start : start + WIDE])
        await trio.lowlevel.cancel_shielded_checkpoint()


def _completing(entry: Entry, *, stored: bool) -> Generator[None, None, None]:
    assert entry.rest is not None
    yield from entry.rest
    if stored:
        entry.encoded = yield from encoding_entry(entry)


# Ends: each is one transition, after which nothing of the run commits. The dispatcher writes it and
# notifies the waiters.


def end(core: RunCore, entry: Entry, *, by_step: bool = False) -> None:
    """End the run with this transition, and cancel the steps in flight."""
    core.control.enter(Phase.ENDED)
    if core.journal is not None:
        core.journal.record(entry)
    if core.in_flight > by_step:
        core.stop_steps(Stop.ENDED)
    else:
        # No step task but the caller, if it is one, is in flight. It ends by itself, so its scope
        # need not be cancelled.
        core.wake()


def completed(core: RunCore, entry: Entry, *, by_step: bool = False) -> None:
    """End the run as completed: a `StopEvent` has been committed in memory."""
    assert entry.stop is not None
    for kind in core.foreign_mail:
        # The message is deleted with the run's inbox, so the history records its loss.
        text = f"an inbox message of kind {kind!r}, which this version of blazen_trio can't read"
        core.recorder.record("event_rejected", entry.at, error=text)
    core.recorder.record(
        "workflow_completed", entry.at, step=entry.step, event_type=entry.stop.event_type
    )
    end(core, entry, by_step=by_step)


def fail(core: RunCore, error: StoredError, cause: BaseException | None) -> None:
    """End the run as failed. Its pending work stays pending, for a resume."""
    core.cause = cause
    moment = core.moment()
    step = error.step or None
    core.recorder.record("workflow_failed", moment.at, step=step, error=error.message, cause=cause)
    end(core, core.machine.changed("failed", RunStatus.FAILED, moment, error))


def stall(core: RunCore) -> None:
    """End the run as stalled: nothing is left to do, and nothing can arrive."""
    half = half_collected(core.state)
    message = (
        f"run {core.state.run_id!r} stalled: no step is left to run, no event can arrive, "
        "and no step returned a StopEvent"
    )
    if half:
        message += "; incomplete: " + "; ".join(half)
    fail(core, StoredError("RunStalledError", message, details=half), None)


def time_out(core: RunCore) -> None:
    """End the run as timed out: its steps in flight were cancelled, and are named in the error."""
    state, moment = core.state, core.moment()
    active = tuple(sorted(core.interrupted))
    message = f"run {state.run_id!r} took longer than its timeout of {state.timeout:g} s"
    if active:
        message += f"; in flight: {', '.join(active)}"
    error = StoredError("RunTimeoutError", message, details=active)
    core.recorder.record("workflow_timed_out", moment.at, error=message)
    end(core, core.machine.changed("timed_out", RunStatus.TIMED_OUT, moment, error))


def cancel(core: RunCore) -> None:
    """End the run as cancelled, as was requested."""
    assert core.control.cancel_reason is not None
    (reason,) = core.control.cancel_reason
    moment = core.moment()
    core.recorder.record("workflow_cancelled", moment.at, error=reason)
    error = cancelled_error(core.state.run_id, reason)
    end(core, core.machine.changed("cancelled", RunStatus.CANCELLED, moment, error))


def cancelled_error(run_id: str, reason: str | None) -> StoredError:
    """Return the error that is stored for a cancelled run."""
    message = f"run {run_id!r} was cancelled" + (f": {reason}" if reason else "")
    return StoredError("RunCancelledError", message, details=() if reason is None else (reason,))
