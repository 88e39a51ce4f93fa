"""A run's state from its document: checked throughout, for anybody may have written it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blazen_trio._codec.document import VERSION
from blazen_trio._codec.entries import cell_of, record_of, status_of
from blazen_trio._codec.names import short
from blazen_trio._codec.reader import Reader, error_of, parse
from blazen_trio._state.model import Buffered, Delayed, Delivery, FanOut, Item, Member, Pending, Question, RunState
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blazen_trio._codec.codec import Codec

__all__ = ["decode_state"]


def decode_state(data: bytes, blobs: Mapping[str, bytes], codec: Codec) -> RunState:
    """The state that `iter_state` wrote, with the payloads' bytes as they were.

    Args:
        data: The document.
        blobs: The large values that it refers to, by digest.
        codec: Decodes its events.

    Raises:
        SnapshotVersionError: It was written by a newer version of this package.
        SerializationError: It is rubbish, or an event in it does not fit its class.
    """
    return _Restoring(Reader(parse(data, "snapshot", "version", VERSION), "", "snapshot", blobs, codec)).state


class _Restoring:
    """Builds the state part by part."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ids: set[int] = set()
        self.state = self._head()
        self._cells()
        self._fan_outs()
        for each in reader.each("items"):
            self._item(each)
        self._check_pending()
        for each in reader.each("collected"):
            self._buffer(each)
        self.state.history = [record_of(each) for each in reader.each("history")]
        self._order()

    def _head(self) -> RunState:
        reader = self._reader
        state = RunState(reader.take("run_id", str), reader.take("workflow", str), reader.take("workflow_version", str))
        state.status = status_of(reader, "status")
        state.timeout = reader.seconds("timeout") if reader.raw("timeout") is not None else None
        state.elapsed = reader.seconds("elapsed")
        state.seq = reader.count("seq")
        state.epoch = reader.count("epoch")
        state.next_id = reader.count("next_id", least=1)
        state.created = reader.seconds("created")
        state.updated = reader.seconds("updated")
        state.root = FanOut(0) if reader.take("rooted", bool) else None
        reader.take("timestamp", str)
        if reader.raw("metadata") is not None:
            state.metadata = reader.payload("metadata")
        state.trace = reader.texts("trace")
        if reader.raw("stop") is not None:
            state.stop, state.stop_payload = reader.event("stop")
        elif state.status is RunStatus.COMPLETED:
            raise reader.fail("stop", "a completed run has the event that ended it")
        if (error := reader.inner("error")) is not None:
            state.error = error_of(error)
        return state

    def _cells(self) -> None:
        cells = self._reader.take("state", dict)
        within = Reader(cells, "state", self._reader.what, self._reader.blobs, self._reader.codec)
        self.state.cells = {key: cell_of(within.payload(key)) for key in cells}

    def _id(self, reader: Reader, key: str) -> int:
        id_ = reader.count(key, least=1)
        if id_ in self._ids or id_ >= self.state.next_id:
            raise reader.fail(key, f"the id {id_} is there twice, or was not given yet")
        self._ids.add(id_)
        return id_

    def _fan_outs(self) -> None:
        for each in self._reader.each("fan_outs"):
            fan_out = FanOut(self._id(each, "fan_out"), each.names("if_any"))
            # In their order; each gets its place when that comes up among the items.
            fan_out.pending = dict.fromkeys(each.names("joins"))  # type: ignore[assignment]
            self.state.fan_outs[fan_out.id] = fan_out

    def _group(self, reader: Reader) -> FanOut | None:
        if reader.raw("group") is None:
            return None
        id_ = reader.count("group")
        group = self.state.fan_outs.get(id_) if id_ else self.state.root
        if group is None:
            raise reader.fail("group", f"there is no fan-out {id_}")
        return group

    def _item(self, reader: Reader) -> None:
        make = {
            "delivery": self._delivery,
            "member": self._member,
            "delayed": self._delayed,
            "question": self._question,
            "pending": self._pending,
        }
        data = reader.data
        kind = next(iter(data)) if type(data) is dict and data else None
        if kind not in make:
            kinds = ", ".join(make)
            raise reader.fail(0, f"an item begins with one of {kinds}, not with {short(kind)}")
        group = self._group(reader)
        item = make[kind](reader)
        if group is not None:
            group.insert(item, group)
        elif kind == "member":
            raise reader.fail("group", "what a join has collected belongs to a fan-out")

    def _delivery(self, reader: Reader) -> Item:
        id_, step = self._id(reader, "delivery"), reader.take("step", str)
        event: Any
        payload: Any
        if reader.raw("events") is not None:
            listed = reader.inner("events")
            assert listed is not None
            both = [listed.event(index) for index in range(len(reader.take("events", list)))]
            event, payload = tuple(e for e, _ in both), tuple(p for _, p in both)
        else:
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
        delayed = Delayed(self._id(reader, "delayed"), *reader.event("event"), reader.seconds("due"))
        self.state.delayed[delayed.id] = delayed
        return delayed

    def _question(self, reader: Reader) -> Item:
        id_ = self._id(reader, "question")
        question = Question(id_, *reader.event("event"), reader.take("request_id", str))
        if self.state.questions.setdefault(question.request_id, question) is not question:
            raise reader.fail("request_id", f"{short(question.request_id)} is there twice")
        return question

    def _pending(self, reader: Reader) -> Item:
        id_, join = self._id(reader, "pending"), reader.take("join", str)
        fan_out = self.state.fan_outs.get(reader.count("fan_out", least=1))
        if fan_out is None or fan_out.pending.get(join, id_) is not None:
            raise reader.fail("fan_out", f"no fan-out is there that waits for {short(join)}, or it is there twice")
        pending = fan_out.pending[join] = Pending(id_, fan_out, join)
        return pending

    def _check_pending(self) -> None:
        for fan_out in self.state.fan_outs.values():
            for join, pending in fan_out.pending.items():
                if pending is None:
                    raise self._reader.fail("fan_outs", f"fan-out {fan_out.id} has no place for {short(join)}")

    def _buffer(self, reader: Reader) -> None:
        id_ = self._id(reader, "buffered")
        by_type = self.state.buffers.setdefault((reader.take("step", str), reader.repeated("types")), {})
        by_type.setdefault(reader.take("type", str), {})[id_] = Buffered(id_, *reader.event("event"))

    def _order(self) -> None:
        """Items came in the order of their places; the tables are in the order in which ids were given."""
        state = self.state
        state.deliveries = dict(sorted(state.deliveries.items()))
        state.delayed = dict(sorted(state.delayed.items()))
        state.questions = {q.request_id: q for q in sorted(state.questions.values(), key=lambda q: q.id)}
