"""The state of a run: live items in the order of their fan-outs, key/value cells, collect buffers.

Order without paths. A join's members are ordered by their place in the tree of steps that they come
from (member index, then output index and step declaration order at each hop), never by time. A
linked list per fan-out holds the leaves of that tree, and the outputs of a step take the step's
place, so the list *is* in that order. No item has to carry a path, and a step costs the same in the
first minute and after a year.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from blazen_trio._state.handler_loops import merged
from blazen_trio._state.safe_text import text_of
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from blazen_trio._definitions.events import Event
    from blazen_trio._state.handler_loops import Recovered

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
"""Number of ids per epoch: ids count up from `epoch * ID_EPOCH`. Each resume raises the epoch, on
disk, before any step runs. An id (and with it an idempotency key) that was lost with an unwritten
suffix of the journal is therefore never assigned to another delivery."""

MOST_EPOCHS: Final = 1 << 30
"""Upper limit of epochs in stored data (exclusive), so that ids always fit into 64 bits."""


class Payload:
    """An event or a value as JSON bytes.

    A large one has a digest, and is stored once, apart from the data that refers to it.
    """

    __slots__ = ("data", "digest")

    def __init__(self, data: bytes, digest: str | None = None) -> None:
        self.data = data
        self.digest = digest


class Cell:
    """One committed value of the run's key/value state.

    A cell is never changed, only replaced, so comparing identities detects a change.
    """

    __slots__ = ("payload", "scalar")

    def __init__(self, payload: Payload, scalar: Any = None) -> None:
        self.payload = payload
        self.scalar = scalar
        """A 1-tuple of the value if it is an immutable scalar, so that reads don't decode it."""


class Item:
    """A live item of a run.

    `group` is the fan-out that it belongs to, or `None` if no join can need its place.
    """

    __slots__ = ("group", "id", "next", "node", "prev")

    group: FanOut | None
    prev: Item
    next: Item

    def __init__(self, id: int, node: str) -> None:  # noqa: A002
        self.id = id
        self.node = node
        """The item's node in the workflow's graph: the name under which it holds joins back."""
        self.group = None


class Delivery(Item):
    """An event on its way to one step, or a tuple of events on its way to a join.

    It is pending until that step has committed.
    """

    __slots__ = ("attempt", "due", "event", "payload", "since", "step")

    def __init__(
        self,
        id: int,  # noqa: A002
        step: str,
        event: Event | tuple[Event, ...],
        payload: Any,
    ) -> None:
        self.id = id
        self.node = self.step = step
        self.group = None
        self.event = event
        self.payload = payload
        """The event's `Payload` (a tuple of them for a join); `None` in a run without a store."""
        self.attempt = 1
        self.due: float | None = None
        """Time of the next attempt, if the delivery waits for it: UTC, in epoch seconds."""
        self.since: float | None = None
        """Start of the first attempt, if the delivery has failed: UTC, in epoch seconds."""


class Delayed(Item):
    """An event that is routed when it is due."""

    __slots__ = ("due", "event", "payload")

    def __init__(
        self,
        id: int,  # noqa: A002
        event: Event,
        payload: Payload | None,
        due: float,
    ) -> None:
        super().__init__(id, "event:" + event.event_type)
        self.event = event
        self.payload = payload
        self.due = due
        """Time at which the event is due: UTC, seconds since the epoch."""


class Question(Item):
    """An open `InputRequestEvent` of any subclass, or a `DynamicEvent` if its class is unknown."""

    __slots__ = ("event", "payload", "request_id")

    def __init__(
        self,
        id: int,  # noqa: A002
        event: Event,
        payload: Payload | None,
        request_id: str,
    ) -> None:
        super().__init__(id, "question:" + event.event_type)
        self.event = event
        self.payload = payload
        self.request_id = request_id


class _MemberNodes(dict[str, str]):
    """The node names of joins' members, by join. All members of a join share one string."""

    def __missing__(self, join: str) -> str:
        self[join] = node = "member:" + join
        return node


_MEMBER_NODES: Final = _MemberNodes()


class Member(Item):
    """An event that a join has collected. It holds no join back; its node is only counted."""

    __slots__ = ("event", "join", "payload")

    def __init__(
        self,
        id: int,  # noqa: A002
        join: str,
        event: Event,
        payload: Payload | None,
    ) -> None:
        self.id = id
        self.node = _MEMBER_NODES[join]
        self.group = None
        self.join = join
        self.event = event
        self.payload = payload


class Pending(Item):
    """The place, in the enclosing fan-out, of a join's future output.

    The graph treats it as that join's delivery.
    """

    __slots__ = ("fan_out", "join")

    def __init__(self, id: int, fan_out: FanOut, join: str) -> None:  # noqa: A002
        super().__init__(id, join)
        self.fan_out = fan_out
        self.join = join


class FanOut(Item):
    """An open fan-out, or the run's root: its live items in order, and their number per node.

    It is itself the sentinel of the circular list of its items.
    """

    __slots__ = ("if_any", "live", "pending")

    def __init__(self, id: int, if_any: tuple[str, ...] = ()) -> None:  # noqa: A002
        super().__init__(id, "")
        self.prev = self.next = self
        self.live: dict[str, int] = {}
        """The number of live items per graph node; a node without any is absent."""
        self.pending: dict[str, Pending] = {}
        """The joins that it has not fired yet, each with its place in the enclosing fan-out. Empty
        for the root."""
        self.if_any = if_any
        """Its joins that fire only if they have collected something."""

    def __iter__(self) -> Iterator[Item]:
        item = self.next
        while item is not self:
            yield item
            item = item.next

    def insert(self, item: Item, before: Item) -> None:
        """Insert `item` in front of `before`, an item of this fan-out, or itself for the end."""
        item.group = self
        item.next = before
        item.prev = before.prev
        before.prev.next = item
        before.prev = item
        node = item.node
        self.live[node] = self.live.get(node, 0) + 1

    def remove(self, item: Item) -> None:
        """Remove `item`. Its `group` remains set, because the caller still needs it."""
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
        """Remove and return everything that a join has collected.

        Args:
            join: The join.
            most: The maximum number of items examined per slice.
            table: The run's recoveries. Those of the members are removed, too.

        Returns:
            The events and their payloads, in order; their merged recoveries; and the item in front
            of which the first of them was.
        """
        events: list[Any] = []
        payloads: list[Any] = []
        recovered: Recovered | None = None
        left = self.live.pop(_MEMBER_NODES[join], 0)
        looked = 0
        item = self.next
        # The item in front of the first member removed stays, so it marks the place.
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
        """Drop the places of all items, `most` per slice. They are not needed any more."""
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
            # Breaks the cycle of links, so that each item is freed here. Otherwise the garbage
            # collector frees all of them at once, which blocks the event loop.
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
    """The reason why a run ended without a result, in storable form.

    `kind` is the name of a class in `blazen_trio.errors`.
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
        # These texts may come from users' code, so they are made storable here.
        self.kind = kind
        self.message = text_of(message)
        self.step = step
        self.attempts = attempts
        self.error_type = text_of(error_type)
        self.details = tuple(map(text_of, details))
        """The active steps of a timeout, incomplete joins of a stall, or reason of a cancel."""
        self.traceback = text_of(traceback)
        """The traceback of the exception that the user's code raised, as text."""


class RunState:
    """The complete state of a run. It changes only when journal entries are applied."""

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
        """A random string that distinguishes the run from another one with the same id, which was
        deleted or is in another database. Idempotency keys contain both. Empty for old runs that
        were created without one."""
        self.workflow = workflow
        self.workflow_version = workflow_version
        self.metadata: Payload = Payload(b"{}")
        self.trace: Mapping[str, str] | None = None
        """The context of the run's distributed trace, as W3C headers. Set at most once."""
        self.created = 0.0
        self.updated = 0.0
        self.seq = 0
        """The number of the last entry applied. The first entry is number 1."""
        self.epoch = 0
        self.next_id = 1
        self.status = RunStatus.QUEUED
        self.timeout: float | None = None
        """Seconds that the run may be at work; `None` for no limit."""
        self.elapsed = 0.0
        """Seconds that count against the run's timeout."""
        self.deliveries: dict[int, Delivery] = {}
        self.delayed: dict[int, Delayed] = {}
        self.questions: dict[str, Question] = {}
        self.fan_outs: dict[int, FanOut] = {}
        self.root: FanOut | None = None
        """The root's list, kept only if the workflow has a join."""
        self.cells: dict[str, Cell] = {}
        self.buffers: dict[tuple[str, tuple[str, ...]], dict[str, dict[int, Buffered]]] = {}
        """(step, requested event types) -> type -> events by id, in order of arrival."""
        self.recovered: dict[int, Recovered] = {}
        """Recoveries by the id of an item, buffered event or fan-out. See `recoveries.py`."""
        self.stop: Event | None = None
        self.stop_payload: Payload | None = None
        self.error: StoredError | None = None
        self.history: Sequence[Any] = ()
