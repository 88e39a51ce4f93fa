"""Cancellation, pause and result of a run that this or any other process drives, or none."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from blazen_trio._codec.snapshot import Snapshot
from blazen_trio._concurrency import in_slices
from blazen_trio._runtime import remote
from blazen_trio._runtime.remote import codec_of, open_questions
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.base import folding
from blazen_trio._surface.outcome import ended_error, engine_error, result_of
from blazen_trio.errors import (
    InputRequiredError,
    RunCrashedError,
    RunFinishedError,
    RunPausedError,
    StaleRunError,
    WorkflowError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._runtime.poller import Poller
    from blazen_trio._runtime.supervisor import Supervisor
    from blazen_trio._stores.driver import Mail
    from blazen_trio._stores.protocol import CheckpointStore, RunInfo, StoredRun
    from blazen_trio._surface.workflow import Workflow

__all__ = ["cancel_anywhere", "pause_elsewhere", "result_anywhere"]

_LEAVES_WITHIN: Final = 5.0
"""Seconds without a change after which `pause_elsewhere` checks that the run still has a driver."""


async def result_anywhere(
    store: CheckpointStore,
    workflows: Mapping[str, Workflow],
    supervisor: Supervisor,
    poller: Poller,
    run_id: str,
) -> Any:
    """See `Runtime.result`."""
    while True:
        core = supervisor.at(run_id) or supervisor.driving.get(run_id)
        if core is not None:
            run = supervisor.handle(core)  # keeps the run in this process
            try:
                return await run.result()
            except (StaleRunError, RunFinishedError):
                # The run was left or lost. Wait until this process is done with it, then look at
                # the store again: any process may continue it, this one included.
                await supervisor.changes.wait_until(partial(supervisor.is_gone, core))
                continue
        info = await store.get_run(run_id)
        if info.status not in (RunStatus.QUEUED, RunStatus.RUNNING):
            stored = await store.load(run_id)
            found = await _stored_result(stored, workflows.get(stored.info.workflow))
            if found is not None:
                return found[0]
        await poller.wait_changed(info)


async def _stored_result(stored: StoredRun, workflow: Workflow | None) -> tuple[Any] | None:
    """Return the stored result of a run in a tuple; `None` if it has none yet, and may get one.

    Raises:
        WorkflowError: The run has ended without a result, is paused, or waits for an answer.
    """
    state = await in_slices(folding(stored, codec_of(workflow)), cancellable=True)
    run_id = state.run_id
    if state.status is RunStatus.COMPLETED:
        return (result_of(state.stop),)
    if state.status.ended:
        raise ended_error(state)
    if stored.info.status.ended:
        # Only the row says so: the process that set the run aside could not read its state.
        raise RunCrashedError.set_aside(run_id, stored.info.error or "unknown", stored.crashes)
    if state.status is RunStatus.PAUSED:
        snapshot = await in_slices(Snapshot.making(state), cancellable=True)
        raise RunPausedError.paused(run_id, snapshot, "resume_from continues it")
    questions = open_questions(state, stored)
    if state.status is RunStatus.WAITING and questions:
        snapshot = await in_slices(Snapshot.making(state), cancellable=True)
        raise InputRequiredError.waiting(run_id, questions, snapshot)
    return None


async def cancel_anywhere(
    store: CheckpointStore, supervisor: Supervisor, run_id: str, reason: str | None
) -> None:
    """See `Runtime.cancel`."""
    while (core := supervisor.at(run_id) or supervisor.driving.get(run_id)) is not None:
        core.cancel(reason)
        # A run that was leaving may go without having been cancelled; it is then cancelled below.
        # Shielded: the request is made and can't be taken back, so `Cancelled` would be wrong. A
        # cancelled step ends soon, unless it shields itself.
        with trio.CancelScope(shield=True):
            await core.changes.wait_until(partial(_has_gone, core))
        failure = core.control.failure
        if core.state.status.ended and failure is None:
            return
        if failure is not None and not isinstance(failure, StaleRunError):
            raise engine_error(failure, run_id)
        await supervisor.changes.wait_until(partial(supervisor.is_gone, core))
    if not (await store.get_run(run_id)).status.ended:
        with contextlib.suppress(RunFinishedError):
            await remote.ask_or_change(store, run_id, RunStatus.CANCELLED, reason)


def _has_gone(core: RunCore) -> bool:
    return core.control.gone


async def pause_elsewhere(
    store: CheckpointStore, workflows: Mapping[str, Workflow], poller: Poller, run_id: str
) -> Snapshot:
    """Pause a run that this process does not drive; see `Runtime.pause`."""
    asked: Mail | None = None
    before: RunInfo | None = None
    try:
        while True:
            info = await store.get_run(run_id)
            if info.status in _PAUSED_OR_ENDED:
                return await _paused_snapshot(store, workflows, info)
            if asked is None:
                asked = await remote.ask_or_change(store, run_id, RunStatus.PAUSED)
            elif info == before and await remote.change_left(store, run_id, RunStatus.PAUSED):
                # The driver has left or died without taking the request. If no process serves the
                # workflow, no other driver would ever take it.
                asked = None
            if asked is not None:
                before = info
                with trio.move_on_after(_LEAVES_WITHIN):
                    await poller.wait_changed(info)
            else:
                # No process drives the run, and it is paused now. `Cancelled` between this point
                # and the return would say that it is not.
                with trio.CancelScope(shield=True):
                    info = await store.get_run(run_id)
                    if info.status in _PAUSED_OR_ENDED:
                        return await _paused_snapshot(store, workflows, info)
    except trio.Cancelled:
        if asked is not None:
            # `Cancelled` promises that the call had no effect, so the pause is withdrawn.
            with trio.CancelScope(shield=True), contextlib.suppress(WorkflowError):
                await remote.take_back_pause(store, run_id, asked)
        raise


_PAUSED_OR_ENDED = frozenset(
    status for status in RunStatus if status.ended or status is RunStatus.PAUSED
)


async def _paused_snapshot(
    store: CheckpointStore, workflows: Mapping[str, Workflow], info: RunInfo
) -> Snapshot:
    if info.status.ended:
        raise RunFinishedError.ended(info.run_id, info.status, "it can't be paused")
    stored = await store.load(info.run_id)
    codec = codec_of(workflows.get(info.workflow))
    state = await in_slices(folding(stored, codec), cancellable=True)
    return await in_slices(Snapshot.making(state), cancellable=True)
