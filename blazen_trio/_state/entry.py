"""A journal entry: one transition of a run, with all that applying it again needs, and no more than
what changed; and the records of a run's history.

An entry says where each event was routed and which joins fired, so that folding a journal needs no
workflow. A wide one is applied in pieces: its `rest` is a generator that does a bounded piece of
work per `next()`.
"""

from __future__ import annotations

import datetime as dt  # noqa: TC003  # attrs resolves it
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from blazen_trio._definitions.events import Event
    from blazen_trio._state.model import Cell, Item, Payload, StoredError
    from blazen_trio._state.status import RunStatus

__all__ = [
    "NOWHERE",
    "Collected",
    "Entry",
    "FanOutOpened",
    "HistoryRecord",
    "Output",
    "Retry",
    "Targets",
    "drained",
]


class Targets:
    """Where an event goes. Made once per event class and shared by all outputs of it.

    Args:
        steps: The steps that it goes to, in declaration order: each gets a delivery of its own.
            Empty: recorded, not routed (now).
        joins: Those of the steps that are joins: they collect it instead.
        plain: Whether it is routed and nothing else: it neither asks a question nor stops the run,
            and it is not delayed.
        stops: Whether it stops the run.
        collects: The joins that collect it, now or when it is due.
    """

    __slots__ = ("collects", "joins", "plain", "steps", "stops")

    def __init__(
        self,
        steps: tuple[str, ...] = (),
        joins: tuple[str, ...] = (),
        *,
        plain: bool = False,
        stops: bool = False,
        collects: tuple[str, ...] | None = None,
    ) -> None:
        self.steps = steps
        self.joins = joins
        self.plain = plain
        self.stops = stops
        self.collects = joins if collects is None else collects


NOWHERE: Final = Targets()


class Output:
    """An event that a transition brings into the run, and where it goes."""

    __slots__ = ("due", "event", "payload", "request_id", "targets")

    def __init__(
        self,
        event: Event,
        payload: Payload | None = None,
        targets: Targets = NOWHERE,
        due: float | None = None,
        request_id: str | None = None,
    ) -> None:
        self.event = event
        self.payload = payload
        self.targets = targets
        self.due = due
        """UTC, of an event that is to be routed only then (now it goes nowhere)."""
        self.request_id = request_id
        """Of an input request: it opens a question."""


@attrs.define(eq=False)
class FanOutOpened:
    """A returned list: its joins (never empty), its members, and which of the joins fire only if
    they have collected anything.
    """

    joins: tuple[str, ...]
    outputs: list[Output]
    if_any: tuple[str, ...] = ()


@attrs.define(eq=False)
class Collected:
    """What one step did to one of its `ctx.collect` buffers."""

    types: tuple[str, ...]
    added: tuple[str, Event, Payload | None] | None
    """The event put in, behind the name of the asked-for type that it fills; `None` where the set
    was completed with the step's own event, which so never enters."""
    taken: tuple[int, ...] = ()
    """The ids of the buffered events that the completed set used up."""
    step: str = ""


@attrs.define(eq=False)
class Retry:
    """A delivery that failed and is tried again."""

    id: int
    attempt: int
    due: float
    since: float


class Entry:
    """One transition. `kind` is for people and for the history; what is applied are the other
    fields.

    What an entry does not say stays a default of the class: most say little, and a step makes one.
    """

    step: str | None = None
    """The step that this is about, for people."""
    done: int = 0
    """The id of the item that this consumes; the outputs take its place. 0: none; they go to the
    end of the root."""
    outputs: Sequence[Output] = ()
    """Of an entry that stops the run they are recorded, and go nowhere."""
    fan_out: FanOutOpened | None = None
    fired: list[tuple[int, str]] | tuple[()] = ()
    """(fan-out id, 0 for the root; join): the joins that fire once all above is applied, in this
    order."""
    cells: dict[str, Cell | None] | None = None
    """State writes; `None` deletes."""
    collected: list[Collected] | tuple[()] = ()
    retry: Retry | None = None
    recovers: str | None = None
    """The step whose failure this hands to its handlers: what descends from it is counted."""
    stop: Event | None = None
    stop_payload: Payload | None = None
    status: RunStatus | None = None
    error: StoredError | None = None
    epoch: int | None = None
    created: dict[str, Any] | None = None
    """Of a `started` or `queued` entry: run_id, workflow, workflow_version, metadata (a `Payload`),
    root (whether the root's order is kept), timeout (seconds or `None`); of a `resumed` one:
    workflow_version, root, timeout. Of either, where somebody traces it and the run has none
    yet: trace (the context of its trace, as W3C headers)."""
    effects: list[Item] | tuple[()] = ()
    """The live items that applying this made and that whoever drives the run acts on, in order:
    each a `Delivery`, a `Question` or a `Delayed`. Deliveries of the joins that it fired are among
    them. Never stored."""
    rest: Generator[None, None, None] | None = None
    """Applies what is left of a wide entry, a slice per `next()`; only a machine with `slices`
    leaves any, and it is `None` again at its end. Until then `effects` and `fired` are not
    complete, and the entry can't be encoded. Never stored."""
    encoded: tuple[bytes, dict[str, bytes]] | None = None
    """What `encode_entry` returns, of a wide one that was encoded in slices."""
    sealed: tuple[bytes, dict[str, bytes], bool] | None = None
    """Its bytes, as far as they are known before it is applied; the large payloads that they refer
    to; and whether that is all of it but `fired`. Kept by the codec."""

    def __init__(self, seq: int, kind: str, at: float, elapsed: float) -> None:
        self.seq = seq
        self.kind = kind
        """`started`, `queued` (a run that somebody else is to begin), `committed`, `completed`,
        `retried`, `handled` (a failure given to a StepFailedEvent step), `received`, `answered`,
        `due`, `rejected`, `failed`, `timed_out`, `cancelled`, `paused`, `unpaused`, `waiting`,
        `woken`, `resumed`."""
        self.at = at
        self.elapsed = elapsed


T = TypeVar("T")


def drained(pieces: Generator[Any, None, T]) -> T:
    """Return what a generator comes to, all of it done at once."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            result: T = end.value
            return result


@attrs.frozen
class HistoryRecord:
    """One thing that happened to a run.

    Attributes:
        sequence: Counts the run's records from 1, over all processes that drove it.
        timestamp: When, UTC.
        kind: `workflow_started`, `event_received`, `step_dispatched`, `step_completed`, `step_failed`, `step_retried`,
            `workflow_paused`, `workflow_resumed`, `input_requested`, `input_received`, `event_rejected`,
            `workflow_completed`, `workflow_failed`, `workflow_timed_out` or `workflow_cancelled`.
        step: The step's name, where one is concerned.
        event_type: The event's type, where one is concerned.
        duration: In seconds, of an attempt that ended.
        error: What went wrong; of a pause, whether it was `manual` or for `input`.
    """

    sequence: int
    timestamp: dt.datetime
    kind: str
    step: str | None = None
    event_type: str | None = None
    duration: float | None = None
    error: str | None = None
