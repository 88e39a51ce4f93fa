"""What is done to runs that this process does not drive: queued, read, paused, cancelled; or asked of who drives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from blazen_trio._clock import wall_clock
from blazen_trio._codec.codec import ENGINE, PLAIN
from blazen_trio._codec.document import iter_state, large_values
from blazen_trio._codec.entries import decode_history, encode_entry, encode_history
from blazen_trio._definitions.events import Event, InputRequestEvent, InputResponseEvent, StartEvent
from blazen_trio._dispatch.mail import CANCEL, PAUSE, answered_in, pack_reason
from blazen_trio._dispatch.recorder import Recorder
from blazen_trio._dispatch.streams import Broadcast
from blazen_trio._state import undriven
from blazen_trio._state.model import Payload, StoredError
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.base import fold
from blazen_trio._stores.protocol import Commit, NewRun, SnapshotRow
from blazen_trio._surface.arguments import check_id
from blazen_trio._telemetry import hooks
from blazen_trio._telemetry.logs import about, log_record, logger
from blazen_trio.errors import InputResponseError, RunLockedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blazen_trio._codec.codec import Codec
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._state.model import Question, RunState
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun
    from blazen_trio._surface.workflow import Workflow

__all__ = ["ask_or_change", "codec_of", "create_whole", "keep_snapshot", "open_questions", "queue", "the_answer"]


def codec_of(workflow: Workflow | None) -> Codec:
    """What reads and writes the events of its runs; without the workflow, those of its own classes are `DynamicEvent`s."""
    return ENGINE if workflow is None else workflow.codec


async def queue(  # noqa: ASYNC910  # the store suspends
    store: CheckpointStore,
    workflow: Workflow | str,
    input: Any,  # noqa: A002
    run_id: str,
    metadata: Mapping[str, Any],
    connection: Any,
) -> None:
    """Store a run that whoever takes it begins."""
    at = wall_clock().now()
    if isinstance(workflow, str):
        name, version, timeout, codec = workflow, "", None, ENGINE
        event = input if isinstance(input, Event) else StartEvent(input)
    else:
        name, version, timeout, codec = workflow.name, workflow.version, workflow.timeout, workflow.codec
        event = workflow.start_event(input)
    given = codec.encode_value(dict(metadata), "metadata") if metadata else Payload(b"{}")
    trace = None if hooks.listener is None else hooks.listener.submitted()
    entry = undriven.queued(run_id, name, version, event, codec.encode_event(event), given, timeout, at, trace)
    data, blobs = encode_entry(entry)
    first = Commit(run_id, entries=[(1, data)], blobs=blobs, status=RunStatus.QUEUED, at=at, release=True)
    await store.create(NewRun(name, version, at), first, connection=connection)
    logger.info("run %r: submitted", run_id, extra=about(run_id, name))


async def keep_snapshot(store: CheckpointStore, snapshot: Snapshot, run_id: str | None = None) -> str:  # noqa: ASYNC910  # the store suspends
    """Store the run of a snapshot, which nobody drives then: it needs no workflow. Whoever may take a run of its status does.

    Args:
        store: Where to.
        snapshot: The run.
        run_id: Its id there; by default that of the snapshot. Another one makes it another run: the idempotency keys of its
            deliveries are others too.

    Returns:
        Its id.

    Raises:
        RunExistsError: The store has a run of this id.
        ValueError: The snapshot's id, or the name or version of its workflow, is none that can be stored.
    """
    state = snapshot.to_state(PLAIN)
    if run_id is not None:
        state.run_id = run_id
    check_id("run_id", state.run_id)
    check_id("workflow", state.workflow)
    if state.workflow_version:  # a run that was queued by name has none
        check_id("workflow_version", state.workflow_version)
    await create_whole(store, state)
    if state.status is not RunStatus.COMPLETED:
        # And not by what creates it: what it waits for is looked at, once, as soon as it can be.
        with trio.CancelScope(shield=True):
            await store.release(state.run_id)
    return state.run_id


async def create_whole(store: CheckpointStore, state: RunState) -> None:  # noqa: ASYNC910  # the store suspends
    """Store a run as a snapshot has it; this process drives it then, unless it has completed.

    Raises:
        RunExistsError: The store has a run of this id.
    """
    large = large_values(state)
    first = Commit(
        state.run_id,
        snapshot=SnapshotRow(state.seq, b"".join(iter_state(state, inline=False)), frozenset(large)),
        blobs=large,
        history=(state.history[0].sequence, encode_history(state.history)) if state.history else None,
        status=state.status,
        error=None if state.error is None else state.error.message,
        at=state.updated,
        release=state.status is RunStatus.COMPLETED,
    )
    await store.create(NewRun(state.workflow, state.workflow_version, state.created), first)


async def ask_or_change(  # noqa: ASYNC910  # the store suspends
    store: CheckpointStore, run_id: str, status: RunStatus, reason: str | None = None
) -> None:
    """Pause or cancel a run: by whoever drives it, who is asked to; or here, where nobody does."""
    kind = CANCEL if status is RunStatus.CANCELLED else PAUSE
    try:
        stored = await store.claim(run_id)
    except RunLockedError:
        await store.post(run_id, kind, pack_reason(reason))
        return
    try:
        if stored.info.status.ended or stored.info.status is status:
            return
        state, commit = _change(stored, status, reason)
        await store.commit(commit)
        if hooks.listener is not None and status.ended:
            hooks.listener.run_ended(state)
        log_record((run_id, state.workflow), f"workflow_{status.value}", error=reason)
    finally:
        if stored.info.status is not RunStatus.COMPLETED:
            with trio.CancelScope(shield=True):
                await store.release(run_id)  # noqa: ASYNC102


def _change(stored: StoredRun, status: RunStatus, reason: str | None) -> tuple[RunState, Commit]:
    state = fold(stored, PLAIN)
    at = wall_clock().now()
    recorder = Recorder(Broadcast(), history=True, lifecycle=False)
    recorder.load([record for data in stored.history for record in decode_history(data)])
    error = None
    if status is RunStatus.CANCELLED:
        message = f"run {state.run_id!r} was cancelled" + (f": {reason}" if reason else "")
        error = StoredError("RunCancelledError", message, details=() if reason is None else (reason,))
        recorder.record("workflow_cancelled", at, error=reason)
        entry = undriven.changed(state, "cancelled", status, at, error)
    else:
        recorder.record("workflow_paused", at, error="manual")
        entry = undriven.changed(state, "paused", status, at)
    data, blobs = encode_entry(entry)
    records = recorder.take()
    return state, Commit(
        state.run_id,
        entries=[(entry.seq, data)],
        blobs=blobs,
        history=(records[0].sequence, encode_history(records)),
        status=status,
        error=None if error is None else error.message,
        at=at,
        release=status.ended,
    )


def open_questions(state: RunState, stored: StoredRun) -> list[InputRequestEvent]:
    """The open questions of a stored run, oldest first, without those whose answers are on their way."""
    answered = answered_in(stored.inbox)
    return [_as_request(question) for question in state.questions.values() if question.request_id not in answered]


def _as_request(question: Question) -> InputRequestEvent:
    """A question; one of a class that is not at hand as far as its base class tells of it."""
    event = question.event
    if isinstance(event, InputRequestEvent):
        return event
    data: dict[str, Any] = getattr(event, "data", {})
    return InputRequestEvent(data.get("prompt", ""), data.get("metadata", {}), question.request_id)


def the_answer(state: RunState, stored: StoredRun, response: Any) -> InputResponseEvent:
    """The answer to a question of this run.

    Raises:
        InputResponseError: No such question is open.
    """
    questions = open_questions(state, stored)
    ids = [question.request_id for question in questions]
    if not isinstance(response, InputResponseEvent):
        if len(ids) != 1:
            raise InputResponseError(
                f"run {state.run_id!r} has {len(ids)} open questions: say which one is answered, with an "
                "InputResponseEvent that carries its request_id",
                run_id=state.run_id,
                request_id="",
            )
        return InputResponseEvent(ids[0], response)
    if response.request_id not in ids:
        raise InputResponseError(
            f"no question with request_id {response.request_id!r} is open in run {state.run_id!r}: it is unknown or "
            f"answered already; open are {sorted(ids) or 'none'}",
            run_id=state.run_id,
            request_id=response.request_id,
        )
    return response
