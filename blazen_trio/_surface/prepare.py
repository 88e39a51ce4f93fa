"""The opening of runs: prepare a new, stored, resting or snapshotted run to be driven."""

from __future__ import annotations

import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, Any, Final

import attrs

from blazen_trio._clock import wall_clock
from blazen_trio._codec.entries import encode_entry, seal_entry
from blazen_trio._concurrency import in_slices
from blazen_trio._dispatch.control import Phase
from blazen_trio._dispatch.core import RunCore
from blazen_trio._dispatch.driving import listen_to
from blazen_trio._dispatch.inbox import take_up
from blazen_trio._dispatch.observers import Broadcast, Recorder
from blazen_trio._dispatch.schedule import Standstill
from blazen_trio._dispatch.transitions import WIDE, fail
from blazen_trio._state.lifecycle import begin, unrouted_input
from blazen_trio._state.machine import Machine, Moment
from blazen_trio._state.model import Delivery, Payload, StoredError
from blazen_trio._state.routing import answer_to
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.base import create_whole, folding, reading_history
from blazen_trio._surface.context import Context
from blazen_trio._surface.fitting import check_branch, check_fit
from blazen_trio._surface.run_arguments import new_nonce, new_run_id
from blazen_trio._telemetry import hooks
from blazen_trio._telemetry.logs import log_record, logger
from blazen_trio.errors import (
    NoHandlerError,
    RunCrashedError,
    RunNotFoundError,
    StoreError,
)

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping

    from blazen_trio._codec.codec import Codec
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._definitions.events import InputResponseEvent
    from blazen_trio._dispatch.core import InputHandler
    from blazen_trio._dispatch.journal import JournalMark
    from blazen_trio._dispatch.schedule import Timers
    from blazen_trio._state.entry import Entry, HistoryRecord
    from blazen_trio._state.model import Delayed, RunState
    from blazen_trio._state.routing import Routing
    from blazen_trio._stores.driver import Driver
    from blazen_trio._stores.protocol import CheckpointStore, StoredRun

__all__ = [
    "Options",
    "open_claimed",
    "open_new",
    "open_rested",
    "open_snapshot",
    "open_stored",
]

_FROM_RUN: Any = object()
_NO_METADATA: Final = Payload(b"{}")


@attrs.define
class Options:
    """The options for driving a run.

    Attributes:
        routing: The workflow's routing.
        codec: The workflow's codec.
        store: The store of the run; `None`: it is in memory only.
        durability: When entries are written.
        timeout: The timeout in seconds, `None` for no limit; `Options.KEEP` for the time that the
            run has left.
        input_handler: Answers the run's questions; `None`: they wait for `respond`.
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


async def open_new(
    options: Options,
    input: Any,  # noqa: A002
    run_id: str | None,
    metadata: Mapping[str, Any],
) -> RunCore:
    """Create a run. With a store, the run, its input and its lease are on disk on return."""
    definition, codec, store = options.definition, options.codec, options.store
    event = definition.start_event(input)
    payload = codec.encode_value(dict(metadata), "metadata") if metadata else _NO_METADATA
    timeout = definition.timeout if options.timeout is Options.KEEP else options.timeout
    clock = wall_clock() if store is None else store.clock()
    moment = Moment(clock.now(), 0.0)
    run_id = new_run_id() if run_id is None else run_id
    encode = None if store is None else codec.encode_event
    listener = None if hooks.listener is None else hooks.listener.run(run_id, definition.name)
    trace = None if listener is None else listener.trace
    driver = None
    try:
        machine, entry = begin(
            options.routing, run_id, event, payload, timeout, encode, moment, trace, new_nonce()
        )
        broadcast, recorder = _observers(definition, store)
        recorder.record("workflow_started", moment.at, event_type=event.event_type)
        if store is not None:
            driver = await _create(store, definition, run_id, entry, recorder)
    except BaseException as error:
        if listener is not None:
            listener.lost(error)
        raise
    core = _core(options, machine, broadcast, recorder, driver)
    if recorder.log_from <= logging.INFO:
        # Not earlier: a run that could not be stored has not started.
        log_record(recorder.run, "workflow_started", event_type=event.event_type)
    if listener is not None:
        listen_to(core, listener)
    core.absorb(entry.effects)
    return core  # noqa: ASYNC910  # without a store, there is nothing to wait for


async def _create(
    store: CheckpointStore,
    definition: WorkflowDefinition,
    run_id: str,
    entry: Entry,
    recorder: Recorder,
) -> Driver | None:
    """Store a new run by its first entry and history, and return its driver.

    Raises:
        RunExistsError: The store has a run of this id.
    """
    from blazen_trio._stores.protocol import Commit, NewRun

    data, blobs = encode_entry(entry)
    first = Commit(
        run_id,
        entries=[(entry.seq, data)],
        blobs=blobs,
        history=None if recorder.unwritten is None else recorder.unwritten.take(),
        status=RunStatus.RUNNING,
        at=entry.at,
    )
    return await store.create(NewRun(definition.name, definition.version, entry.at), first)


async def open_stored(options: Options, run_id: str) -> RunCore:
    """Claim a stored run, and prepare it to continue from its last committed step."""
    store = options.store
    assert store is not None
    stored = await store.claim(run_id)
    return await _or_give_back(store, stored.driver, lambda: open_claimed(options, stored))


async def _or_give_back(
    store: CheckpointStore, driver: Driver | None, make_ready: Callable[[], Awaitable[RunCore]]
) -> RunCore:
    """Prepare a run that this process has already claimed, or release it on any error."""
    try:
        return await make_ready()
    except BaseException:
        if driver is not None:
            # A release can't be cancelled, is bounded, and if it fails, the store keeps trying.
            # Without it, the run would stay claimed, with no task driving it, for as long as this
            # process renews its lease.
            with contextlib.suppress(StoreError):
                await store.release(driver)  # noqa: ASYNC102
        raise


async def open_claimed(
    options: Options, stored: StoredRun, *, max_crashes: int | None = None
) -> RunCore:
    """Prepare a stored run that this process has claimed. On an error, the caller must release it.

    Args:
        options: The options for driving it.
        stored: The stored run.
        max_crashes: Given if a worker took the run, rather than a caller that asked for it by its
            id. A pause in its inbox is then acted on, and the run ends as failed if this many of
            its drivers have crashed.
    """
    state = await in_slices(folding(stored, options.codec))
    await check_fit(options.definition, state)
    return await _go_on(options, state, stored.driver, stored, max_crashes=max_crashes)


async def open_snapshot(options: Options, snapshot: Snapshot, response: Any = None) -> RunCore:
    """Prepare the run of a snapshot, and answer its question if a response is given."""
    state = await in_slices(snapshot.to_state_in_pieces(options.codec))
    await check_fit(options.definition, state)
    answer = None if response is None else answer_to(state.run_id, state.questions, response)
    store = options.store
    if store is None:
        return await _go_on(options, state, None, None, answer)
    try:
        stored = await store.claim(state.run_id)
    except RunNotFoundError:
        driver = await create_whole(store, state)
        return await _or_give_back(
            store, driver, lambda: _go_on(options, state, driver, None, answer)
        )

    async def go_on() -> RunCore:
        await check_branch(await in_slices(folding(stored, options.codec)), state)
        return await _go_on(options, state, stored.driver, stored, answer)

    return await _or_give_back(store, stored.driver, go_on)


async def _go_on(
    options: Options,
    state: RunState,
    driver: Driver | None,
    stored: StoredRun | None,
    answer: InputResponseEvent | None = None,
    *,
    max_crashes: int | None = None,
) -> RunCore:
    """Prepare a run that exists: start a new epoch and take its inbox, both on disk on return."""
    broadcast, recorder = _observers(options.definition, options.store)
    if stored is not None:
        recorder.load(await in_slices(reading_history(stored)))
    else:
        recorder.load(list(state.history))
    mark = None if stored is None else _mark_of(stored)
    core = _core(options, Machine(options.routing, state), broadcast, recorder, driver, mark)
    if state.status is RunStatus.COMPLETED:
        core.enter(Phase.ENDED)
        core.enter(Phase.LEFT)
        broadcast.end(state.stop)  # type: ignore[arg-type]
        return core  # noqa: ASYNC910  # there is nothing to do
    if hooks.listener is not None:
        listen_to(core, hooks.listener.run(state.run_id, state.workflow, state))
    try:
        await _take_over(core, options, stored, answer, max_crashes)
    except BaseException as error:
        if recorder.listener is not None:
            recorder.listener.lost(error)
        raise
    await in_slices(_taking_up(core))
    return core


def _taking_up(core: RunCore) -> Generator[None, None, None]:
    """Queue the pending work of a run in slices, before any other task can act on the run.

    Work that arrives later is queued by the transition that brings it. If this ran after such a
    transition, it would queue that work twice.
    """
    undone: Iterable[Delivery | Delayed] = itertools.chain(
        core.state.deliveries.values(), core.state.delayed.values()
    )
    for index, item in enumerate(undone, 1):
        if item.due is not None:
            core.set_timer(item.due, item.id)
        elif type(item) is Delivery:
            core.ready.append(item)
        if index % WIDE == 0:
            yield


async def _take_over(  # noqa: ASYNC910  # without a store, there is nothing to wait for
    core: RunCore,
    options: Options,
    stored: StoredRun | None,
    answer: InputResponseEvent | None,
    max_crashes: int | None,
) -> None:
    """Start a new epoch of ids, and take the inbox. All of it is on disk before any step runs.

    Otherwise a crash could assign an id a second time, and two deliveries would share one key.
    """
    machine, recorder, state = core.machine, core.recorder, core.state
    elapsed, timeout = state.elapsed, state.timeout
    if options.timeout is not Options.KEEP:
        elapsed, timeout = 0.0, options.timeout
    elif state.status is RunStatus.TIMED_OUT:
        elapsed = 0.0
    elif not state.workflow_version:
        timeout = options.definition.timeout  # queued by a process without the workflow
    moment = Moment(core.clock.now(), elapsed)
    unrouted = unrouted_input(state)
    recorder.record("workflow_resumed" if unrouted is None else "workflow_started", moment.at)
    core.note(
        machine.resumed(
            timeout, moment, None if recorder.listener is None else recorder.listener.trace
        )
    )
    core.restart(elapsed)
    if answer is not None:
        recorder.record("input_received", moment.at, event_type=answer.event_type)
        core.note(machine.answered(answer, core.encode, moment))
    if unrouted is not None:
        _route_input(core, unrouted, moment)
    if stored is not None:
        core.crashes = stored.crashes
        if max_crashes is not None and stored.crashes >= max_crashes:
            _set_aside(core, stored)
        take_up(core, stored.inbox, pauses=max_crashes is not None)
    if core.journal is not None:
        await core.journal.settle()


def _route_input(core: RunCore, start: Delayed, moment: Moment) -> None:
    """Route the start event of a queued run, or fail the run if the workflow does not accept it.

    The submitting process may not have had the workflow, so the event may be of any type.
    """
    try:
        core.definition.start_event(start.event)
    except NoHandlerError as refusal:
        fail(
            core,
            StoredError("NoHandlerError", refusal.message, details=(refusal.event_type,)),
            refusal,
        )
        return
    core.note(core.machine.due(start, moment))


def _set_aside(core: RunCore, stored: StoredRun) -> None:
    """Quarantine a run that its drivers have repeatedly crashed on: end it as failed."""
    undone = sorted({delivery.step for delivery in core.state.deliveries.values()})
    cause = (
        f"its driver has died or failed {stored.crashes} times without committing a step "
        f"(pending: {', '.join(undone) or 'no steps'})"
    )
    cause += f"; the last driver failed with {stored.info.error}" if stored.info.error else ""
    error = RunCrashedError.set_aside(core.state.run_id, cause, stored.crashes)
    fail(core, StoredError("RunCrashedError", error.message, attempts=stored.crashes), None)


def open_rested(
    options: Options,
    state: RunState,
    driver: Driver,
    records: list[HistoryRecord],
    mark: JournalMark,
    timers: Timers | None,
    context: contextvars.Context,
) -> RunCore:
    """Prepare a resting run, which this process has driven before and still holds.

    Args:
        options: The options for driving it.
        state: Its state, all of which is on disk.
        driver: The token with which this process drives it.
        records: Its history, all of which is on disk.
        mark: The extent of its stored journal.
        timers: Its timers, including those that are due by now.
        context: The context variables that its steps see.
    """
    broadcast, recorder = _observers(options.definition, options.store)
    recorder.load(records)
    core = _core(options, Machine(options.routing, state), broadcast, recorder, driver, mark)
    core.task_context = recorder.context = context
    core.control.enter(Phase.PARKED)
    if timers is not None:
        core.timers = timers
    return core


def _mark_of(stored: StoredRun) -> JournalMark:
    from blazen_trio._dispatch.journal import JournalMark

    snapshot_size = 0 if stored.snapshot is None else len(stored.snapshot[1])
    return JournalMark(
        snapshot_size,
        sum(len(data) for _, data in stored.entries),
        frozenset(stored.blobs),
        stored.listed,
    )


def _observers(
    definition: WorkflowDefinition, store: CheckpointStore | None
) -> tuple[Broadcast, Recorder]:
    broadcast = Broadcast()
    return broadcast, Recorder(
        broadcast,
        history=definition.history,
        lifecycle=definition.publish_lifecycle,
        stored=store is not None,
    )


def _core(
    options: Options,
    machine: Machine,
    broadcast: Broadcast,
    recorder: Recorder,
    driver: Driver | None,
    mark: JournalMark | None = None,
) -> RunCore:
    recorder.run = machine.state.run_id, machine.state.workflow
    if logger.isEnabledFor(logging.INFO):
        recorder.log_from_level(
            logging.DEBUG if logger.isEnabledFor(logging.DEBUG) else logging.INFO
        )
    standstill = Standstill(machine.state, options.codec, recorder)
    journal = None
    if driver is not None:
        from blazen_trio._dispatch.journal import Journal, JournalMark

        assert options.store is not None
        machine.seal = None if options.durability == "exit" else seal_entry
        mark = mark or JournalMark()
        journal = Journal(
            options.store, driver, machine.state, options.durability, recorder, standstill, mark
        )
    core = RunCore(
        machine,
        options.codec,
        journal,
        broadcast,
        recorder,
        standstill,
        wall_clock() if options.store is None else options.store.clock(),
        input_handler=options.input_handler,
        make_context=Context,
    )
    if driver is not None:
        driver.listen(core)
    return core
