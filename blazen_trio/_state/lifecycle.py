"""The start of a run, and its transitions while no process drives it.

Queueing, pausing and cancelling a run need no machine and no workflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blazen_trio._state.apply import state_from_first
from blazen_trio._state.entry import Entry, Output
from blazen_trio._state.machine import Machine, Moment
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blazen_trio._definitions.events import Event
    from blazen_trio._state.model import Delayed, Payload, RunState, StoredError
    from blazen_trio._state.routing import Routing

__all__ = ["begin", "changed", "queued", "unrouted_input"]

_FIRST_ITEM: Final = 1
"""The id of a run's very first item: a delivery if the run was started by a process that drives it,
its input if it was queued."""


def queued(
    run_id: str,
    workflow: str,
    workflow_version: str,
    event: Event,
    payload: Payload,
    metadata: Payload,
    timeout: float | None,
    at: float,
    trace: Mapping[str, str] | None = None,
    nonce: str = "",
) -> Entry:
    """Return the first entry of a queued run, which the process that takes it will start.

    Its start event is due at once, but not yet routed: routing needs the workflow's steps.

    Args:
        run_id: The run's id.
        workflow: The workflow's name.
        workflow_version: The workflow's version; empty if the workflow is not available, in which
            case `timeout` is not known either.
        event: The start event.
        payload: The start event, encoded.
        metadata: The run's metadata.
        timeout: The run's timeout in seconds.
        at: The current time, UTC, in seconds since the epoch.
        trace: The context of the run's trace.
        nonce: See `RunState`.
    """
    entry = Entry(1, "queued", at, 0.0)
    entry.created = {
        "run_id": run_id,
        "workflow": workflow,
        "workflow_version": workflow_version,
        "metadata": metadata,
        "root": False,
        "timeout": timeout,
    }
    if trace is not None:
        entry.created["trace"] = trace
    if nonce:
        entry.created["nonce"] = nonce
    entry.outputs = [Output(event, payload, due=at)]
    return entry


def unrouted_input(state: RunState) -> Delayed | None:
    """Return the start event of a queued run that no process has started yet, else `None`.

    The run may have been paused or cancelled while it was queued.
    """
    return state.delayed.get(_FIRST_ITEM)


def changed(
    seq: int, kind: str, status: RunStatus, at: float, error: StoredError | None = None
) -> Entry:
    """Return the entry that pauses, unpauses or cancels a run that no process drives.

    Its pending work stays pending. Nothing of the run but its status and the number of its last
    entry has to be known.
    """
    entry = Entry(seq, kind, at, None)
    entry.status = status
    entry.error = error
    return entry


def begin(
    routing: Routing,
    run_id: str,
    event: Event,
    metadata: Payload,
    timeout: float | None,
    encode: Callable[[Event], Payload] | None,
    moment: Moment,
    trace: Mapping[str, str] | None = None,
    nonce: str = "",
) -> tuple[Machine, Entry]:
    """Start a run with its start event.

    `timeout` is in seconds. `trace` is the context of the run's trace. For `nonce` see `RunState`.
    """
    definition = routing.definition
    entry = Entry(1, "started", moment.at, moment.elapsed)
    entry.created = {
        "run_id": run_id,
        "workflow": definition.name,
        "workflow_version": definition.version,
        "metadata": metadata,
        "root": definition.has_joins,
        "timeout": timeout,
    }
    if trace is not None:
        entry.created["trace"] = trace
    if nonce:
        entry.created["nonce"] = nonce
    entry.status = RunStatus.RUNNING
    entry.epoch = 0
    machine = Machine(routing, state_from_first(entry))
    entry.outputs = machine.outputs([event], encode, lambda: moment.at)
    machine.finish(entry)
    return machine, entry
