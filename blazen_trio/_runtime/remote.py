"""What is done to runs that this process does not drive: queued, read, paused, cancelled; or asked of who drives them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import trio

from blazen_trio._codec.codec import ENGINE, PLAIN
from blazen_trio._codec.entries import encode_entry
from blazen_trio._codec.histories import decode_history
from blazen_trio._codec.messages import (
    CANCEL,
    PAUSE,
    RECALL,
    answer_key,
    pack_event,
    pack_reason,
    pack_recall,
)
from blazen_trio._definitions.definition import no_handler
from blazen_trio._definitions.events import Event, InputRequestEvent, InputResponseEvent, StartEvent
from blazen_trio._dispatch.driving import cancelled_error
from blazen_trio._dispatch.inbox import answered_in, post_answer
from blazen_trio._dispatch.observers import Broadcast, Recorder
from blazen_trio._state import lifecycle
from blazen_trio._state.model import Payload
from blazen_trio._state.routing import answer_to
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.base import fold
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._surface.creating import create_whole
from blazen_trio._surface.run_arguments import check_id, new_nonce
from blazen_trio._telemetry import hooks
from blazen_trio._telemetry.logs import about, log_record, logger
from blazen_trio.errors import (
    InputResponseError,
    RunFinishedError,
    RunLockedError,
    WorkflowError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blazen_trio._codec.codec import Codec
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._state.model import Question, RunState
    from blazen_trio._stores.driver import Mail
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun
    from blazen_trio._surface.workflow import Workflow

__all__ = [
    "answer_stored",
    "ask_or_change",
    "codec_of",
    "keep_snapshot",
    "open_questions",
    "queue",
    "take_back_pause",
]

_LEAVES_WITHIN: Final = 5.0
"""Seconds for which we wait for the driver of a paused run to take its mail, or to leave."""
_LOOK_AGAIN: Final = 0.1
"""Seconds between two looks at that."""


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
    at = store.clock().now()
    if isinstance(workflow, str):
        name, version, timeout, codec = workflow, "", None, ENGINE
        event = input if isinstance(input, Event) else StartEvent(input)
    else:
        name, version, timeout, codec = (
            workflow.name,
            workflow.version,
            workflow.timeout,
            workflow.codec,
        )
        event = workflow.start_event(input)
    given = codec.encode_value(dict(metadata), "metadata") if metadata else Payload(b"{}")
    trace = None if hooks.listener is None else hooks.listener.submitted()
    payload, nonce = codec.encode_event(event), new_nonce()
    entry = lifecycle.queued(
        run_id, name, version, event, payload, given, timeout, at, trace, nonce
    )
    data, blobs = encode_entry(entry)
    first = Commit(
        run_id, entries=[(1, data)], blobs=blobs, status=RunStatus.QUEUED, at=at, release=True
    )
    await store.create(NewRun(name, version, at), first, connection=connection)
    logger.info("run %r: submitted", run_id, extra=about(run_id, name))


async def keep_snapshot(
    store: CheckpointStore, snapshot: Snapshot, run_id: str | None = None
) -> str:  # noqa: ASYNC910  # the store suspends
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
    driver = await create_whole(store, state)
    if driver is not None:
        # And not by what creates it: what it waits for is looked at, once, as soon as it can be.
        await store.release(driver)
    return state.run_id


async def ask_or_change(
    store: CheckpointStore, run_id: str, status: RunStatus, reason: str | None = None
) -> Mail | None:
    """Pause or cancel a run: by whoever drives it, who is asked to; or here, where nobody does.

    Returns:
        The row by which its driver is asked; `None`: it is done, or there is nothing to do.
    """
    kind = CANCEL if status is RunStatus.CANCELLED else PAUSE
    stored, asked = await _claim_or_ask(store, run_id, kind, pack_reason(reason))
    if stored is None:
        return asked
    await _change_claimed(store, stored, status, reason)
    return None


async def _claim_or_ask(
    store: CheckpointStore, run_id: str, kind: str, data: bytes
) -> tuple[StoredRun, None] | tuple[None, Mail | None]:
    """Claim a run that nobody drives, or post this to who does.

    A driver takes all that was posted before the run was paused, and may then leave it; nobody
    takes a paused run up by himself. So what is posted to one that is paused by now could lie there
    for ever: where its driver does not take it, the run is claimed once that one has left.
    """
    try:
        return await store.claim(run_id), None
    except RunLockedError:
        asked = await store.post(run_id, kind, data)
    if kind != PAUSE:
        # It was asked for; Cancelled would say that it was not.
        with trio.move_on_after(_LEAVES_WITHIN, shield=True):
            while (await store.get_run(run_id)).status is RunStatus.PAUSED:
                with contextlib.suppress(RunLockedError):
                    return await store.claim(run_id), None
                await trio.sleep(_LOOK_AGAIN)
    return None, asked


async def _change_claimed(  # noqa: ASYNC910  # there is nothing to wait for where it was not claimed
    store: CheckpointStore, stored: StoredRun, status: RunStatus, reason: str | None
) -> None:
    """Pause, unpause or cancel a run that this process has claimed for that. Neither commit nor release can be cancelled."""
    driver = stored.driver
    if driver is None:
        return  # noqa: ASYNC910
    try:
        if not (stored.info.status.ended or stored.info.status is status):
            state, commit = _change(store, stored, status, reason)
            await store.commit(driver, commit)
            if hooks.listener is not None and status.ended:
                hooks.listener.run_ended(state)
            log_record((driver.run_id, state.workflow), _KINDS[status], error=reason)
    finally:
        await store.release(driver)  # noqa: ASYNC102


_KINDS = {
    RunStatus.PAUSED: "workflow_paused",
    RunStatus.RUNNING: "workflow_resumed",
    RunStatus.CANCELLED: "workflow_cancelled",
}
"""What the history calls a run's becoming so."""
_ENTRIES = {
    RunStatus.PAUSED: "paused",
    RunStatus.RUNNING: "unpaused",
    RunStatus.CANCELLED: "cancelled",
}
_DONE_BY: Final = {
    RunStatus.PAUSED: (PAUSE,),
    RunStatus.RUNNING: (PAUSE, RECALL),
    RunStatus.CANCELLED: (CANCEL, PAUSE, RECALL),
}


def _change(
    store: CheckpointStore, stored: StoredRun, status: RunStatus, reason: str | None
) -> tuple[RunState, Commit]:
    state = fold(stored, PLAIN)
    at = store.clock().now()
    recorder = Recorder(Broadcast(), history=True, lifecycle=False, stored=True)
    assert recorder.unwritten is not None
    recorder.load([record for data in stored.history[-1:] for record in decode_history(data)])
    recorder.record(_KINDS[status], at, error="manual" if status is RunStatus.PAUSED else reason)
    error = cancelled_error(state.run_id, reason) if status is RunStatus.CANCELLED else None
    entry = lifecycle.changed(state, _ENTRIES[status], status, at, error)
    data, blobs = encode_entry(entry)
    return state, Commit(
        state.run_id,
        entries=[(entry.seq, data)],
        blobs=blobs,
        history=recorder.unwritten.take(),
        status=status,
        error=None if error is None else error.message,
        # What others had asked of its driver is done by this; left, it would be done at a resume.
        taken=[mail.id for mail in stored.inbox if mail.kind in _DONE_BY[status]],
        at=at,
        release=status.ended,
    )


async def take_back_pause(store: CheckpointStore, run_id: str, pause: Mail) -> None:
    """Let a run go on whose pause was asked for, and is not wanted any more; whether or not it was paused by now.

    Its driver lets go of what this row asked for. Where nobody drives it any more, it was paused, and is unpaused here.
    """
    stored, _ = await _claim_or_ask(store, run_id, RECALL, pack_recall(pause.id))
    if stored is None:
        return
    if stored.info.status is RunStatus.PAUSED:
        await _change_claimed(store, stored, RunStatus.RUNNING, None)
    elif stored.driver is not None:
        # Its driver left without having taken it: whoever takes it up next is told.
        await store.release(stored.driver)
        if not stored.info.status.ended:
            await store.post(run_id, RECALL, pack_recall(pause.id))


def open_questions(state: RunState, stored: StoredRun) -> list[InputRequestEvent]:
    """The open questions of a stored run, oldest first, without those whose answers are on their way."""
    answered = answered_in(stored.inbox)
    return [
        _as_request(question)
        for question in state.questions.values()
        if question.request_id not in answered
    ]


def _as_request(question: Question) -> InputRequestEvent:
    """A question; one of a class that is not at hand as far as its base class tells of it."""
    event = question.event
    if isinstance(event, InputRequestEvent):
        return event
    data: dict[str, Any] = getattr(event, "data", {})
    return InputRequestEvent(data.get("prompt", ""), data.get("metadata", {}), question.request_id)


async def answer_stored(
    store: CheckpointStore,
    run_id: str,
    workflows: Mapping[str, Workflow],
    response: Any,
    key: str | None = None,
    connection: Any = None,
) -> bool:
    """Answer a question of a run that somebody else drives, or nobody. Of two answers to one
    question, from whatever processes, the store takes one.

    Args:
        store: Where the run is.
        run_id: The run.
        workflows: Those at hand, by name.
        response: The answer.
        key: What its sender has named it.
        connection: In a transaction of the caller's, which it becomes a part of.

    Returns:
        Whether it was taken: not so where its `key` was used before.

    Raises:
        RunFinishedError: The run has ended.
        InputResponseError: No such question is open.
        NoHandlerError: No step of the workflow, where it is at hand, accepts the answer.
    """
    given = {} if connection is None else {"connection": connection}
    number = 0
    while True:
        stored = await store.load(run_id, **given)
        workflow = workflows.get(stored.info.workflow)
        refused: WorkflowError | None = None
        try:
            state, answer = _answer_to(stored, codec_of(workflow), response)
        except (RunFinishedError, InputResponseError) as refusal:
            refused = refusal
        if refused is not None:
            if key is not None and await store.has_key(run_id, key, **given):
                return False
            raise refused
        if workflow is not None and not workflow.accepts(type(answer)):
            raise no_handler(workflow, answer, run_id)
        data = pack_event(codec_of(workflow), answer)
        name = answer_key(state.questions[answer.request_id].id, number)
        if connection is not None and await store.has_key(run_id, name, **given):
            number += 1  # it could not be taken, if the question is open still
            continue
        heard = await post_answer(store, run_id, data, name, key, connection)
        if heard is not None:
            return heard
        if connection is not None:
            # The transaction may never see it: it may read as of when it has begun.
            raise _answered_elsewhere(run_id, answer.request_id)
        # There was an answer before this one. Where it still lies in the inbox, or was taken, we
        # are told so above; else it could not be taken, and the question waits for another one.
        response = answer
        number += 1


def _answered_elsewhere(run_id: str, request_id: str) -> InputResponseError:
    msg = (
        f"the question {request_id!r:.200} of run {run_id!r} was answered already, by somebody else "
        "at the same moment: roll back, and look again in a new transaction"
    )
    return InputResponseError(msg, run_id=run_id, request_id=request_id)


def _answer_to(
    stored: StoredRun, codec: Codec, response: Any
) -> tuple[RunState, InputResponseEvent]:
    if stored.info.status.ended:
        run_id, status = stored.info.run_id, stored.info.status
        msg = f"run {run_id!r} has ended ({status.value}): it can't be answered"
        raise RunFinishedError(msg, run_id=run_id, status=status)
    state = fold(stored, codec)
    return state, answer_to(state, response, answered_in(stored.inbox))
