"""Restoring of a run's state from its document. Everything is checked: it is untrusted input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from blazen_trio._codec.entries import cell_of, status_of
from blazen_trio._codec.histories import record_of
from blazen_trio._codec.lines import Pace, parse_parts
from blazen_trio._codec.names import short
from blazen_trio._codec.reader import (
    Reader,
    Whole,
    error_of,
    metadata_of,
    question_id,
    rubbish,
)
from blazen_trio._state.entry import drained
from blazen_trio._state.model import (
    MOST_EPOCHS,
    Buffered,
    Delayed,
    Delivery,
    FanOut,
    Item,
    Member,
    Pending,
    Question,
    RunState,
)
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from blazen_trio._codec.codec import Codec
    from blazen_trio._definitions.events import Event
    from blazen_trio._state.entry import HistoryRecord
    from blazen_trio._state.model import Payload

__all__ = ["decode_state", "restoring"]

T = TypeVar("T")


def decode_state(data: bytes, blobs: Mapping[str, bytes], codec: Codec) -> RunState:
    """Decode the state that `iter_state` wrote. Payloads have exactly the bytes they had.

    Args:
        data: The document.
        blobs: The large values that it refers to, by digest.
        codec: The codec for its events.

    Raises:
        SnapshotVersionError: It was written by a newer version of this package.
        SerializationError: It is invalid, or an event in it does not match its class.
    """
    return drained(restoring(data, blobs, codec))


def restoring(
    data: bytes, blobs: Mapping[str, bytes], codec: Codec
) -> Generator[None, None, RunState]:
    """Return the result of `decode_state`, in slices of at most one line.

    A plain document, and a single large event, are parsed in one piece.
    """
    head, parts = parse_parts(data, "snapshot", "version")
    whole = Whole("snapshot", blobs, codec)
    restoring = _Restoring(Reader(head, "", whole))
    for path, part in parts:
        if part is head and type(part.get("state")) is not dict:
            raise rubbish("snapshot", "state", "expected an object with the run's state")
        yield from restoring.part(Reader(part, path, whole))
        yield
    yield from restoring.finish()
    return restoring.state


class _Restoring:
    """Builder of a state, part by part."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ids: set[int] = set()
        self._pace = Pace()
        self._joined: dict[int, tuple[list[Event], list[Payload]]] = {}
        """The events of joins' deliveries, as far as they have been read."""
        self._history: list[HistoryRecord] = []
        self.state = self._head()

    def part(self, reader: Reader) -> Generator[None, None, None]:
        """Read a part: the whole document, or one line."""
        yield from self._cells(reader)
        for each in reader.each("fan_outs"):
            self._fan_out(each)
            if self._pace.full(0):
                yield
        for each in reader.each("items"):
            yield from self._item(each)
        for each in reader.each("collected"):
            if self._pace.full(self._buffer(each)):
                yield
        for each in reader.each("history"):
            self._history.append(record_of(each))
            if self._pace.full(0):
                yield

    def finish(self) -> Generator[None, None, None]:
        """Finish the state once all parts are read, and sort its tables by id.

        Items are stored in the order of their places, not of their ids.
        """
        state = self.state
        if state.stop is not None and self._ids:
            raise self._reader.fail("items", "a completed run has no pending items")
        for fan_out in state.fan_outs.values():
            for join, pending in fan_out.pending.items():
                if pending is None:
                    raise self._reader.fail(
                        "fan_outs", f"fan-out {fan_out.id} has no place for {short(join)}"
                    )
            if self._pace.full(0):
                yield
        for id_, (events, payloads) in self._joined.items():
            delivery = state.deliveries[id_]
            delivery.event, delivery.payload = tuple(events), tuple(payloads)
        state.history = self._history
        # A live run's tables are in the order in which ids were assigned, and so are these.
        state.deliveries = yield from self._sorted(state.deliveries)
        state.delayed = yield from self._sorted(state.delayed)
        questions = yield from self._sorted({one.id: one for one in state.questions.values()})
        state.questions = {one.request_id: one for one in questions.values()}

    def _sorted(self, table: dict[int, T]) -> Generator[None, None, dict[int, T]]:
        last = 0
        for id_ in table:
            if id_ < last:
                break
            last = id_
            if self._pace.full(0):
                yield
        else:
            return table
        ordered = {}
        for id_ in sorted(table):
            ordered[id_] = table[id_]
            if self._pace.full(0):
                yield
        return ordered

    def _head(self) -> RunState:
        reader = self._reader
        state = RunState(
            reader.take("run_id", str),
            reader.take("workflow", str),
            reader.take("workflow_version", str),
        )
        state.status = status_of(reader, "status")
        state.timeout = reader.seconds("timeout") if reader.raw("timeout") is not None else None
        state.elapsed = reader.seconds("elapsed")
        state.seq = reader.count("seq")
        state.epoch = reader.count("epoch", below=MOST_EPOCHS)
        state.next_id = reader.count("next_id", least=1)
        state.created = reader.seconds("created")
        state.updated = reader.seconds("updated")
        state.root = FanOut(0) if reader.take("rooted", bool) else None
        reader.take("timestamp", str)
        if reader.raw("metadata") is not None:
            state.metadata = metadata_of(reader)
        state.trace = reader.texts("trace")
        state.nonce = reader.maybe("nonce", str) or ""
        if reader.raw("stop") is not None:
            state.stop, state.stop_payload = reader.event("stop")
        if (error := reader.inner("error")) is not None:
            state.error = error_of(error)
        self._check_end(state)
        return state

    def _check_end(self, state: RunState) -> None:
        """Refuse a document whose status contradicts its stop event or error."""
        status, reader = state.status, self._reader
        completed = status is RunStatus.COMPLETED
        if completed and state.stop is None:
            raise reader.fail("stop", "a completed run must have a stop event")
        if state.stop is not None and not completed:
            raise reader.fail("stop", f"a run that is {status.value} can't have a stop event")
        if state.error is None and status.ended and not completed:
            raise reader.fail("error", f"a run that is {status.value} must have an error")
        if state.error is not None and (completed or not status.ended):
            raise reader.fail("error", f"a run that is {status.value} can't have an error")

    def _cells(self, reader: Reader) -> Generator[None, None, None]:
        if (within := reader.inner("state")) is None:
            return
        for key in reader.take("state", dict):
            payload = within.payload(key)
            self.state.cells[key] = cell_of(payload)
            if self._pace.full(len(payload.data)):
                yield

    def _id(self, reader: Reader, key: str) -> int:
        id_ = reader.count(key, least=1)
        if id_ in self._ids or id_ >= self.state.next_id:
            raise reader.fail(key, f"the id {id_} occurs twice, or was never assigned")
        self._ids.add(id_)
        if (recovered := reader.inner("recovered")) is not None:
            steps = reader.take("recovered", dict)
            self.state.recovered[id_] = {step: recovered.count(step, least=1) for step in steps}
        return id_

    def _fan_out(self, reader: Reader) -> None:
        fan_out = FanOut(self._id(reader, "fan_out"), reader.names("if_any"))
        # In their order. Each gets its place when that is read among the items.
        fan_out.pending = dict.fromkeys(reader.names("joins"))  # type: ignore[assignment]
        self.state.fan_outs[fan_out.id] = fan_out

    def _group(self, reader: Reader) -> FanOut | None:
        if reader.raw("group") is None:
            return None
        id_ = reader.count("group")
        group = self.state.fan_outs.get(id_) if id_ else self.state.root
        if group is None:
            raise reader.fail("group", f"there is no fan-out {id_}")
        return group

    def _item(self, reader: Reader) -> Generator[None, None, None]:
        make = {
            "delivery": self._delivery,
            "member": self._member,
            "delayed": self._delayed,
            "question": self._question,
            "pending": self._pending,
        }
        data = reader.data
        kind = next(iter(data)) if type(data) is dict and data else None
        if kind == "more":
            yield from self._events(reader, reader.count("more", least=1))
            return
        if kind not in make:
            kinds = ", ".join(make)
            raise reader.fail(0, f"an item's first key must be one of {kinds}, not {short(kind)}")
        group = self._group(reader)
        item = make[kind](reader)
        if isinstance(item, Pending) and group is not None and group.id >= item.fan_out.id:
            # A fan-out is opened inside an older one, with a smaller id, so there are no cycles.
            raise reader.fail("group", f"fan-out {item.fan_out.id} can't be inside {group.id}")
        if group is not None:
            group.insert(item, group)
        elif kind == "member":
            raise reader.fail("group", "an event collected by a join must belong to a fan-out")
        if isinstance(item, Delivery) and type(item.event) is tuple:
            self._joined[item.id] = [], []
            yield from self._events(reader, item.id)
        elif self._pace.full(len(getattr(getattr(item, "payload", None), "data", b""))):
            yield

    def _events(self, reader: Reader, id_: int) -> Generator[None, None, None]:
        """Read the events of a join's delivery: all, or the next ones."""
        if id_ not in self._joined:
            raise reader.fail(
                "more", f"there is no delivery {id_} of a join that it could continue"
            )
        events, payloads = self._joined[id_]
        listed = reader.inner("events")
        for index in range(len(reader.take("events", list))):
            assert listed is not None
            event, payload = listed.event(index)
            events.append(event)
            payloads.append(payload)
            if self._pace.full(len(payload.data)):
                yield

    def _delivery(self, reader: Reader) -> Item:
        id_, step = self._id(reader, "delivery"), reader.take("step", str)
        event: Any = ()
        payload: Any = ()
        if reader.raw("events") is None:
            event, payload = reader.event("event")
        delivery = Delivery(id_, step, event, payload)
        delivery.attempt = reader.count("attempt", 1, least=1)
        delivery.due = reader.maybe_seconds("due")
        delivery.since = reader.maybe_seconds("since")
        self.state.deliveries[id_] = delivery
        return delivery

    def _member(self, reader: Reader) -> Item:
        return Member(self._id(reader, "member"), reader.take("join", str), *reader.event("event"))

    def _delayed(self, reader: Reader) -> Item:
        delayed = Delayed(
            self._id(reader, "delayed"), *reader.event("event"), reader.seconds("due")
        )
        self.state.delayed[delayed.id] = delayed
        return delayed

    def _question(self, reader: Reader) -> Item:
        id_ = self._id(reader, "question")
        event, payload = reader.event("event")
        question = Question(id_, event, payload, question_id(reader, "request_id", event))
        if self.state.questions.setdefault(question.request_id, question) is not question:
            raise reader.fail("request_id", f"{short(question.request_id)} occurs twice")
        return question

    def _pending(self, reader: Reader) -> Item:
        id_, join = self._id(reader, "pending"), reader.take("join", str)
        fan_out = self.state.fan_outs.get(reader.count("fan_out", least=1))
        if fan_out is None or fan_out.pending.get(join, id_) is not None:
            raise reader.fail("fan_out", f"no fan-out waits for {short(join)}, or it occurs twice")
        pending = fan_out.pending[join] = Pending(id_, fan_out, join)
        return pending

    def _buffer(self, reader: Reader) -> int:
        id_ = self._id(reader, "buffered")
        by_type = self.state.buffers.setdefault(
            (reader.take("step", str), reader.repeated("types")), {}
        )
        event, payload = reader.event("event")
        by_type.setdefault(reader.take("type", str), {})[id_] = Buffered(id_, event, payload)
        return len(payload.data)
