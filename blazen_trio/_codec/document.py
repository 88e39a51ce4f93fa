"""A run's whole state as one JSON document, written in small pieces.

Items are in the order of their fan-outs' lists, each with its `group` (0: the root). Items without
a group come after them. The first key of an item is its kind, and its value is the item's id.

Documents for users, and small ones, are plain (version 1). The stored state of a large run is in
lines (version 2, see `lines.py`). Each line is a part of one of the sections `state`, `fan_outs`,
`items` and `collected`, in this order. A join's delivery with many events continues in items
`{"more": its id, "events": [...]}`.
"""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING, Any, Final

import orjson

from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.histories import record_wire
from blazen_trio._codec.lines import IN_LINES, batches, document
from blazen_trio._codec.writer import error_wire, names_wire, reference
from blazen_trio._state.model import Delayed, Delivery, Member, Payload, Pending, Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from blazen_trio._codec.codec import Codec
    from blazen_trio._definitions.events import Event
    from blazen_trio._state.entry import HistoryRecord
    from blazen_trio._state.handler_loops import Recovered
    from blazen_trio._state.model import FanOut, Item, RunState

    Texts = Iterable[bytes | None]
    Sections = list[tuple[bytes, bytes, Texts, bytes]]

__all__ = ["VERSION", "iter_state", "large_values"]

VERSION: Final = 1
_SMALL: Final = 256
"""Largest number of items of a stored state that is written as a plain document."""
_SMALL_BYTES: Final = 256 * 1024
_EVENTS: Final = 256
"""Events of a join's delivery that are written at once."""


def iter_state(
    state: RunState,
    *,
    inline: bool,
    codec: Codec = PLAIN,
    history: Sequence[HistoryRecord] | None = None,
    blobs: dict[str, bytes] | None = None,
) -> Iterator[bytes]:
    """Yield the document, in pieces that the caller joins and of which none takes long.

    The state must not change until the last piece. A transition in between would leave a document
    that mixes two states of the run.

    Args:
        state: The run's state.
        inline: Whether the document contains large values and the history. Otherwise it refers to
            large values by digest, and the history is left out.
        codec: The codec for events of a run without a store, which have no payloads yet.
        history: The history's records, if the state does not contain them.
        blobs: The dict to which the large values that it refers to are added, by digest.

    Raises:
        SerializationError: An event of a run without a store can't be stored.
    """
    writer = _Writer(codec, {} if blobs is None else blobs, state.recovered, inline=inline)
    if inline:
        yield from _plain(state, writer, state.history if history is None else history)
        return
    if _count(state) <= _SMALL:
        pieces = []
        size = 0
        for piece in _plain(state, writer, None):
            pieces.append(piece)
            size += len(piece)
            if size > _SMALL_BYTES:
                break
            yield b""
        else:
            yield b"".join(pieces)
            return
    writer.in_lines = True
    yield from document(orjson.dumps(_head(state, writer)), _lines(_sections(state, writer)))


def _count(state: RunState) -> int:
    """Return the approximate number of items. Very many fan-outs only count as one item each."""
    count = len(state.cells) + len(state.deliveries) + len(state.delayed) + len(state.questions)
    count += sum(len(events) for by_type in state.buffers.values() for events in by_type.values())
    if state.root is not None:
        count += sum(state.root.live.values())
    if len(state.fan_outs) > _SMALL:
        return count + len(state.fan_outs)
    return count + sum(sum(fan_out.live.values()) for fan_out in state.fan_outs.values())


def _sections(state: RunState, writer: _Writer) -> Sections:
    cells = (_pair(key, writer.reference(cell.payload)) for key, cell in state.cells.items())
    return [
        (b'"state":', b"{", cells, b"}"),
        (
            b'"fan_outs":',
            b"[",
            (orjson.dumps(writer.fan_out(one)) for one in state.fan_outs.values()),
            b"]",
        ),
        (b'"items":', b"[", _item_texts(state, writer), b"]"),
        (b'"collected":', b"[", _buffers(state, writer), b"]"),
    ]


def _plain(
    state: RunState, writer: _Writer, history: Sequence[HistoryRecord] | None
) -> Iterator[bytes]:
    sections = _sections(state, writer)
    if history is not None:
        records = (orjson.dumps(record_wire(record)) for record in history)
        sections.append((b'"history":', b"[", records, b"]"))
    yield orjson.dumps(_head(state, writer))[:-1]
    for name, opening, texts, closing in sections:
        yield b"," + name + opening
        comma = b""
        for batch in batches(_sized(texts)):
            if batch:
                yield comma + b",".join(batch)
                comma = b","
            else:
                yield b""
        yield closing
    yield b"}"


def _lines(sections: Sections) -> Iterator[bytes]:
    for name, opening, texts, closing in sections:
        for batch in batches(_sized(texts)):
            joined = b",".join(batch)
            yield b"{" + name + opening + joined + closing + b"}" if batch else b""


def _sized(texts: Texts) -> Iterator[tuple[bytes, int] | None]:
    return (None if text is None else (text, len(text)) for text in texts)


def _head(state: RunState, writer: _Writer) -> dict[str, Any]:
    stop = None
    if state.stop is not None:
        stop = writer.event(state.stop, state.stop_payload)
    head = {
        "version": IN_LINES if writer.in_lines else VERSION,
        "workflow": state.workflow,
        "workflow_version": state.workflow_version,
        "run_id": state.run_id,
        "timestamp": dt.datetime.fromtimestamp(state.updated, dt.UTC).isoformat(),
        "status": state.status.value,
        "timeout": state.timeout,
        "elapsed": state.elapsed,
        "seq": state.seq,
        "epoch": state.epoch,
        "next_id": state.next_id,
        "created": state.created,
        "updated": state.updated,
        "rooted": state.root is not None,
        "metadata": writer.reference(state.metadata),
        "stop": stop,
        "error": None if state.error is None else error_wire(state.error),
    }
    if state.nonce:
        head["nonce"] = state.nonce
    if state.trace is not None:
        head["trace"] = state.trace
    return head


def _pair(key: str, wire: Any) -> bytes:
    return orjson.dumps({key: wire})[1:-1]


def _item_texts(state: RunState, writer: _Writer) -> Texts:
    """Yield the items, each as one or more texts, split at commas; `None` for one left out."""
    for pair in _items(state):
        if pair is None:
            yield None
            continue
        item, group = pair
        text = orjson.dumps(writer.item(item, group))
        if type(item) is Delivery and type(item.event) is tuple:
            yield from _with_events(text, item, writer)
        else:
            yield text


def _with_events(text: bytes, item: Delivery, writer: _Writer) -> Iterator[bytes]:
    events: tuple[Event, ...] = item.event  # type: ignore[assignment]
    payloads = item.payload or (None,) * len(events)
    text = text[:-1] + b',"events":['
    for start in range(0, len(events) or 1, _EVENTS):
        end = start + _EVENTS
        some = zip(events[start:end], payloads[start:end], strict=True)
        text += orjson.dumps([writer.event(*both) for both in some])[1:-1]
        if writer.in_lines or end >= len(events):
            text += b"]}"
        yield text
        text = orjson.dumps({"more": item.id})[:-1] + b',"events":[' if writer.in_lines else b""


def _items(state: RunState) -> Iterator[tuple[Item, int | None] | None]:
    """Yield all items with their groups, and `None` for each that was already yielded."""
    if state.root is not None:
        yield from ((item, 0) for item in state.root)
    for fan_out in state.fan_outs.values():
        yield from ((item, fan_out.id) for item in fan_out)
    loose: Iterator[Item] = itertools.chain(
        state.deliveries.values(),
        state.delayed.values(),
        state.questions.values(),
        itertools.chain.from_iterable(one.pending.values() for one in state.fan_outs.values()),
    )
    yield from ((item, None) if item.group is None else None for item in loose)


def _buffers(state: RunState, writer: _Writer) -> Iterator[bytes]:
    for (step, types), by_type in state.buffers.items():
        names = names_wire(types)
        for event_type, events in by_type.items():
            for buffered in events.values():
                wire = {
                    "buffered": buffered.id,
                    "step": step,
                    "types": names,
                    "type": event_type,
                    "event": writer.event(buffered.event, buffered.payload),
                }
                yield orjson.dumps(writer.counted(wire, buffered.id))


class _Writer:
    """Converter of items and payloads to JSON."""

    def __init__(
        self,
        codec: Codec,
        blobs: dict[str, bytes],
        recovered: Mapping[int, Recovered],
        *,
        inline: bool,
    ) -> None:
        self._codec = codec
        self._blobs = blobs
        self._recovered = recovered
        self._inline = inline
        self.in_lines = False

    def reference(self, payload: Payload) -> Any:
        return orjson.Fragment(payload.data) if self._inline else reference(payload, self._blobs)

    def event(self, event: Event, payload: Payload | None) -> Any:
        return self.reference(self._codec.encode_event(event) if payload is None else payload)

    def counted(self, wire: dict[str, Any], id_: int) -> dict[str, Any]:
        """Add the recoveries that an item descends from, if any. Most items have none."""
        if id_ in self._recovered:
            wire["recovered"] = self._recovered[id_]
        return wire

    def fan_out(self, fan_out: FanOut) -> dict[str, Any]:
        wire = {"fan_out": fan_out.id, "joins": list(fan_out.pending)}
        if fan_out.if_any:
            wire["if_any"] = fan_out.if_any
        return self.counted(wire, fan_out.id)

    def item(self, item: Item, group: int | None) -> dict[str, Any]:
        wire: dict[str, Any]
        if isinstance(item, Delivery):
            wire = self._delivery(item)
        elif isinstance(item, Member):
            wire = {
                "member": item.id,
                "join": item.join,
                "event": self.event(item.event, item.payload),
            }
        elif isinstance(item, Delayed):
            wire = {
                "delayed": item.id,
                "due": item.due,
                "event": self.event(item.event, item.payload),
            }
        elif isinstance(item, Question):
            wire = {
                "question": item.id,
                "request_id": item.request_id,
                "event": self.event(item.event, item.payload),
            }
        else:
            assert isinstance(item, Pending)
            wire = {"pending": item.id, "fan_out": item.fan_out.id, "join": item.join}
        if group is not None:
            wire["group"] = group
        return self.counted(wire, item.id)

    def _delivery(self, item: Delivery) -> dict[str, Any]:
        wire: dict[str, Any] = {"delivery": item.id, "step": item.step}
        # A join's events are added separately, by `_with_events`.
        if not isinstance(item.event, tuple):
            wire["event"] = self.event(item.event, item.payload)
        if item.attempt != 1:
            wire["attempt"] = item.attempt
        if item.due is not None:
            wire["due"] = item.due
        if item.since is not None:
            wire["since"] = item.since
        return wire


def large_values(state: RunState) -> dict[str, bytes]:
    """Return the large values that the state refers to, by digest."""
    found: dict[str, bytes] = {}
    for _ in iter_state(state, inline=False, blobs=found):
        pass
    return found
