"""A run's whole state as one JSON document, written in small pieces.

Items come in the order of their fan-outs' lists, each with its `group` (0: the root); those that belong to none come
after them. The first key of an item tells what it is and holds its id.
"""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING, Any, Final

import orjson

from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.entries import record_wire
from blazen_trio._codec.writer import error_wire, names_wire, reference
from blazen_trio._state.model import Delayed, Delivery, Member, Payload, Pending, Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blazen_trio._codec.codec import Codec
    from blazen_trio._definitions.events import Event
    from blazen_trio._state.history import HistoryRecord
    from blazen_trio._state.model import Buffered, FanOut, Item, RunState

__all__ = ["VERSION", "iter_state", "large_values"]

VERSION: Final = 1
_PIECE: Final = 256
"""Items per piece."""


def iter_state(
    state: RunState, *, inline: bool, codec: Codec = PLAIN, history: Sequence[HistoryRecord] | None = None
) -> Iterator[bytes]:
    """The document, in pieces to be joined; none of them takes long. The state must not change meanwhile.

    Args:
        state: The run's state.
        inline: Whether large values (and the history) are in it; else they are referred to by digest (and left out).
        codec: Encodes the events of a run without a store, which have no payloads yet.
        history: The history's records, where the state does not hold them.

    Raises:
        SerializationError: An event of a run without a store can't be stored.
    """
    writer = _Writer(codec, inline=inline)
    head = orjson.dumps(_head(state, writer))
    yield head[:-1] + b',"state":{'
    yield from _pieces((_pair(key, writer.reference(cell.payload)) for key, cell in state.cells.items()), strip=True)
    yield b'},"fan_outs":['
    yield from _pieces(map(_fan_out, state.fan_outs.values()))
    yield b'],"items":['
    yield from _pieces(writer.item(item, group) for item, group in _items(state))
    yield b'],"collected":['
    yield from _pieces(_buffers(state, writer))
    if inline:
        yield b'],"history":['
        yield from _pieces(map(record_wire, state.history if history is None else history))
    yield b"]}"


def _head(state: RunState, writer: _Writer) -> dict[str, Any]:
    stop = None
    if state.stop is not None:
        stop = writer.event(state.stop, state.stop_payload)
    head = {
        "version": VERSION,
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
    if state.trace is not None:
        head["trace"] = state.trace
    return head


def _pair(key: str, wire: Any) -> bytes:
    return orjson.dumps({key: wire})[1:-1]


def _pieces(wires: Iterable[Any], *, strip: bool = False) -> Iterator[bytes]:
    """The members of a list (or with `strip`, ready-made pairs of an object), many to a piece, with commas between."""
    wires = iter(wires)
    comma = b""
    while batch := list(itertools.islice(wires, _PIECE)):
        yield comma + (b",".join(batch) if strip else orjson.dumps(batch)[1:-1])
        comma = b","


def _items(state: RunState) -> Iterator[tuple[Item, int | None]]:
    if state.root is not None:
        yield from ((item, 0) for item in state.root)
    for fan_out in state.fan_outs.values():
        yield from ((item, fan_out.id) for item in fan_out)
    loose: Iterator[Item] = itertools.chain(
        state.deliveries.values(),
        state.delayed.values(),
        state.questions.values(),
        *(fan_out.pending.values() for fan_out in state.fan_outs.values()),
    )
    yield from ((item, None) for item in loose if item.group is None)


def _fan_out(fan_out: FanOut) -> dict[str, Any]:
    document = {"fan_out": fan_out.id, "joins": list(fan_out.pending)}
    return document | {"if_any": fan_out.if_any} if fan_out.if_any else document


def _buffers(state: RunState, writer: _Writer) -> Iterator[dict[str, Any]]:
    for (step, types), by_type in state.buffers.items():
        names = names_wire(types)
        for event_type, events in by_type.items():
            for buffered in events.values():
                yield {
                    "buffered": buffered.id,
                    "step": step,
                    "types": names,
                    "type": event_type,
                    "event": writer.event(buffered.event, buffered.payload),
                }


class _Writer:
    """Makes JSON of items and payloads."""

    def __init__(self, codec: Codec, *, inline: bool) -> None:
        self._codec = codec
        self._inline = inline

    def reference(self, payload: Payload) -> Any:
        return orjson.Fragment(payload.data) if self._inline else reference(payload, {})

    def event(self, event: Event, payload: Payload | None) -> Any:
        return self.reference(self._codec.encode_event(event) if payload is None else payload)

    def item(self, item: Item, group: int | None) -> dict[str, Any]:
        wire: dict[str, Any]
        if isinstance(item, Delivery):
            wire = self._delivery(item)
        elif isinstance(item, Member):
            wire = {"member": item.id, "join": item.join, "event": self.event(item.event, item.payload)}
        elif isinstance(item, Delayed):
            wire = {"delayed": item.id, "due": item.due, "event": self.event(item.event, item.payload)}
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
        return wire

    def _delivery(self, item: Delivery) -> dict[str, Any]:
        wire: dict[str, Any] = {"delivery": item.id, "step": item.step}
        if isinstance(item.event, tuple):
            payloads = item.payload or (None,) * len(item.event)
            wire["events"] = [self.event(*both) for both in zip(item.event, payloads, strict=True)]
        else:
            wire["event"] = self.event(item.event, item.payload)
        if item.attempt != 1:
            wire["attempt"] = item.attempt
        if item.due is not None:
            wire["due"] = item.due
        if item.since is not None:
            wire["since"] = item.since
        return wire


def large_values(state: RunState) -> dict[str, bytes]:
    """The large values that the state refers to, by digest."""
    return {payload.digest: payload.data for payload in _payloads(state) if payload.digest is not None}


def _payloads(state: RunState) -> Iterator[Payload]:
    yield state.metadata
    if state.stop_payload is not None:
        yield state.stop_payload
    for cell in state.cells.values():
        yield cell.payload
    holders: list[Item | Buffered] = [item for item, _ in _items(state)]
    for by_type in state.buffers.values():
        holders += itertools.chain.from_iterable(events.values() for events in by_type.values())
    for holder in holders:
        payload = getattr(holder, "payload", None)
        if isinstance(payload, tuple):
            yield from (part for part in payload if part is not None)
        elif payload is not None:
            yield payload
