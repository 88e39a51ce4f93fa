"""Journal entries and history records.

An entry is one transition of a run. It contains everything that applying it again needs, and only
what changed. It records where each event was routed and which joins fired, so folding a journal
needs no workflow. A wide entry is applied in slices: its `rest` is a generator that does a bounded
amount of work per `next()`.
"""

from __future__ import annotations

import datetime as dt  # noqa: TC003  # attrs resolves it
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from blazen_trio._definitions.targets import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from blazen_trio._definitions.events import Event
    from blazen_trio._definitions.targets import Targets
    from blazen_trio._state.model import Cell, Item, Payload, StoredError
    from blazen_trio._state.status import RunStatus

__all__ = [
    "Collected",
    "Entry",
    "FanOutOpened",
    "HistoryRecord",
    "Output",
    "Questions",
    "Retry",
    "drained",
]


class Output:
    """An event that a transition adds to the run, and its destinations."""

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
        """Time at which a delayed event is routed: UTC, in seconds since the epoch."""
        self.request_id = request_id
        """The id of the question that an input request opens."""


@attrs.define(eq=False)
class FanOutOpened:
    """A returned list, as a fan-out.

    It has at least one join. Those in `if_any` fire only if they have collected something.
    """

    joins: tuple[str, ...]
    outputs: list[Output]
    if_any: tuple[str, ...] = ()


@attrs.define(eq=False)
class Collected:
    """One step's change to one of its `ctx.collect` buffers."""

    types: tuple[str, ...]
    added: tuple[str, Event, Payload | None] | None
    """The event added, after the name of the requested type that it fills. `None` if the step's own
    event completed the set, because it then never enters the buffer."""
    taken: tuple[int, ...] = ()
    """The ids of the buffered events that the completed set used up."""
    step: str = ""


@attrs.define(eq=False)
class Retry:
    """A retry of a delivery that failed; `due` and `since` are UTC, in seconds since the epoch."""

    id: int
    attempt: int
    due: float
    since: float


@attrs.define(eq=False)
class Questions:
    """Changes to the open questions of a run. No other question of the run ever has the same id.

    Attributes:
        opened: The `request_id` of each question that is open now and was not, by its id.
        closed: The `request_id` of each question that is not open any more, by its id.
        whole: Whether the opened ones are all open questions, whatever was open before.
    """

    opened: dict[int, str] = attrs.field(factory=dict)
    closed: dict[int, str] = attrs.field(factory=dict)
    whole: bool = False

    def add(self, later: Questions) -> None:
        """Add later changes. A question that was opened and closed leaves no trace."""
        if later.whole:
            self.opened, self.closed, self.whole = dict(later.opened), {}, True
            return
        self.opened.update(later.opened)
        for id_, request_id in later.closed.items():
            if self.opened.pop(id_, None) is None and not self.whole:
                self.closed[id_] = request_id


class Entry:
    """One transition of a run. `kind` is for people and the history; the other fields are applied.

    Fields that an entry does not set stay defaults of the class. Each step makes an entry, and most
    entries set few fields, so this keeps them cheap.
    """

    step: str | None = None
    """The step that the entry is about, for people."""
    done: int = 0
    """The id of the item that the entry consumes; the outputs take its place. With 0 no item is
    consumed, and the outputs go to the end of the root."""
    outputs: Sequence[Output] = ()
    """The events added. In an entry that stops the run they are recorded, but not routed."""
    fan_out: FanOutOpened | None = None
    fired: list[tuple[int, str]] | tuple[()] = ()
    """The joins that fire once everything above is applied, in this order, each as (fan-out id or 0
    for the root, join)."""
    cells: dict[str, Cell | None] | None = None
    """State writes by key; `None` deletes the key."""
    collected: list[Collected] | tuple[()] = ()
    retry: Retry | None = None
    recovers: str | None = None
    """The step whose failure the entry passes to handlers. What descends from it is counted."""
    stop: Event | None = None
    stop_payload: Payload | None = None
    status: RunStatus | None = None
    error: StoredError | None = None
    epoch: int | None = None
    created: dict[str, Any] | None = None
    """The run's properties. A `started` or `queued` entry has run_id, workflow, workflow_version,
    metadata (a `Payload`), root (whether the root's order is kept) and timeout (seconds or `None`).
    A `resumed` entry has workflow_version, root and timeout. Either also has trace (the context of
    the run's trace, as W3C headers) if the run is traced and has no trace yet."""
    effects: list[Item] | tuple[()] = ()
    """The live items that applying the entry created and that the driver acts on, in order: each a
    `Delivery`, a `Question` or a `Delayed`. They include the deliveries of the joins that it fired.
    Never stored."""
    questions: Questions | None = None
    """The changes that applying the entry made to the open questions; `None`: there are none. Never
    stored."""
    rest: Generator[None, None, None] | None = None
    """The generator that applies the rest of a wide entry, one slice per `next()`; `None` once it
    has ended. Only a machine with `slices` sets it. Until it has ended, `effects` and `fired` are
    incomplete, so the entry must not be encoded. Never stored."""
    encoded: tuple[bytes, dict[str, bytes]] | None = None
    """The result of `encode_entry` for a wide entry that was encoded in slices."""
    sealed: tuple[bytes, dict[str, bytes], bool] | None = None
    """The entry's bytes, as far as they are known before it is applied; the large payloads that
    they refer to; and whether only `fired` is missing. Kept by the codec."""

    def __init__(self, seq: int, kind: str, at: float, elapsed: float | None) -> None:
        self.seq = seq
        self.kind = kind
        """`started`, `queued` (a run that another process will start), `committed`, `completed`,
        `retried`, `handled` (a failure passed to a StepFailedEvent step), `received`, `answered`,
        `due`, `rejected`, `failed`, `timed_out`, `cancelled`, `paused`, `unpaused`, `waiting`,
        `woken`, `resumed`."""
        self.at = at
        self.elapsed = elapsed
        """Seconds that count against the run's timeout; `None`: as many as before, because the
        entry's author does not know how many those are."""


T = TypeVar("T")


def drained(pieces: Generator[Any, None, T]) -> T:
    """Run a generator to its end, without yielding in between, and return its result."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            result: T = end.value
            return result


@attrs.frozen
class HistoryRecord:
    """A record of something that happened to a run.

    Attributes:
        sequence: The record's number in the run, from 1, across all processes that drove it.
        timestamp: The time of the record, UTC.
        kind: `workflow_started`, `event_received`, `step_dispatched`, `step_completed`,
            `step_failed`, `step_retried`, `workflow_paused`, `workflow_resumed`, `input_requested`,
            `input_received`, `event_rejected`, `workflow_completed`, `workflow_failed`,
            `workflow_timed_out` or `workflow_cancelled`.
        step: The step's name, if a step is concerned.
        event_type: The event's type, if an event is concerned.
        duration: The duration in seconds of an attempt that ended.
        error: The error, if something went wrong; for a pause, `manual` or `input`.
    """

    sequence: int
    timestamp: dt.datetime
    kind: str
    step: str | None = None
    event_type: str | None = None
    duration: float | None = None
    error: str | None = None
