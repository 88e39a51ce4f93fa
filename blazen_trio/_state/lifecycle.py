"""How a run begins, and its transitions while nobody drives it.

It needs no machine, and no workflow, to be queued, paused or cancelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blazen_trio._state.apply import apply_entry, state_from_first
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
"""The id of a run's very first item. A run that a process began has a delivery there, one that was
queued its input."""


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
    """The first entry of a run that whoever takes it begins: its start event is due at once, and
    not routed yet, since that takes the workflow's steps.

    Args:
        run_id: Its id.
        workflow: The workflow's name.
        workflow_version: Its version; empty where the workflow is not at hand, then `timeout` is not known either.
        event: The start event.
        payload: The same, encoded.
        metadata: The run's.
        timeout: In seconds.
        at: Now: UTC, seconds since the epoch.
        trace: Where it belongs in a trace.
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
    """The start event of a run that was queued and that nobody has begun yet, whatever was done to
    it meanwhile.
    """
    return state.delayed.get(_FIRST_ITEM)


def changed(
    state: RunState, kind: str, status: RunStatus, at: float, error: StoredError | None = None
) -> Entry:
    """Pause or cancel a run that nobody drives; what is undone in it stays so."""
    entry = Entry(state.seq + 1, kind, at, state.elapsed)
    entry.status = status
    entry.error = error
    apply_entry(state, entry)
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
    """Begin a run with its start event; `timeout` in seconds; `trace`: where it belongs in a trace;
    `nonce`: see `RunState`.
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
