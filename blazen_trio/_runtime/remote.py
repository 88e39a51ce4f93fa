"""Operations on runs that this process does not drive.

A run without a driver is changed in the store. A run with one gets an inbox message.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Any, Final

import trio

from blazen_trio._codec.codec import ENGINE, PLAIN
from blazen_trio._codec.entries import encode_entry
from blazen_trio._codec.histories import encode_following
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
from blazen_trio._dispatch.inbox import answered_in, post_answer
from blazen_trio._dispatch.transitions import cancelled_error
from blazen_trio._state import lifecycle
from blazen_trio._state.entry import HistoryRecord
from blazen_trio._state.model import Payload
from blazen_trio._state.routing import answer_to
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.base import create_whole, no_data
from blazen_trio._stores.excerpts import asked_run, claim_end
from blazen_trio._stores.protocol import Commit, NewRun
from blazen_trio._stores.store_rules import check_id
from blazen_trio._surface.run_arguments import new_nonce
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
    from blazen_trio._stores.excerpts import AskedRun, RunEnd
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun
    from blazen_trio._surface.workflow import Workflow

__all__ = [
    "answer_stored",
    "ask_or_change",
    "change_left",
    "codec_of",
    "keep_snapshot",
    "open_questions",
    "queue",
    "take_back_pause",
]

_LEAVES_WITHIN: Final = 5.0
"""Seconds to wait for the driver of a paused run to take its inbox messages, or to leave."""
_LOOK_AGAIN: Final = 0.1
"""Seconds between two looks at such a run."""


def codec_of(workflow: Workflow | None) -> Codec:
    """Return the codec for a workflow's runs.

    Without the workflow, events of its own classes are decoded as `DynamicEvent`s.
    """
    return ENGINE if workflow is None else workflow.codec


async def queue(  # noqa: ASYNC910  # the store suspends
    store: CheckpointStore,
    workflow: Workflow | str,
    input: Any,  # noqa: A002
    run_id: str,
    metadata: Mapping[str, Any],
    connection: Any,
) -> None:
    """Store a queued run, which the worker that takes it starts."""
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
    """Store the run of a snapshot as a run without a driver. No workflow is needed.

    Workers take the run according to its status.

    Args:
        store: The store.
        snapshot: The snapshot.
        run_id: The id of the stored run; by default that of the snapshot. With another id it is
            another run, whose deliveries have other idempotency keys.

    Returns:
        The id of the stored run.

    Raises:
        RunExistsError: The store has a run of this id.
        ValueError: The snapshot's id, or its workflow's name or version, can't be stored.
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
        # Not part of the creation: a release sets `wake` to now, so a worker looks once at what the
        # run waits for.
        await store.release(driver)
    return state.run_id


async def ask_or_change(
    store: CheckpointStore, run_id: str, status: RunStatus, reason: str | None = None
) -> Mail | None:
    """Pause or cancel a run: ask its driver to, or change the stored run if it has none.

    Returns:
        The inbox row that asks the driver; `None` if it is done, or there is nothing to do.
    """
    kind = CANCEL if status is RunStatus.CANCELLED else PAUSE
    end, asked = await _claim_or_ask(store, run_id, kind, pack_reason(reason))
    if end is None:
        return asked
    await _change_claimed(store, end, status, reason)
    return None


async def change_left(store: CheckpointStore, run_id: str, status: RunStatus) -> bool:
    """Pause or cancel a run that was asked to, if it no longer has a driver."""
    try:
        end = await claim_end(store, run_id, _REQUESTS)
    except RunLockedError:
        return False  # noqa: ASYNC910  # the store suspends
    await _change_claimed(store, end, status, None)
    return True


async def _claim_or_ask(
    store: CheckpointStore, run_id: str, kind: str, data: bytes
) -> tuple[RunEnd, None] | tuple[None, Mail | None]:
    """Claim a run that has no driver, or post this message to its driver.

    A driver takes all messages that were posted before the run was paused, and may then leave it.
    No worker takes a paused run. A message that is posted to a run paused by now could therefore
    stay in the inbox for ever. If the driver does not take it, the run is claimed once the driver
    has left.
    """
    try:
        return await claim_end(store, run_id, _REQUESTS), None
    except RunLockedError:
        asked = await store.post(run_id, kind, data)
    if kind != PAUSE:
        # Shielded: the message is posted, and `Cancelled` would say that it is not.
        with trio.move_on_after(_LEAVES_WITHIN, shield=True):
            while (await store.get_run(run_id)).status is RunStatus.PAUSED:
                with contextlib.suppress(RunLockedError):
                    return await claim_end(store, run_id, _REQUESTS), None
                await trio.sleep(_LOOK_AGAIN)
    return None, asked


async def _change_claimed(  # noqa: ASYNC910  # without a claim, there is nothing to wait for
    store: CheckpointStore, end: RunEnd, status: RunStatus, reason: str | None
) -> None:
    """Pause, unpause or cancel a run that was claimed for it. Neither call can be cancelled."""
    driver, info = end.driver, end.info
    if driver is None:
        return  # noqa: ASYNC910
    try:
        if not (info.status.ended or info.status is status):
            commit = _change(end, status, reason, store.clock().now())
            await store.commit(driver, commit)
            if hooks.listener is not None and status.ended:
                seconds = commit.at - info.created.timestamp()
                hooks.listener.run_ended(info.workflow, status, seconds)
            log_record((driver.run_id, info.workflow), _KINDS[status], error=reason)
    finally:
        await store.release(driver)  # noqa: ASYNC102


_KINDS = {
    RunStatus.PAUSED: "workflow_paused",
    RunStatus.RUNNING: "workflow_resumed",
    RunStatus.CANCELLED: "workflow_cancelled",
}
"""The kinds of history records for a change to each status."""
_ENTRIES = {
    RunStatus.PAUSED: "paused",
    RunStatus.RUNNING: "unpaused",
    RunStatus.CANCELLED: "cancelled",
}
_REQUESTS: Final = (CANCEL, PAUSE, RECALL)
_DONE_BY: Final = {
    RunStatus.PAUSED: (PAUSE,),
    RunStatus.RUNNING: (PAUSE, RECALL),
    RunStatus.CANCELLED: _REQUESTS,
}


def _change(end: RunEnd, status: RunStatus, reason: str | None, at: float) -> Commit:
    """Return the commit that changes a run's status. The rest of its data need not be known."""
    run_id, kind = end.info.run_id, _KINDS[status]
    if end.last is None:
        raise no_data(run_id)
    error = cancelled_error(run_id, reason) if status is RunStatus.CANCELLED else None
    entry = lifecycle.changed(end.last + 1, _ENTRIES[status], status, at, error)
    data, blobs = encode_entry(entry)
    told = "manual" if status is RunStatus.PAUSED else reason
    record = HistoryRecord(end.records, dt.datetime.fromtimestamp(at, dt.UTC), kind, error=told)
    return Commit(
        run_id,
        entries=[(entry.seq, data)],
        blobs=blobs,
        history=(end.records, encode_following(record)),
        status=status,
        error=None if error is None else error.message,
        # Requests that this change fulfils. If they stayed, a resume would act on them again.
        taken=[id_ for id_, request in end.requests.items() if request in _DONE_BY[status]],
        at=at,
        release=status.ended,
    )


async def take_back_pause(store: CheckpointStore, run_id: str, pause: Mail) -> None:
    """Withdraw a pause that was requested by an inbox row, whether or not the run is paused by now.

    The run's driver gives up the hold of that row. If the run has no driver, it is unpaused in the
    store.
    """
    end, _ = await _claim_or_ask(store, run_id, RECALL, pack_recall(pause.id))
    if end is None:
        return
    if end.info.status is RunStatus.PAUSED:
        await _change_claimed(store, end, RunStatus.RUNNING, None)
    elif end.driver is not None:
        # The driver has left without taking the pause. The next driver gets both messages.
        await store.release(end.driver)
        if not end.info.status.ended:
            await store.post(run_id, RECALL, pack_recall(pause.id))


def open_questions(state: RunState, stored: StoredRun) -> list[InputRequestEvent]:
    """Return the open questions of a stored run, oldest first, without those already answered."""
    answered = answered_in(stored.inbox)
    return [
        _as_request(question)
        for question in state.questions.values()
        if question.request_id not in answered
    ]


def _as_request(question: Question) -> InputRequestEvent:
    """Return a question's event; if its class is unknown, only the fields of the base class."""
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
    """Answer a question of a run that this process does not drive. Of two answers, one is taken.

    Args:
        store: The store of the run.
        run_id: The run's id.
        workflows: The known workflows, by name.
        response: The answer.
        key: The sender's idempotency key.
        connection: A connection of the caller's, whose transaction the answer becomes part of.

    Returns:
        `False` if `key` was used before, so the answer was not taken; else `True`.

    Raises:
        RunFinishedError: The run has ended.
        InputResponseError: No such question is open.
        NoHandlerError: The workflow is known, and no step of it accepts the answer.
    """
    given = {} if connection is None else {"connection": connection}
    number = 0
    while True:
        run = await _look_for(store, run_id, response, given, closely=number > 0)
        workflow = workflows.get(run.info.workflow)
        refused: WorkflowError | None = None
        try:
            answer = _answer_to(run, response)
        except (RunFinishedError, InputResponseError) as refusal:
            refused = refusal
        if refused is not None:
            if key is not None and await store.has_key(run_id, key, **given):
                return False
            raise refused
        if workflow is not None and not workflow.accepts(type(answer)):
            raise no_handler(workflow, answer, run_id)
        data = pack_event(codec_of(workflow), answer)
        name = answer_key(run.asked[answer.request_id], number)
        if connection is None or not await store.has_key(run_id, name, **given):
            heard = await post_answer(store, run_id, data, name, key, connection)
            if heard is not None:
                return heard
            if connection is not None:
                # The transaction may never see that answer: it may read a snapshot from its start.
                raise _answered_elsewhere(run_id, answer.request_id)
        # Another answer has this name. If it is still in the inbox, or was taken, `_answer_to`
        # raises in the next round. Otherwise it was rejected, and the question needs another one.
        response = answer
        number += 1


async def _look_for(
    store: CheckpointStore,
    run_id: str,
    response: Any,
    given: Mapping[str, Any],
    *,
    closely: bool,
) -> AskedRun:
    """Return the question that a response names, or all open questions and the run's inbox.

    Only a refusal, a plain value and an answer that is not the first one (`closely`) need the other
    questions, and the answers in the inbox.
    """
    named = response.request_id if isinstance(response, InputResponseEvent) else None
    if isinstance(named, str) and not closely:
        run = await asked_run(store, run_id, named, **given)
        if named in run.asked or run.info.status.ended:
            return run
    return await asked_run(store, run_id, **given)


def _answered_elsewhere(run_id: str, request_id: str) -> InputResponseError:
    msg = (
        f"the question {request_id!r:.200} of run {run_id!r} was answered at the same moment by "
        "another sender: roll back, and look again in a new transaction"
    )
    return InputResponseError(msg, run_id=run_id, request_id=request_id)


def _answer_to(run: AskedRun, response: Any) -> InputResponseEvent:
    run_id, status = run.info.run_id, run.info.status
    if status.ended:
        raise RunFinishedError.ended(run_id, status, "it can't be answered")
    return answer_to(run_id, run.asked, response, answered_in(run.inbox))
