"""Wide entries and states are stored in lines, each a bounded amount of work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator
from typing import Any

import attrs
import orjson
import pytest

from blazen_trio import (
    Event,
    InputRequestEvent,
    SerializationError,
    SnapshotVersionError,
    StopEvent,
)
from blazen_trio._codec.codec import LARGE, Codec
from blazen_trio._codec.document import iter_state
from blazen_trio._codec.entries import (
    decode_entry,
    decoding_entry,
    encode_entry,
    encoding_entry,
    seal_entry,
)
from blazen_trio._codec.histories import (
    UnwrittenHistory,
    decode_history,
    decoding_history,
    encode_history,
    encoding_history,
)
from blazen_trio._codec.reader import parse
from blazen_trio._codec.restore import decode_state, restoring
from blazen_trio._codec.snapshot import Snapshot, large_values
from blazen_trio._definitions.targets import Targets
from blazen_trio._state.entry import Collected, Entry, FanOutOpened, HistoryRecord, Output
from blazen_trio._state.model import (
    Buffered,
    Cell,
    Delayed,
    Delivery,
    FanOut,
    Member,
    Pending,
    Question,
    RunState,
)

LINE_ITEMS = 128
LINE_BYTES = 64 * 1024


@attrs.frozen
class Item(Event):
    n: int
    text: str = ""


CODEC = Codec({"Item": Item}, {})
WORK = Targets(("work",))


def outputs(count: int, text: str = "") -> list[Output]:
    return [
        Output(one, CODEC.encode_event(one), WORK) for one in (Item(n, text) for n in range(count))
    ]


def cell(value: Any) -> Cell:
    return Cell(CODEC.encode_value(value, "cell"))


def wide_entry(count: int = 1000) -> Entry:
    entry = Entry(7, "committed", 1000.0, 1.0)
    entry.step = "open"
    entry.done = 3
    entry.outputs = outputs(count)
    entry.fan_out = FanOutOpened(("gather",), outputs(count), ("gather",))
    entry.fired = [(0, "gather")]
    entry.cells = {f"key {n}": cell(n) if n % 2 else None for n in range(count)}
    one = Item(5)
    taken = tuple(range(1, 10 * count))
    entry.collected = [
        Collected(("Item",) * count, ("Item", one, CODEC.encode_event(one)), taken, "work")
    ]
    return entry


def pieces_of(generator: Generator[None, None, Any]) -> tuple[int, Any]:
    """Return the number of pieces, and the result."""
    count = 1
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return count, end.value
        count += 1


def lines_of(data: bytes) -> list[Any]:
    """Return the lines of a document, each of which is a document."""
    _, *lines, last = data.split(b"\n")
    assert last == b"]}"
    return [orjson.loads(line.removesuffix(b",")) for line in lines]


def bounded(data: bytes) -> bool:
    return all(
        len(items) <= LINE_ITEMS and len(orjson.dumps(line)) <= 2 * LINE_BYTES
        for line in lines_of(data)
        for items in line.values()
    )


def test_a_wide_entry_comes_back_from_its_lines() -> None:
    entry = wide_entry()
    count, (data, blobs) = pieces_of(encoding_entry(entry))
    assert count >= 3000 // LINE_ITEMS
    assert (data, blobs) == encode_entry(wide_entry())
    assert bounded(data)
    count, back = pieces_of(decoding_entry(data, blobs, CODEC))
    assert count >= 3000 // LINE_ITEMS
    assert (back.seq, back.step, back.done, back.fired) == (7, "open", 3, [(0, "gather")])
    assert [one.event for one in back.outputs] == [Item(n) for n in range(1000)]
    assert [one.payload.data for one in back.outputs] == [one.payload.data for one in outputs(1000)]
    assert [one.event for one in back.fan_out.outputs] == [Item(n) for n in range(1000)]
    assert (back.fan_out.joins, back.fan_out.if_any) == (("gather",), ("gather",))
    assert {key for key, one in back.cells.items() if one is None} == {
        f"key {n}" for n in range(0, 1000, 2)
    }
    assert [part.added is None for part in back.collected] == [False] + [True] * (
        len(back.collected) - 1
    )
    assert sum((part.taken for part in back.collected), ()) == entry.collected[0].taken


def test_a_wide_entry_is_one_document_that_states_its_format() -> None:
    """Code that knows only format 1, and parses the whole document, refuses it for that reason."""
    data, _ = encode_entry(wide_entry())
    with pytest.raises(SnapshotVersionError) as refused:
        parse(data, "journal entry", "f", 1)
    assert (refused.value.found, refused.value.supported) == (2, 1)
    with pytest.raises(SnapshotVersionError) as refused:
        decode_entry(data.replace(b'{"f":2', b'{"f":3', 1), {}, CODEC)
    assert (refused.value.found, refused.value.supported) == (3, 2)


def test_a_few_large_items_are_split_into_lines_too() -> None:
    entry = Entry(2, "committed", 1.0, 1.0)
    entry.outputs = outputs(30, "x" * (LARGE - 100))
    data, blobs = encode_entry(entry)
    assert blobs == {}
    assert len(lines_of(data)) >= 30 * LARGE // (2 * LINE_BYTES)
    assert bounded(data)
    assert len(decode_entry(data, {}, CODEC).outputs) == 30


def test_a_narrow_entry_is_not_split_into_lines() -> None:
    entry = Entry(2, "committed", 1.0, 1.0)
    entry.outputs = outputs(1)
    assert (
        encode_entry(entry)[0]
        == b'{"f":1,"q":2,"t":[1.0,1.0],"o":[[["Item",{"n":0,"text":""}],"work"]]}'
    )


def test_an_old_wide_entry_is_read_in_pieces() -> None:
    wire = {
        "f": 1,
        "q": 2,
        "t": [1.0, 1.0],
        "o": [[["Item", {"n": n, "text": ""}], "work"] for n in range(1000)],
    }
    wire["n"] = [["gather"], wire["o"]]
    count, back = pieces_of(decoding_entry(orjson.dumps(wire), {}, CODEC))
    assert count >= 2000 // LINE_ITEMS
    assert [one.event for one in back.fan_out.outputs] == [one.event for one in back.outputs]


def test_large_values_of_a_wide_entry_are_stored_by_reference() -> None:
    entry = Entry(2, "completed", 1.0, 1.0)
    entry.outputs = [*outputs(600), *outputs(1, "x" * LARGE)]
    entry.stop = StopEvent("y" * LARGE)
    entry.stop_payload = CODEC.encode_event(entry.stop)
    data, blobs = encode_entry(entry)
    assert len(blobs) == 2
    back = decode_entry(data, blobs, CODEC)
    assert back.outputs[-1].event == Item(0, "x" * LARGE)
    assert back.outputs[-1].targets.steps == ()
    assert back.stop_payload is not None
    assert back.stop_payload.data == entry.stop_payload.data


@pytest.mark.parametrize(
    "change",
    [
        {"cells": {"\ud800": None} | {f"key {n}": None for n in range(600)}},
        {"collected": [Collected(("\ud800",), None, tuple(range(600)), "work")]},
        {"step": "\ud800"},
    ],
    ids=str,
)
def test_a_wide_entry_that_can_t_be_encoded_is_refused_when_it_is_sealed(
    change: dict[str, Any],
) -> None:
    entry = Entry(2, "committed", 1.0, 1.0)
    entry.outputs = outputs(600)
    vars(entry).update(change)
    with pytest.raises(SerializationError, match="journal entry 2"):
        seal_entry(entry)


@pytest.mark.parametrize("cut", [1, 3, 20, 3000])
def test_truncated_lines_are_refused(cut: int) -> None:
    data, _ = encode_entry(wide_entry())
    with pytest.raises(SerializationError, match="journal entry"):
        decode_entry(data[:-cut], {}, CODEC)


def test_an_invalid_line_is_refused_and_its_place_named() -> None:
    data, _ = encode_entry(wide_entry())
    head, first, second, rest = data.split(b"\n", 3)
    for wrong in (b"[1],", b"nonsense,", b'{"o":[["x"]]},', b'{"m":3},'):
        with pytest.raises(SerializationError, match=r"lines\[1\]"):
            decode_entry(b"\n".join([head, first, wrong, rest]), {}, CODEC)
    assert second


# Snapshots


def deliver(state: RunState, event: Any, group: FanOut | None = None) -> None:
    payload = (
        tuple(map(CODEC.encode_event, event))
        if isinstance(event, tuple)
        else CODEC.encode_event(event)
    )
    delivery = Delivery(state.next_id, "work", event, payload)
    state.next_id += 1
    state.deliveries[delivery.id] = delivery
    if group is not None:
        group.insert(delivery, group)


def wide_state(count: int = 1000) -> RunState:
    state = RunState("run", "flow", "1")
    state.root = FanOut(0)
    state.cells = {f"key {n}": cell(n) for n in range(count)}
    fan_out = FanOut(1)
    state.fan_outs[1] = fan_out
    pending = fan_out.pending["gather"] = Pending(2, fan_out, "gather")
    state.root.insert(pending, state.root)
    state.next_id = 3
    for n in range(count):
        deliver(state, Item(n), (None, fan_out, state.root)[n % 3])
        one = Item(n)
        fan_out.insert(Member(state.next_id, "gather", one, CODEC.encode_event(one)), fan_out)
        delayed = Delayed(state.next_id + 1, one, CODEC.encode_event(one), 5.0)
        state.delayed[delayed.id] = delayed
        ask = InputRequestEvent("?", {}, f"id {n}")
        question = Question(state.next_id + 2, ask, CODEC.encode_event(ask), f"id {n}")
        state.questions[question.request_id] = question
        buffered = Buffered(state.next_id + 3, one, CODEC.encode_event(one))
        state.buffers.setdefault(("work", ("Item",)), {}).setdefault("Item", {})[buffered.id] = (
            buffered
        )
        state.next_id += 4
    deliver(state, tuple(Item(n) for n in range(count)), state.root)
    deliver(state, (), state.root)
    return state


def written(state: RunState, *, inline: bool) -> tuple[list[bytes], bytes]:
    pieces = list(iter_state(state, inline=inline))
    return pieces, b"".join(pieces)


@pytest.mark.parametrize("inline", [True, False])
def test_a_large_state_round_trips_in_pieces(inline: bool) -> None:
    state = wide_state()
    pieces, data = written(state, inline=inline)
    assert max(map(len, pieces)) <= 2 * LINE_BYTES
    assert orjson.loads(data)["version"] == (1 if inline else 2)
    if not inline:
        assert bounded(data)
    count, back = pieces_of(restoring(data, {}, CODEC))
    assert count >= 6000 // LINE_ITEMS
    for other in (True, False):
        assert written(back, inline=other)[1] == written(state, inline=other)[1]
    assert list(back.deliveries) == list(state.deliveries)
    assert list(back.questions) == list(state.questions)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 512, 1000])
@pytest.mark.parametrize("inline", [True, False])
def test_the_events_of_a_join_are_written_in_batches(count: int, inline: bool) -> None:
    state = RunState("run", "flow", "1")
    deliver(state, tuple(Item(n) for n in range(count)))
    deliver(state, Item(0))
    data = written(state, inline=inline)[1]
    back = decode_state(data, {}, CODEC)
    assert [one.event for one in back.deliveries.values()] == [
        tuple(Item(n) for n in range(count)),
        Item(0),
    ]


def test_a_small_state_is_not_split_into_lines() -> None:
    state = RunState("run", "flow", "1")
    state.cells = {"key": cell(1)}
    assert orjson.loads(written(state, inline=False)[1])["version"] == 1
    state.cells = {f"key {n}": cell("x" * (LARGE - 100)) for n in range(30)}
    data = written(state, inline=False)[1]
    assert orjson.loads(data)["version"] == 2
    assert bounded(data)


def test_large_values_are_extracted_while_a_state_is_written() -> None:
    state = wide_state(200)
    deliver(state, Item(1, "x" * LARGE))
    state.cells["large"] = cell("y" * LARGE)
    blobs: dict[str, bytes] = {}
    data = b"".join(iter_state(state, inline=False, blobs=blobs))
    assert blobs == large_values(state)
    assert len(blobs) == 2
    assert large_values(decode_state(data, blobs, CODEC)) == blobs


def test_an_exported_snapshot_is_one_plain_document() -> None:
    """Whatever its size, code that knows only version 1 can read it."""
    snapshot = Snapshot.from_state(wide_state())
    document = orjson.loads(snapshot.to_json())
    assert document["version"] == 1
    assert "more" not in {next(iter(item)) for item in document["items"]}
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    assert Snapshot.from_msgpack(snapshot.to_msgpack()) == snapshot
    assert pieces_of(Snapshot.making(wide_state()))[1] == snapshot


@pytest.mark.parametrize(
    "item", [{"more": 1, "events": []}, {"more": 3, "events": []}, {"more": "x"}]
)
def test_event_lines_without_a_join_are_refused(item: dict[str, Any]) -> None:
    state = RunState("run", "flow", "1")
    deliver(state, Item(0))
    document = orjson.loads(written(state, inline=True)[1])
    document["items"].append(item)
    with pytest.raises(SerializationError, match="more"):
        decode_state(orjson.dumps(document), {}, CODEC)


def test_a_long_history_is_split_into_lines() -> None:
    records = [
        HistoryRecord(n, dt.datetime.fromtimestamp(n, dt.UTC), "step_completed")
        for n in range(1, 1001)
    ]
    count, data = pieces_of(encoding_history(records))
    assert count >= 1000 // LINE_ITEMS
    assert data == encode_history(records)
    assert bounded(data)
    count, back = pieces_of(decoding_history(data))
    assert count >= 1000 // LINE_ITEMS
    assert back == records == decode_history(data)
    assert encode_history(records[:3]).startswith(b'{"f":1,"r":[[1,')


@pytest.mark.parametrize("count", [1, 3, 512, 513, 2000])
def test_records_encoded_one_by_one_are_read_like_others(count: int) -> None:
    records = [
        HistoryRecord(n, dt.datetime.fromtimestamp(n, dt.UTC), "step_completed")
        for n in range(7, 7 + count)
    ]
    unwritten = UnwrittenHistory()
    assert unwritten.take() is None
    for record in records:
        unwritten.add(record)
    taken = unwritten.take()
    assert taken is not None
    first, data = taken
    assert first == 7
    assert count <= 512 or bounded(data)
    assert decode_history(data) == records
    assert unwritten.take() is None
    unwritten.add(records[-1])
    assert unwritten.take() == (records[-1].sequence, encode_history(records[-1:]))
