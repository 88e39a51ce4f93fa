"""A run's inbox, and the questions that are answered through it.

The store hands each inbox message once to the driver of the run. The dispatcher takes the messages
in the order of their arrival, a few per turn of the loop, so a flood of them delays neither the
run's own steps nor other runs. Each is taken by a transition of its own, which deletes its row in
the same transaction. A message of a kind that this version does not know stays in the inbox, for a
later version.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from blazen_trio._codec.messages import (
    CANCEL,
    EVENT,
    LETTER,
    PAUSE,
    RECALL,
    answer_key,
    answered_by,
    pack_event,
    reason_in,
    recalled_by,
    unpack_event,
)
from blazen_trio._definitions.events import Delayed, InputRequestEvent, InputResponseEvent
from blazen_trio._dispatch.calls import breaks_out
from blazen_trio._dispatch.control import Leave, Phase
from blazen_trio._dispatch.transitions import WIDE, absorb_all, complete, fail, settle
from blazen_trio._state.model import StoredError
from blazen_trio._state.routing import question_of
from blazen_trio._state.safe_text import text_of, traceback_of
from blazen_trio._stores.driver import KeyUsedError
from blazen_trio._stores.excerpts import asked_run
from blazen_trio._telemetry.logs import about, logger
from blazen_trio.errors import (
    InputResponseError,
    NoHandlerError,
    RunFinishedError,
    SerializationError,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from blazen_trio._dispatch.core import RunCore
    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import Question
    from blazen_trio._stores.driver import Mail
    from blazen_trio._stores.protocol import CheckpointStore

__all__ = [
    "answer",
    "answered_in",
    "ask",
    "nobody_has_answered",
    "post_answer",
    "take_some",
    "take_up",
    "unanswered",
]


_ROWS_PER_TURN: Final = 32
_BYTES_PER_TURN: Final = 2**18
"""Rows, and about this many bytes of them, that are taken between two checkpoints and committed
together."""


async def post_answer(  # noqa: ASYNC910  # the store suspends
    store: CheckpointStore,
    run_id: str,
    data: bytes,
    name: str,
    key: str | None,
    connection: Any = None,
) -> bool | None:
    """Post an answer to a run's inbox.

    Args:
        store: The store of the run.
        run_id: The run's id.
        data: The answer, packed.
        name: The key that only one answer to a question can have (`answer_key`).
        key: The sender's own idempotency key.
        connection: See `CheckpointStore.post`.

    Returns:
        `True` if the answer was posted; `False` if the sender's key was used before; `None` if
        another answer has this name.
    """
    given = {} if connection is None else {"connection": connection}
    if key is None:
        posted = await store.post(run_id, EVENT, data, key=name, **given)
        return None if posted is None else True
    try:
        posted = await store.post(run_id, EVENT, data, key=key, second_key=name, **given)
    except KeyUsedError:
        return None
    return posted is not None


def answered_in(inbox: Iterable[Mail]) -> set[str]:
    """Return the ids of the questions whose answers are in this inbox."""
    answers = (answered_by(mail.data) for mail in inbox if mail.kind == EVENT)
    return {answer for answer in answers if answer is not None}


def take_up(core: RunCore, mail: Iterable[Mail], *, pauses: bool) -> None:
    """Take the inbox messages of a run that is about to be driven.

    Their entries are recorded and not yet on disk.

    Args:
        core: The run.
        mail: The rows of its inbox.
        pauses: Whether to act on a pause that no driver has taken. If not, it is deleted: the
            caller that resumes the run by its id overrules it.
    """
    assert core.journal is not None
    for each in mail:
        if core.control.in_ended:
            return
        if each.kind == PAUSE and not pauses:
            core.journal.record(core.machine.rejected(core.moment()), (each.id,))
        else:
            found = _take(core, each)
            if found is not None:
                core.journal.record(*found)


async def take_some(core: RunCore) -> None:
    """Take inbox messages, as many as fit one commit. Their entries are on disk on return."""
    assert core.inbox is not None
    assert core.journal is not None
    entries: list[Entry] = []
    taken = size = 0
    while core.inbox and taken < _ROWS_PER_TURN and size < _BYTES_PER_TURN:
        await core.may_decide()
        if not core.control.accepts:
            break
        mail = core.inbox.popleft()
        taken, size = taken + 1, size + len(mail.data)
        found = _take(core, mail)
        if found is not None:
            entry, rows = found
            if entry.rest is not None:
                await complete(core, entry)
            core.journal.record(entry, rows)
            entries.append(entry)
    if entries:
        await core.journal.settle()
        for entry in entries:
            await absorb_all(core, entry) if len(entry.effects) > WIDE else core.absorb(
                entry.effects
            )
        core.woken()
    core.mail_done += taken
    core.changes.notify()
    await trio.lowlevel.checkpoint()


def _take(core: RunCore, mail: Mail) -> tuple[Entry, tuple[int, ...]] | None:
    """Return the entry that takes a row, and the rows that it takes.

    `None` if a later entry takes the row, or none does.
    """
    if mail.kind == EVENT:
        return _event(core, mail), (mail.id,)
    return _request(core, mail)


def _event(core: RunCore, mail: Mail) -> Entry:
    """Route an event from the inbox.

    Its sender can't be reached any more. An event that no step accepts, or that can't be decoded,
    is therefore recorded as rejected and the run continues. A question that it should have answered
    stays open.
    """
    moment = core.moment()
    event_type: str | None = None
    try:
        event = unpack_event(core.codec, mail.data)
        inner = event.event if isinstance(event, Delayed) else event
        event_type = inner.event_type
        if isinstance(inner, InputResponseEvent):
            entry = core.machine.answered(inner, core.encode, moment)
            kind = "input_received"
        else:
            entry = core.machine.received(event, core.encode, moment)
            kind = "event_received"
    except (NoHandlerError, InputResponseError, SerializationError, ValueError) as refusal:
        if isinstance(refusal, SerializationError) and refusal.subject != LETTER:
            event_type = refusal.subject or None
        core.recorder.record(
            "event_rejected", moment.at, event_type=event_type, error=text_of(refusal)
        )
        return core.machine.rejected(moment)
    core.recorder.record(kind, moment.at, event_type=event_type)
    return entry


def _request(core: RunCore, mail: Mail) -> tuple[Entry, tuple[int, ...]] | None:
    """Act on a pause, its withdrawal, or a cancellation.

    The entry of the pause or of the end takes the row. If there is nothing to do, the entry that
    is returned takes it.
    """
    assert core.journal is not None
    if mail.kind == CANCEL:
        core.journal.requests.append(mail.id)
        core.cancel(reason_in(mail.data))
    elif mail.kind == PAUSE and core.control.phase is not Phase.PAUSED:
        core.journal.requests.append(mail.id)
        core.mail_holds = {**(core.mail_holds or {}), mail.id: core.control.hold()}
        if core.host is not None and not core.host.holds(core):
            # The sender may want to resume the run elsewhere, so release it. If its handle is held
            # in this process, the holder can unpause it.
            core.control.leave_at(Leave.AT_REST)
        core.wake()
    elif mail.kind == RECALL:
        return _recalled(core, mail)
    elif mail.kind == PAUSE:
        return core.machine.rejected(core.moment()), (mail.id,)
    else:
        what = (
            "run %r: an inbox message of unknown kind %r stays in the inbox, "
            "for a later version of blazen_trio"
        )
        logger.warning(
            what,
            core.state.run_id,
            mail.kind,
            extra=about(core.state.run_id, core.state.workflow),
        )
        core.foreign_mail = (*core.foreign_mail, mail.kind)
    return None


def _recalled(core: RunCore, mail: Mail) -> tuple[Entry, tuple[int, ...]]:
    """Withdraw a pause, and take its row as well if the pause's own entry has not done so."""
    assert core.journal is not None
    pause = recalled_by(mail.data)
    rows: tuple[int, ...] = (mail.id,)
    if pause is not None and core.mail_holds is not None and pause in core.mail_holds:
        core.control.let_go((core.mail_holds[pause],))
        core.wake()
        if pause in core.journal.requests:
            core.journal.requests.remove(pause)
            rows = (mail.id, pause)
    return core.machine.rejected(core.moment()), rows


def unanswered(core: RunCore) -> list[InputRequestEvent]:
    """Return the open questions that the input handler is not at work on, oldest first."""
    asking = core.asking or ()
    return [
        question.event  # type: ignore[misc]
        for question in core.state.questions.values()
        if question.request_id not in asking
    ]


async def nobody_has_answered(core: RunCore) -> bool:
    """Return whether a parked run still waits for an answer.

    Polls the store first, so an answer that another process posted a moment ago is found.
    """
    if core.journal is not None:
        with suppress(StoreError):
            await core.journal.store.poll(())
        await core.wait_mail_taken()
    return core.control.phase is Phase.PARKED and bool(unanswered(core))


async def answer(
    core: RunCore, response: InputResponseEvent, *, key: str | None = None, within: bool = False
) -> bool:
    """Route an answer, which is as durable as the run's durability requires on return.

    Args:
        core: The run.
        response: The answer.
        key: The sender's idempotency key.
        within: Whether the caller is a task of the run itself. If the run can't continue, its
            dispatcher takes no more inbox messages and waits for its tasks to end. Such a task must
            stay cancellable while it waits for the dispatcher, or both would wait for ever.

    Returns:
        `False` if `key` was used before, so the answer was not taken; else `True`.

    Raises:
        InputResponseError: No such question is open.
        NoHandlerError: No step accepts the answer.
    """
    await core.standstill.opened()
    if core.journal is None:
        if key is not None:
            if core.has_key(key):
                return False
            question_of(core.definition, core.state, response)  # a refused answer uses no key
            core.use_key(key)
        entry = core.machine.answered(response, core.encode, core.moment())
        await settle(core, entry, "input_received", response.event_type)
        return True
    # Post it to the inbox, as any other process does: of two answers, the store accepts one. If it
    # were decided in memory instead, it could overtake an answer that the store has accepted and
    # not yet handed over, whose sender would then have been promised something that never happens.
    store, run_id = core.journal.store, core.state.run_id
    data = None
    number = 0
    answered: Collection[str] = ()
    while True:
        refused: InputResponseError | None = None
        try:
            question = question_of(core.definition, core.state, response, answered)
        except InputResponseError as refusal:
            refused = refusal
        if refused is not None:
            if key is not None and await store.has_key(run_id, key):
                return False
            raise refused
        data = pack_event(core.codec, response) if data is None else data
        heard = await post_answer(store, run_id, data, answer_key(question.id, number), key)
        with trio.CancelScope(shield=not within):
            # Earlier messages are taken first. The store has handed over our own row by now.
            await core.wait_mail_taken()
        if heard is not None:
            return heard
        # Another answer has the name. If it is still in the inbox, the store has not handed it over
        # yet: a second answer would be acknowledged, and then rejected. If it is not, this process
        # has taken it. If the question is still open, it was rejected: try the next.
        answered = answered_in((await asked_run(store, run_id)).inbox)
        number += 1


def ask(core: RunCore, handlers: trio.Nursery | None, questions: Iterable[Question]) -> None:
    """Show open questions to the observers, and start the handler for each in a task of its own.

    Args:
        core: The run.
        handlers: The nursery of the handler's calls; `None`: there is no handler.
        questions: The questions, which are on disk if the run has a store.
    """
    for question in questions:
        core.recorder.record(
            "input_requested", core.clock.now(), event_type=question.event.event_type
        )
        core.broadcast.publish(question.event)
        if handlers is not None:
            core.asking = core.asking or set()
            core.asking.add(question.request_id)
            core.task_context.run(partial(handlers.start_soon, _ask_handler, core, question.event))


async def _ask_handler(core: RunCore, request: Any) -> None:
    try:
        response = await _unprotected(core.input_handler, request)
        if (
            response is not None
            and request.request_id in core.state.questions
            and core.control.accepts
        ):
            if not isinstance(response, InputResponseEvent):
                response = InputResponseEvent(request.request_id, response)
            # An answer that fits no question is a failure of the handler.
            question_of(core.definition, core.state, response)
            await _give(core, response)
    except BaseException as error:  # noqa: ASYNC103  # re-raised unless the handler failed
        cancelled = trio.current_effective_deadline() == float("-inf")
        if breaks_out(error) or (cancelled and isinstance(error, trio.Cancelled)):
            raise
        # A Cancelled without a cancelled scope around it leaked from another task: a failure.
        await _failed(core, error)  # noqa: ASYNC102, ASYNC120  # shields itself
    finally:
        if core.asking is not None:
            core.asking.discard(request.request_id)
        core.wake()
        core.changes.notify()


async def _give(core: RunCore, response: InputResponseEvent) -> None:
    try:
        await answer(core, response, within=True)
    except (InputResponseError, RunFinishedError):
        pass  # another answer came first, or the run has ended
    except StoreError as error:
        core.crash(error)


async def _failed(core: RunCore, error: BaseException) -> None:
    """Fail the run because its input handler failed, as a failing step does."""
    await core.standstill.opened()
    if not core.control.accepts:
        return
    if not isinstance(error, (Exception, trio.Cancelled)):
        core.crash(error)
        return
    fail(
        core,
        StoredError(
            "StepFailedError",
            f"the input handler of run {core.state.run_id!r} failed: "
            f"{type(error).__name__}: {text_of(error)}",
            step="input_handler",
            attempts=1,
            error_type=type(error).__name__,
            traceback=traceback_of(error),
        ),
        error,
    )


@trio.lowlevel.disable_ki_protection
async def _unprotected(handler: Any, request: Any) -> Any:
    """Call the input handler without Ctrl-C protection: it is user code."""
    return await handler(request)
