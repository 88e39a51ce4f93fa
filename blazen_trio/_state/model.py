"""What a run consists of: live items in the order of their fan-outs, key/value cells, collect
buffers.

Order without paths. The members that a join collects are ordered by where they come from in the
tree of steps (member index, then output index and step declaration order at each hop), never by
time. Such a tree's leaves, kept in a linked list per fan-out in which the outputs of a step take
that step's place, *are* in that order; so no item has to carry its path, and a step costs the same
in the first minute and after a year.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from blazen_trio._state.recoveries import merged
from blazen_trio._state.safe_text import text_of
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from blazen_trio._definitions.events import Event
    from blazen_trio._state.recoveries import Recovered

__all__ = [
    "ID_EPOCH",
    "MOST_EPOCHS",
    "Buffered",
    "Cell",
    "Delayed",
    "Delivery",
    "FanOut",
    "Item",
    "Member",
    "Payload",
    "Pending",
    "Question",
    "RunState",
    "StoredError",
]

ID_EPOCH: Final = 1 << 32
"""Ids of items count up from `epoch * ID_EPOCH`. Each resume raises the epoch on disk before any
step runs, so an id (and with it an idempotency key) that was lost with an unwritten suffix of
the journal is never given to another delivery."""

MOST_EPOCHS: Final = 1 << 30
"""Epochs that are read are less, so that ids have 64 bits however often a run is resumed."""


class Payload:
    """An event or a value as JSON bytes; a large one has a digest and is stored once, apart from
    what refers to it.
    """

    __slots__ = ("data", "digest")

    def __init__(self, data: bytes, digest: str | None = None) -> None:
        self.data = data
        self.digest = digest


class Cell:
    """One committed value of the run's key/value state; never changed, only replaced (so identity
    tells of a change).
    """

    __slots__ = ("payload", "scalar")

    def __init__(self, payload: Payload, scalar: Any = None) -> None:
        self.payload = payload
        self.scalar = scalar
        """A 1-tuple with the value itself where it is an immutable scalar, so that reading it needs
        no decoding."""


class Item:
    """Something live in a run; `group` is the fan-out it belongs to, `None` where no join can ever
    ask for its place.
    """

    __slots__ = ("group", "id", "next", "node", "prev")

    group: FanOut | None
    prev: Item
    next: Item

    def __init__(self, id: int, node: str) -> None:  # noqa: A002
        self.id = id
        self.node = node
        """What this item is to the workflow's graph: the name under which it holds joins back."""
        self.group = None


class Delivery(Item):
    """An event on its way to one step (a tuple of events, to a join): undone until that step has
    committed.
    """

    __slots__ = ("attempt", "due", "event", "payload", "since", "step")

    def __init__(self, id: int, step: str, event: Event | tuple[Event, ...], payload: Any) -> None:  # noqa: A002
        self.id = id
        self.node = self.step = step
        self.group = None
        self.event = event
        self.payload = payload
        """The event's `Payload` (a tuple of them for a join), `None` in a run without a store."""
        self.attempt = 1
        self.due: float | None = None
        """UTC, seconds since the epoch, of a delivery that waits for its next attempt."""
        self.since: float | None = None
        """UTC, when the first attempt of one that has failed began."""


class Delayed(Item):
    """An event that is routed when it is due."""

    __slots__ = ("due", "event", "payload")

    def __init__(self, id: int, event: Event, payload: Payload | None, due: float) -> None:  # noqa: A002
        super().__init__(id, "event:" + event.event_type)
        self.event = event
        self.payload = payload
        self.due = due
        """UTC, seconds since the epoch."""


class Question(Item):
    """An open `InputRequestEvent` (of any subclass; a `DynamicEvent` where the class is not at
    hand).
    """

    __slots__ = ("event", "payload", "request_id")

    def __init__(self, id: int, event: Event, payload: Payload | None, request_id: str) -> None:  # noqa: A002
        super().__init__(id, "question:" + event.event_type)
        self.event = event
        self.payload = payload
        self.request_id = request_id


class _MemberNodes(dict[str, str]):
    """The node of the members of a join, by the join's name: one string for all of them."""

    def __missing__(self, join: str) -> str:
        self[join] = node = "member:" + join
        return node


_MEMBER_NODES: Final = _MemberNodes()


class Member(Item):
    """An event that a join has collected. It holds no join back; its node only counts."""

    __slots__ = ("event", "join", "payload")

    def __init__(self, id: int, join: str, event: Event, payload: Payload | None) -> None:  # noqa: A002
        self.id = id
        self.node = _MEMBER_NODES[join]
        self.group = None
        self.join = join
        self.event = event
        self.payload = payload


class Pending(Item):
    """The place, in the enclosing fan-out, of what a join of a fan-out will return. To the graph it
    is that join's delivery already.
    """

    __slots__ = ("fan_out", "join")

    def __init__(self, id: int, fan_out: FanOut, join: str) -> None:  # noqa: A002
        super().__init__(id, join)
        self.fan_out = fan_out
        self.join = join


class FanOut(Item):
    """An open fan-out, or the run's root: its live items in order, and how many of them hold which
    joins back.

    It is itself the sentinel of the circular list of its items.
    """

    __slots__ = ("if_any", "live", "pending")

    def __init__(self, id: int, if_any: tuple[str, ...] = ()) -> None:  # noqa: A002
        super().__init__(id, "")
        self.prev = self.next = self
        self.live: dict[str, int] = {}
        """How many live items there are of each graph node; absent when there are none."""
        self.pending: dict[str, Pending] = {}
        """The joins that it has still to fire, each with its place in the enclosing fan-out. Empty
        for the root."""
        self.if_any = if_any
        """Those of its joins that fire only if they have collected anything."""

    def __iter__(self) -> Iterator[Item]:
        item = self.next
        while item is not self:
            yield item
            item = item.next

    def insert(self, item: Item, before: Item) -> None:
        """Put `item` in front of `before` (of this fan-out; itself for the end)."""
        item.group = self
        item.next = before
        item.prev = before.prev
        before.prev.next = item
        before.prev = item
        node = item.node
        self.live[node] = self.live.get(node, 0) + 1

    def remove(self, item: Item) -> None:
        """Take `item` out; it goes on naming this as its group, for whoever has just done so."""
        item.prev.next = item.next
        item.next.prev = item.prev
        node = item.node
        left = self.live[node] - 1
        if left:
            self.live[node] = left
        else:
            del self.live[node]

    def taking(
        self, join: str, most: int, table: dict[int, Recovered]
    ) -> Generator[None, None, tuple[list[Any], list[Any], Recovered | None, Item]]:
        """Take out all that a join has collected, looking at `most` items per slice.

        Args:
            join: The join.
            most: The most items of a slice.
            table: The run's recoveries; those of the members are taken out, too.

        Returns:
            The events and their payloads, in order; their recoveries; and the item in front of
            which the first of them was.
        """
        events: list[Any] = []
        payloads: list[Any] = []
        recovered: Recovered | None = None
        left = self.live.pop(_MEMBER_NODES[join], 0)
        looked = 0
        item = self.next
        # What was in front of the first one taken stays where it is, so it tells the place.
        front: Item = self.prev
        while left:
            looked += 1
            if looked % most == 0:
                yield
            following = item.next
            if type(item) is Member and item.join == join:
                if not events:
                    front = item.prev
                events.append(item.event)
                payloads.append(item.payload)
                if table:
                    recovered = merged(recovered, table.pop(item.id, None))
                item.prev.next = following
                following.prev = item.prev
                left -= 1
            item = following
        return events, payloads, recovered, front.next

    def dissolving(self, most: int) -> Generator[None, None, None]:
        """Let go of all items, `most` per slice: their places are of no use any more."""
        item = self.next
        self.prev = self.next = self
        self.live.clear()
        gone = 0
        while item is not self:
            gone += 1
            if gone % most == 0:
                yield
            following = item.next
            item.group = None
            # Without these they are freed one by one; else all at once, by the garbage collector.
            del item.prev, item.next
            item = following


class Buffered:
    """An event in a buffer of `ctx.collect`."""

    __slots__ = ("event", "id", "payload")

    def __init__(self, id: int, event: Event, payload: Payload | None) -> None:  # noqa: A002
        self.id = id
        self.event = event
        self.payload = payload


class StoredError:
    """Why a run ended without a result, as far as it can be stored: `kind` is the class name of one
    of `blazen_trio.errors`.
    """

    __slots__ = ("attempts", "details", "error_type", "kind", "message", "step", "traceback")

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        step: str = "",
        attempts: int = 0,
        error_type: str = "",
        details: tuple[str, ...] = (),
        traceback: str = "",
    ) -> None:
        # Users' code has a say in these texts, so this is where they become storable.
        self.kind = kind
        self.message = text_of(message)
        self.step = step
        self.attempts = attempts
        self.error_type = text_of(error_type)
        self.details = tuple(map(text_of, details))
        """Active steps of a timeout, half collected events of a stall, the reason of a cancel."""
        self.traceback = text_of(traceback)
        """Of the exception that the user's code raised, as text."""


class RunState:
    """All that there is to know of a run; changed only by applying journal entries."""

    __slots__ = (
        "buffers",
        "cells",
        "created",
        "delayed",
        "deliveries",
        "elapsed",
        "epoch",
        "error",
        "fan_outs",
        "history",
        "metadata",
        "next_id",
        "nonce",
        "questions",
        "recovered",
        "root",
        "run_id",
        "seq",
        "status",
        "stop",
        "stop_payload",
        "timeout",
        "trace",
        "updated",
        "workflow",
        "workflow_version",
    )

    def __init__(self, run_id: str, workflow: str, workflow_version: str) -> None:
        self.run_id = run_id
        self.nonce = ""
        """Tells this run from an earlier one of its id, which was deleted, or is in another
        database: idempotency keys are made of both. Empty for runs from before there was one."""
        self.workflow = workflow
        self.workflow_version = workflow_version
        self.metadata: Payload = Payload(b"{}")
        self.trace: Mapping[str, str] | None = None
        """Where the run belongs in a distributed trace, as W3C headers; given once."""
        self.created = 0.0
        self.updated = 0.0
        self.seq = 0
        """The number of the last entry applied; the first is 1."""
        self.epoch = 0
        self.next_id = 1
        self.status = RunStatus.QUEUED
        self.timeout: float | None = None
        """Seconds that the run may take; `None`: no limit."""
        self.elapsed = 0.0
        """Seconds that count against the run's timeout."""
        self.deliveries: dict[int, Delivery] = {}
        self.delayed: dict[int, Delayed] = {}
        self.questions: dict[str, Question] = {}
        self.fan_outs: dict[int, FanOut] = {}
        self.root: FanOut | None = None
        """The root's list, kept only where the workflow has a join."""
        self.cells: dict[str, Cell] = {}
        self.buffers: dict[tuple[str, tuple[str, ...]], dict[str, dict[int, Buffered]]] = {}
        """(step, event types asked for) -> type -> events in order of arrival, by id."""
        self.recovered: dict[int, Recovered] = {}
        """By the id of an item, of a buffered event or of a fan-out: see `recoveries.py`."""
        self.stop: Event | None = None
        self.stop_payload: Payload | None = None
        self.error: StoredError | None = None
        self.history: Sequence[Any] = ()
