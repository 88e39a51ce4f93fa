"""Making a run ready to be driven: new, from a snapshot, or from a store by its id."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from blazen_trio._clock import wall_clock
from blazen_trio._codec.entries import decode_history, encode_entry, encode_history
from blazen_trio._definitions.events import InputResponseEvent
from blazen_trio._dispatch.dispatcher import Dispatcher
from blazen_trio._dispatch.recorder import Recorder
from blazen_trio._dispatch.standstill import Standstill
from blazen_trio._dispatch.streams import Broadcast
from blazen_trio._state.machine import Machine, Moment, begin
from blazen_trio._state.misfits import misfits
from blazen_trio._state.model import Payload, StoredError
from blazen_trio._state.status import RunStatus
from blazen_trio._state.undriven import unrouted_input
from blazen_trio._stores.base import fold
from blazen_trio._surface.context import Context
from blazen_trio._telemetry import hooks
from blazen_trio._telemetry.logs import log_record, logger
from blazen_trio.errors import (
    IncompatibleRunError,
    InputResponseError,
    NoHandlerError,
    RunNotFoundError,
    StaleRunError,
    StoreError,
)

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Mapping

    from blazen_trio._codec.codec import Codec
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._dispatch.inputs import InputHandler
    from blazen_trio._dispatch.journal import JournalMark
    from blazen_trio._state.history import HistoryRecord
    from blazen_trio._state.model import Delayed, Delivery, RunState
    from blazen_trio._state.routing import Routing
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun

__all__ = ["Options", "new_run_id", "open_claimed", "open_new", "open_rested", "open_snapshot", "open_stored"]

_FROM_RUN: Any = object()
_GIVE_BACK_SECONDS: Final = 5.0
_NO_METADATA: Final = Payload(b"{}")


@attrs.frozen
class Options:
    """How a run is to be driven.

    Attributes:
        routing: The workflow's.
        codec: Its codec.
        store: Where the run is kept; `None`: nowhere.
        durability: When its entries are written.
        timeout: Seconds, `None` for no limit; `Options.KEEP` for what the run has left.
        input_handler: Answers its questions; `None`: nobody does.
    """

    KEEP = _FROM_RUN

    routing: Routing
    codec: Codec
    store: CheckpointStore | None
    durability: Any
    timeout: Any
    input_handler: InputHandler | None

    @property
    def definition(self) -> WorkflowDefinition:
        """The workflow."""
        return self.routing.definition


def new_run_id() -> str:
    """A UUID of version 7 (RFC 9562): ordered by time (milliseconds), so that databases like it."""
    value = int.from_bytes(os.urandom(10), "big") | (time.time_ns() // 1_000_000) << 80
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


async def open_new(options: Options, input: Any, run_id: str | None, metadata: Mapping[str, Any]) -> Dispatcher:  # noqa: A002
    """A new run; with a store, it, its input and its lease are on disk when this returns."""
    definition, codec, store = options.definition, options.codec, options.store
    event = definition.start_event(input)
    payload = codec.encode_value(dict(metadata), "metadata") if metadata else _NO_METADATA
    timeout = definition.timeout if options.timeout is Options.KEEP else options.timeout
    moment = Moment(wall_clock().now(), 0.0)
    run_id = new_run_id() if run_id is None else run_id
    encode = None if store is None else codec.encode_event
    listener = None if hooks.listener is None else hooks.listener.run(run_id, definition.name)
    trace = None if listener is None else listener.trace
    try:
        machine, entry = begin(options.routing, run_id, event, payload, timeout, encode, moment, trace)
        broadcast, recorder = _observers(definition)
        recorder.record("workflow_started", moment.at, event_type=event.event_type)
        if store is not None:
            from blazen_trio._stores.protocol import Commit, NewRun

            data, blobs = encode_entry(entry)
            first = Commit(
                run_id,
                entries=[(entry.seq, data)],
                blobs=blobs,
                history=(1, encode_history(recorder.take())),
                status=RunStatus.RUNNING,
                at=moment.at,
            )
            await store.create(NewRun(definition.name, definition.version, moment.at), first)
    except BaseException as error:
        if listener is not None:
            listener.lost(error)
        raise
    dispatcher = _dispatcher(options, machine, broadcast, recorder)
    if recorder.log_from <= logging.INFO:
        log_record(recorder.run, "workflow_started", event_type=event.event_type)  # now that it is on disk
    if listener is not None:
        dispatcher.listened_to(listener)
    dispatcher.take_up()
    return dispatcher


async def open_stored(options: Options, run_id: str) -> Dispatcher:
    """A stored run, gone on with from its last committed step."""
    store = options.store
    assert store is not None
    stored = await store.claim(run_id)
    try:
        return await open_claimed(options, stored)
    except BaseException:
        await _give_back(store, run_id)  # noqa: ASYNC102  # shields itself
        raise


async def open_claimed(options: Options, stored: StoredRun, *, max_crashes: int | None = None) -> Dispatcher:
    """A stored run that is driven here already. If this raises, the run is still to be given back.

    Args:
        options: How to drive it.
        stored: All of it.
        max_crashes: Given where nobody asked for this very run: it heeds a pause in its inbox, and ends as failed if its drivers
            have crashed so often.
    """
    state = fold(stored, options.codec)
    _check_fit(options.definition, state)
    return await _go_on(options, state, stored, max_crashes=max_crashes)


async def open_snapshot(options: Options, snapshot: Snapshot, response: Any = None) -> Dispatcher:
    """A run as a snapshot has it, its question answered if there is a response."""
    state = snapshot.to_state(options.codec)
    _check_fit(options.definition, state)
    answer = None if response is None else _as_answer(state, response)
    store = options.store
    if store is None:
        return await _go_on(options, state, None, answer)
    try:
        stored = await store.claim(state.run_id)
    except RunNotFoundError:
        stored = None
    if stored is None:
        from blazen_trio._surface.undriven import create_whole

        await create_whole(store, state)
        return await _go_on(options, state, None, answer, known=True)
    try:
        known_seq = max([seq for seq, _ in stored.entries], default=stored.snapshot[0] if stored.snapshot else 0)
        if known_seq != state.seq:
            raise StaleRunError(
                f"the snapshot of run {state.run_id!r} is of entry {state.seq}, and the store knows the run up to entry "
                f"{known_seq}: go on with what the store has (resume_from), or resume the snapshot without the store",
                run_id=state.run_id,
            )
        return await _go_on(options, state, stored, answer)
    except BaseException:
        await _give_back(store, state.run_id)  # noqa: ASYNC102  # shields itself
        raise


async def _give_back(store: CheckpointStore, run_id: str) -> None:
    """What could not be made ready is driven by nobody."""
    with trio.move_on_after(_GIVE_BACK_SECONDS, shield=True), contextlib.suppress(StoreError):
        await store.release(run_id)


async def _go_on(
    options: Options,
    state: RunState,
    stored: StoredRun | None,
    answer: InputResponseEvent | None = None,
    *,
    known: bool = False,
    max_crashes: int | None = None,
) -> Dispatcher:
    """Make a run that exists ready: a new epoch, its mail taken, all that on disk."""
    definition = options.definition
    broadcast, recorder = _observers(definition)
    if stored is not None:
        recorder.load([record for data in stored.history for record in decode_history(data)])
    else:
        recorder.load(list(state.history), written=known or options.store is None)
    machine = Machine(options.routing, state)
    mark = None if stored is None else _mark_of(stored)
    dispatcher = _dispatcher(options, machine, broadcast, recorder, mark)
    if state.status is RunStatus.COMPLETED:
        dispatcher.over = dispatcher.detached = True
        broadcast.end(state.stop)  # type: ignore[arg-type]
        return dispatcher
    if hooks.listener is not None:
        dispatcher.listened_to(hooks.listener.run(state.run_id, state.workflow, state))
    try:
        await _take_over(dispatcher, options, stored, answer, max_crashes)
    except BaseException as error:
        if recorder.listener is not None:
            recorder.listener.lost(error)
        raise
    dispatcher.take_up()
    return dispatcher


async def _take_over(  # noqa: ASYNC910  # without a store, nothing is to be waited for
    dispatcher: Dispatcher,
    options: Options,
    stored: StoredRun | None,
    answer: InputResponseEvent | None,
    max_crashes: int | None,
) -> None:
    """Begin a new epoch, and take what came in meanwhile."""
    definition, machine, recorder, journal = (
        options.definition,
        dispatcher.machine,
        dispatcher.recorder,
        dispatcher.journal,
    )
    state = machine.state
    elapsed, timeout = state.elapsed, state.timeout
    if options.timeout is not Options.KEEP:
        elapsed, timeout = 0.0, options.timeout
    elif state.status is RunStatus.TIMED_OUT:
        elapsed = 0.0
    elif not state.workflow_version:
        timeout = definition.timeout  # queued by somebody who did not have the workflow
    moment = Moment(wall_clock().now(), elapsed)
    unrouted = unrouted_input(state)
    recorder.record("workflow_resumed" if unrouted is None else "workflow_started", moment.at)
    entry = machine.resumed(timeout, moment, None if recorder.listener is None else recorder.listener.trace)
    dispatcher.restart(elapsed)
    if journal is not None:
        journal.record(entry)
    if answer is not None:
        recorder.record("input_received", moment.at, event_type=answer.event_type)
        entry = machine.answered(answer, dispatcher.encode, moment)
        if journal is not None:
            journal.record(entry)
    if unrouted is not None:
        _route_input(dispatcher, unrouted, moment)
    if stored is not None and max_crashes is not None and stored.crashes >= max_crashes:
        _set_aside(dispatcher, stored.crashes)
    if stored is not None and not dispatcher.over:
        dispatcher.mail.take_up(stored.inbox, pauses=max_crashes is not None)
    if journal is not None:
        await journal.settle()


def _route_input(dispatcher: Dispatcher, start: Delayed, moment: Moment) -> None:
    """Route the start event of a run that was queued; its sender may not have known what the workflow starts with."""
    try:
        dispatcher.definition.start_event(start.event)
    except NoHandlerError as refusal:
        error = StoredError("NoHandlerError", refusal.message, details=(refusal.event_type,))
        dispatcher.endings.fail(error, refusal)
        return
    entry = dispatcher.machine.due(start, moment)
    if dispatcher.journal is not None:
        dispatcher.journal.record(entry)


def _set_aside(dispatcher: Dispatcher, crashes: int) -> None:
    """End a run that has taken its drivers down again and again."""
    undone = sorted({delivery.step for delivery in dispatcher.state.deliveries.values()})
    message = (
        f"run {dispatcher.state.run_id!r} is set aside: its driver has died {crashes} times since a step of it was last "
        f"committed; undone are {', '.join(undone) or 'no steps'}. Look for what kills the process; resume_from tries again"
    )
    dispatcher.endings.fail(StoredError("RunCrashedError", message, attempts=crashes), None)


def open_rested(
    options: Options,
    state: RunState,
    records: list[HistoryRecord],
    mark: JournalMark,
    context: contextvars.Context,
) -> Dispatcher:
    """A run that this process has driven until it had to wait, and goes on to drive.

    Args:
        options: How to drive it.
        state: Its state, all of which is on disk.
        records: Its history, likewise.
        mark: How far its journal is.
        context: The context variables that its steps see.
    """
    broadcast, recorder = _observers(options.definition)
    recorder.load(records)
    dispatcher = _dispatcher(options, Machine(options.routing, state), broadcast, recorder, mark)
    dispatcher.task_context = context
    dispatcher.has_asked = True
    waiting: list[Delivery | Delayed] = [*state.deliveries.values(), *state.delayed.values()]
    for item in waiting:
        # Also what is due by now: that wakes the run, which is a transition of its own.
        assert item.due is not None, "a run that rests waits for times only"
        dispatcher.set_timer(item.due, item.id)
    return dispatcher


def _mark_of(stored: StoredRun) -> JournalMark:
    from blazen_trio._dispatch.journal import JournalMark

    snapshot_size = 0 if stored.snapshot is None else len(stored.snapshot[1])
    return JournalMark(snapshot_size, sum(len(data) for _, data in stored.entries), frozenset(stored.blobs))


def _observers(definition: WorkflowDefinition) -> tuple[Broadcast, Recorder]:
    broadcast = Broadcast()
    return broadcast, Recorder(broadcast, history=definition.history, lifecycle=definition.publish_lifecycle)


def _dispatcher(
    options: Options,
    machine: Machine,
    broadcast: Broadcast,
    recorder: Recorder,
    mark: JournalMark | None = None,
) -> Dispatcher:
    recorder.run = machine.state.run_id, machine.state.workflow
    if logger.isEnabledFor(logging.INFO):
        recorder.log_from_level(logging.DEBUG if logger.isEnabledFor(logging.DEBUG) else logging.INFO)
    standstill = Standstill(machine.state, options.codec, recorder)
    journal = None
    if options.store is not None:
        from blazen_trio._dispatch.journal import Journal, JournalMark

        mark = mark or JournalMark()
        journal = Journal(options.store, machine.state, options.durability, recorder, standstill, mark)
    return Dispatcher(
        machine,
        options.codec,
        journal,
        broadcast,
        recorder,
        standstill,
        input_handler=options.input_handler,
        make_context=Context,
    )


def _check_fit(definition: WorkflowDefinition, state: RunState) -> None:
    problems = []
    if state.workflow != definition.name:
        problems.append(f"it is a run of workflow {state.workflow!r}, and this is workflow {definition.name!r}")
    elif state.status is not RunStatus.COMPLETED:
        problems = misfits(definition, state)
    if problems:
        faults = "".join(f"\n  - {problem}" for problem in problems)
        raise IncompatibleRunError(
            f"run {state.run_id!r} can't go on with workflow {definition.name!r}:{faults}",
            run_id=state.run_id,
            problems=problems,
        )


def _as_answer(state: RunState, response: Any) -> InputResponseEvent:
    if isinstance(response, InputResponseEvent):
        return response
    if len(state.questions) != 1:
        raise InputResponseError(
            f"the snapshot of run {state.run_id!r} has {len(state.questions)} open questions: say which one is answered, "
            "with an InputResponseEvent that carries its request_id",
            run_id=state.run_id,
            request_id="",
        )
    return InputResponseEvent(next(iter(state.questions)), response)
