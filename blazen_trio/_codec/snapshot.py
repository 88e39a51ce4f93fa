"""Snapshots of a run at one moment, for people and for resuming."""

from __future__ import annotations

import datetime as dt
import functools
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.document import iter_state, large_values
from blazen_trio._codec.reader import rubbish
from blazen_trio._codec.restore import decode_state, restoring
from blazen_trio._definitions.events import DynamicEvent, Event, InputRequestEvent, StopEvent
from blazen_trio._state.entry import drained
from blazen_trio._state.model import Member
from blazen_trio._state.status import RunStatus  # noqa: TC001  # attrs resolves it

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from blazen_trio._codec.codec import Codec
    from blazen_trio._state.entry import HistoryRecord
    from blazen_trio._state.model import Item, Question, RunState

__all__ = [
    "Snapshot",
    "SnapshotCollected",
    "SnapshotDelayed",
    "SnapshotDelivery",
    "SnapshotFanOut",
    "blob_digests",
    "decode_state",
    "iter_state",
    "large_values",
]


@attrs.frozen
class SnapshotDelivery:
    """A pending delivery.

    Attributes:
        id: Its id.
        step: The step that it is for.
        event: The event; for a join, a tuple of events.
        attempt: The attempt that is next or was in flight, from 1.
        due: The time at which it may start, UTC; `None` for at once.
        fan_out: The id of its fan-out; 0 for the run's root; `None` for none whose order is kept.
    """

    id: int
    step: str
    event: Event | tuple[Event, ...]
    attempt: int
    due: dt.datetime | None
    fan_out: int | None


@attrs.frozen
class SnapshotCollected:
    """An event that waits in a join or in a `ctx.collect` buffer.

    Attributes:
        step: The join, or the step that collects.
        event: The event.
        types: The event types requested by `ctx.collect`; empty for a join.
        fan_out: For a join, the id of the event's fan-out; 0 for the run's root.
    """

    step: str
    event: Event
    types: tuple[str, ...] = ()
    fan_out: int | None = None


@attrs.frozen
class SnapshotFanOut:
    """An open fan-out.

    Attributes:
        id: Its id.
        joins: The joins that it has not fired yet.
        live: The number of live items in it that hold them back, by step (or by `event:` or
            `question:` with the event's type).
    """

    id: int
    joins: tuple[str, ...]
    live: dict[str, int]


@attrs.frozen
class SnapshotDelayed:
    """An event that is routed later.

    Attributes:
        event: The event.
        due: The time at which it is routed, UTC.
        fan_out: The id of its fan-out; 0 for the run's root; `None` for none whose order is kept.
    """

    event: Event
    due: dt.datetime
    fan_out: int | None


def _instant(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _group_of(item: Item) -> int | None:
    return None if item.group is None else item.group.id


@attrs.frozen(eq=False)
class Snapshot:
    """A run at one moment, with everything that resuming needs. Equal contents compare equal.

    A snapshot needs no workflow. Its contents are decoded on first use, with events as
    `DynamicEvent` and objects of classes that are not builtins as `DynamicValue`.

    Attributes:
        version: The format's version.
        workflow_name: The workflow's name.
        workflow_version: The version of the workflow that ran it last.
        run_id: The run's id.
        timestamp: The time of the run's last change, UTC.
        status: The run's status.
        elapsed: Seconds that count against the run's timeout.
        seq: The number of its last transition.
        error: The reason why it failed, or `None`.
    """

    version: int
    workflow_name: str
    workflow_version: str
    run_id: str
    timestamp: dt.datetime
    status: RunStatus
    elapsed: float
    seq: int
    error: str | None
    _document: bytes = attrs.field(repr=False)

    def __eq__(self, other: object) -> bool:
        return self._document == other._document if isinstance(other, Snapshot) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._document)

    @classmethod
    def from_state(
        cls,
        state: RunState,
        *,
        codec: Codec = PLAIN,
        history: Sequence[HistoryRecord] | None = None,
    ) -> Snapshot:
        """Take a snapshot of a run's state. `codec` encodes the events of a run without a store."""
        return drained(cls.making(state, codec=codec, history=history))

    @classmethod
    def making(
        cls,
        state: RunState,
        *,
        codec: Codec = PLAIN,
        history: Sequence[HistoryRecord] | None = None,
    ) -> Generator[None, None, Snapshot]:
        """Return the result of `from_state`, in slices. The state must not change in between."""
        pieces = []
        for piece in iter_state(state, inline=True, codec=codec, history=history):
            pieces.append(piece)
            yield
        return cls.from_pieces(state, pieces)

    @classmethod
    def from_pieces(cls, state: RunState, pieces: Sequence[bytes]) -> Snapshot:
        """Build a snapshot from the pieces produced by `iter_state(state, inline=True)`."""
        return cls(
            version=1,
            workflow_name=state.workflow,
            workflow_version=state.workflow_version,
            run_id=state.run_id,
            timestamp=_instant(state.updated),
            status=state.status,
            elapsed=state.elapsed,
            seq=state.seq,
            error=None if state.error is None else state.error.message,
            document=b"".join(pieces),
        )

    def to_state(self, codec: Codec) -> RunState:
        """Decode the run's state, with the events decoded by a workflow's codec.

        Raises:
            SerializationError: An event does not match its class.
        """
        return drained(self.to_state_in_pieces(codec))

    def to_state_in_pieces(self, codec: Codec) -> Generator[None, None, RunState]:
        """Return the result of `to_state`, in slices. The first one parses the whole snapshot."""
        return restoring(self._document, {}, codec)

    def to_json(self) -> str:
        """Return the snapshot as JSON."""
        return self._document.decode()

    @classmethod
    def from_json(cls, data: str | bytes) -> Snapshot:
        """Load a snapshot from the output of `to_json`.

        Raises:
            SnapshotVersionError: It was written by a newer version of this package.
            SerializationError: It is invalid.
        """
        try:
            return cls._from_document(orjson.loads(data))
        except orjson.JSONDecodeError as error:
            raise rubbish("snapshot", "", f"it is not JSON ({error})") from error

    def to_msgpack(self) -> bytes:
        """Return the snapshot as msgpack."""
        import ormsgpack

        return ormsgpack.packb(orjson.loads(self._document))

    @classmethod
    def from_msgpack(cls, data: bytes) -> Snapshot:
        """Load a snapshot from the output of `to_msgpack`.

        Raises:
            SnapshotVersionError: It was written by a newer version of this package.
            SerializationError: It is invalid.
        """
        import ormsgpack

        try:
            return cls._from_document(ormsgpack.unpackb(data))
        except ormsgpack.MsgpackDecodeError as error:
            raise rubbish("snapshot", "", f"it is not msgpack ({error})") from error

    @classmethod
    def _from_document(cls, content: Any) -> Snapshot:
        try:
            document = orjson.dumps(content)
        except orjson.JSONEncodeError as error:
            raise rubbish("snapshot", "", str(error)) from error
        # Decoding checks all of it. Encoding it again makes snapshots of equal contents identical,
        # byte for byte, which `__eq__` relies on.
        return cls.from_state(decode_state(document, {}, PLAIN))

    @functools.cached_property
    def run_state(self) -> RunState:
        """The whole state in the engine's own form. For internal use."""
        return decode_state(self._document, {}, PLAIN)

    @property
    def state(self) -> dict[str, Any]:
        """The run's key/value state."""
        return {
            key: PLAIN.decode_value(cell.payload.data, key)
            for key, cell in self.run_state.cells.items()
        }

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata given when the run was started."""
        metadata: dict[str, Any] = PLAIN.decode_value(self.run_state.metadata.data, "metadata")
        return metadata

    @property
    def deliveries(self) -> tuple[SnapshotDelivery, ...]:
        """The pending deliveries, oldest first."""
        return tuple(
            SnapshotDelivery(
                item.id,
                item.step,
                item.event,
                item.attempt,
                None if item.due is None else _instant(item.due),
                _group_of(item),
            )
            for item in self.run_state.deliveries.values()
        )

    @property
    def collected(self) -> tuple[SnapshotCollected, ...]:
        """The events that wait in joins, in join order, then those in `ctx.collect` buffers."""
        state = self.run_state
        groups = ([] if state.root is None else [state.root]) + list(state.fan_outs.values())
        members = [
            SnapshotCollected(item.join, item.event, fan_out=group.id)
            for group in groups
            for item in group
            if isinstance(item, Member)
        ]
        buffered = [
            SnapshotCollected(step, one.event, types)
            for (step, types), by_type in state.buffers.items()
            for events in by_type.values()
            for one in events.values()
        ]
        return (*members, *buffered)

    @property
    def fan_outs(self) -> tuple[SnapshotFanOut, ...]:
        """The open fan-outs."""
        return tuple(
            SnapshotFanOut(one.id, tuple(one.pending), dict(one.live))
            for one in self.run_state.fan_outs.values()
        )

    @property
    def delayed(self) -> tuple[SnapshotDelayed, ...]:
        """The delayed events."""
        return tuple(
            SnapshotDelayed(item.event, _instant(item.due), _group_of(item))
            for item in self.run_state.delayed.values()
        )

    @property
    def input_requests(self) -> tuple[InputRequestEvent, ...]:
        """The open questions, oldest first. Subclasses are reduced to `InputRequestEvent`."""
        return tuple(_as_request(question) for question in self.run_state.questions.values())

    @property
    def result(self) -> Any:
        """The result of a completed run (the event if its `StopEvent` is typed), else `None`."""
        stop = self.run_state.stop
        if (
            isinstance(stop, DynamicEvent)
            and stop.event_type == StopEvent.event_type
            and "result" in stop.data
        ):
            return PLAIN.decode_value(orjson.dumps(stop.data["result"]), "result")
        return stop

    @property
    def traceback(self) -> str | None:
        """The traceback of the exception that failed the run, as text, else `None`.

        A step or the input handler raised it.
        """
        error = self.run_state.error
        return None if error is None else error.traceback or None

    @property
    def history(self) -> tuple[HistoryRecord, ...]:
        """The run's history."""
        return tuple(self.run_state.history)


def _as_request(question: Question) -> InputRequestEvent:
    """Return the `InputRequestEvent` of a question whose class may be unknown.

    It has only the fields of the base class.
    """
    event = question.event
    if isinstance(event, InputRequestEvent):
        return event
    data: dict[str, Any] = getattr(event, "data", {})
    prompt, metadata = (
        data.get("prompt"),
        PLAIN.decode_value(orjson.dumps(data.get("metadata")), "metadata"),
    )
    return InputRequestEvent(
        prompt if isinstance(prompt, str) else "",
        metadata if isinstance(metadata, dict) else {},
        question.request_id,
    )


def blob_digests(state: RunState) -> frozenset[str]:
    """Return the digests of the large values that a state refers to."""
    return frozenset(large_values(state))
