"""Waiting for the end of a run, whoever drives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._codec.snapshot import Snapshot
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.base import fold
from blazen_trio._surface.outcome import ended_error, result_of
from blazen_trio._surface.undriven import codec_of, open_questions
from blazen_trio.errors import InputRequiredError, RunPausedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blazen_trio._dispatch.dispatcher import Dispatcher
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun
    from blazen_trio._surface.fleet import Fleet
    from blazen_trio._surface.lookout import Lookout
    from blazen_trio._surface.workflow import Workflow

__all__ = ["result_anywhere", "until"]


async def result_anywhere(
    store: CheckpointStore, workflows: Mapping[str, Workflow], fleet: Fleet, lookout: Lookout, run_id: str
) -> Any:
    """See `Runtime.result`."""
    while True:
        dispatcher = fleet.at(run_id) or fleet.driving.get(run_id)
        if dispatcher is not None:
            run = fleet.handle(dispatcher)  # keeps it here
            await until(dispatcher, lambda d: d.detached or _has_no_result(d))
            if (dispatcher.over and dispatcher.failure is None) or _has_no_result(dispatcher):
                return await run.result()
            # It left; whoever takes it up, it goes on from what is stored.
            await trio.lowlevel.checkpoint()
            continue
        info = await store.get_run(run_id)
        if info.status not in (RunStatus.QUEUED, RunStatus.RUNNING):
            stored = await store.load(run_id)
            found = _stored_result(stored, workflows.get(stored.info.workflow))
            if found is not None:
                return found[0]
        await lookout.changed(info)


async def until(dispatcher: Dispatcher, happened: Callable[[Dispatcher], bool]) -> None:
    """Wait until something is so of a run that is driven here."""
    with dispatcher.pinned():
        await trio.lowlevel.checkpoint()
        while not happened(dispatcher):
            await dispatcher.changed.wait()


def _has_no_result(dispatcher: Dispatcher) -> bool:
    """Whether the run is at rest in a way that its result can't be waited for."""
    return dispatcher.paused or (dispatcher.parked and bool(dispatcher.inputs.open_questions()))


def _stored_result(stored: StoredRun, workflow: Workflow | None) -> tuple[Any] | None:
    """The result of a run as it is stored; `None`: it has none yet, and may come to one."""
    state = fold(stored, codec_of(workflow))
    run_id = state.run_id
    if state.status is RunStatus.COMPLETED:
        return (result_of(state.stop),)
    if state.status.ended:
        raise ended_error(state)
    if state.status is RunStatus.PAUSED:
        msg = f"run {run_id!r} is paused: resume_from goes on with it"
        raise RunPausedError(msg, run_id=run_id, snapshot=Snapshot.from_state(state))
    questions = open_questions(state, stored)
    if state.status is RunStatus.WAITING and questions:
        msg = f"run {run_id!r} waits for an answer to {questions[0].prompt!r:.200}"
        raise InputRequiredError(msg, run_id=run_id, requests=questions, snapshot=Snapshot.from_state(state))
    return None
