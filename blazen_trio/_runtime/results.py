"""Waiting for the end of a run, whoever drives it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from blazen_trio._codec.snapshot import Snapshot
from blazen_trio._runtime.remote import codec_of, open_questions
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.base import fold
from blazen_trio._surface.outcome import ended_error, result_of
from blazen_trio.errors import InputRequiredError, RunFinishedError, RunPausedError, StaleRunError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blazen_trio._runtime.poller import Poller
    from blazen_trio._runtime.supervisor import Supervisor
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun
    from blazen_trio._surface.workflow import Workflow

__all__ = ["result_anywhere"]


async def result_anywhere(
    store: CheckpointStore, workflows: Mapping[str, Workflow], supervisor: Supervisor, poller: Poller, run_id: str
) -> Any:
    """See `Runtime.result`."""
    while True:
        core = supervisor.at(run_id) or supervisor.driving.get(run_id)
        if core is not None:
            run = supervisor.handle(core)  # keeps it here
            try:
                return await run.result()
            except (StaleRunError, RunFinishedError):
                # It left, or was lost; whoever takes it up, it goes on from what is stored.
                await supervisor.changes.wait_until(partial(supervisor.is_gone, core))
                continue
        info = await store.get_run(run_id)
        if info.status not in (RunStatus.QUEUED, RunStatus.RUNNING):
            stored = await store.load(run_id)
            found = _stored_result(stored, workflows.get(stored.info.workflow))
            if found is not None:
                return found[0]
        await poller.wait_changed(info)


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
