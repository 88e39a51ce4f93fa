"""Journal entries round-trip; they are small, complete, and encode each event once."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from blazen_trio._codec.codec import LARGE, PLAIN
from blazen_trio._codec.entries import decode_entry, encode_entry
from blazen_trio._codec.histories import decode_history, encode_history
from blazen_trio._definitions.events import Event, InputRequestEvent, StopEvent
from blazen_trio._definitions.targets import Targets
from blazen_trio._state.entry import (
    Collected,
    Entry,
    FanOutOpened,
    HistoryRecord,
    Output,
    Retry,
)
from blazen_trio._state.model import Cell, Payload, StoredError
from blazen_trio._state.status import RunStatus
from blazen_trio.errors import SerializationError, SnapshotVersionError
from tests.strategies import CODEC, Tick, events, json_values, text, values

RUNTIME_ONLY = {"effects", "sealed", "rest"}


def plain(value: Any) -> Any:
    """Return an entry and its parts in a form that can be compared."""
    if isinstance(value, Event):
        return value
    if isinstance(value, Cell):
        return plain(value.payload)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if attrs.has(type(value)):
        return plain(attrs.asdict(value, recurse=False))
    if isinstance(value, Entry):
        names = {name for name in vars(Entry) if not name.startswith("_")} | vars(value).keys()
        return {name: plain(getattr(value, name)) for name in names - RUNTIME_ONLY}
    if isinstance(value, (Output, Payload, StoredError, Targets)):
        return {name: plain(getattr(value, name)) for name in value.__slots__}
    return value


def output(event: Event, *steps: str, joins: tuple[str, ...] = (), **more: Any) -> Output:
    return Output(event, CODEC.encode_event(event), Targets(steps, joins), **more)


outputs = st.builds(
    output,
    events,
    st.sampled_from(["tick", "tock"]),
    joins=st.sampled_from([(), ("sum",)]),
    due=st.none() | st.floats(0, 4e9),
    request_id=st.none(),
) | text.map(lambda name: output(InputRequestEvent("?", {}, name), "tick", request_id=name))
ids = st.integers(1, 2**60)


collected = st.lists(st.sampled_from("AB"), min_size=1, max_size=6).map(tuple)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    entry = Entry(
        draw(ids),
        draw(st.sampled_from(["committed", "due", "resumed"])),
        draw(st.floats(0, 4e9)),
        draw(st.floats(0, 1e9)),
    )
    entry.step = draw(st.none() | text)
    entry.done = draw(st.just(0) | ids)
    entry.outputs = draw(st.just(()) | st.lists(outputs, min_size=1, max_size=2))
    if draw(st.booleans()):
        entry.fan_out = FanOutOpened(
            ("sum",), draw(st.lists(outputs, max_size=2)), draw(st.sampled_from([(), ("sum",)]))
        )
        entry.fired = [(0, "sum"), (draw(ids), "mean")]
    if draw(st.booleans()):
        entry.cells = {"gone": None, "kept": Cell(CODEC.encode_value(draw(values), "kept"))}
    if draw(st.booleans()):
        event = draw(events)
        entry.collected = [
            Collected(draw(collected), ("A", event, CODEC.encode_event(event)), step="tick"),
            Collected(("A",), None, (1, 2), step="tick"),
        ]
    if entry.kind == "committed":
        return entry  # the commit of a step has no other parts
    if draw(st.booleans()):
        entry.retry = Retry(draw(ids), 2, 1.5, 0.5)
        entry.status, entry.error = (
            draw(st.sampled_from(RunStatus)),
            StoredError("RunTimeoutError", draw(text), attempts=2, traceback=draw(text)),
        )
    if draw(st.booleans()):
        entry.stop = StopEvent(draw(values))
        entry.stop_payload = CODEC.encode_event(entry.stop)
        entry.outputs = [output(one.event) for one in entry.outputs] or ()
    if draw(st.booleans()):
        entry.epoch = draw(st.integers(0, 9))
        entry.created = {"workflow_version": "1", "root": draw(st.booleans()), "timeout": None}
        if draw(st.booleans()):
            metadata = CODEC.encode_value({"a": 1}, "metadata")
            entry.created |= {"run_id": draw(text), "workflow": "w", "metadata": metadata}
    return entry


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(entries())
def test_an_entry_round_trips(entry: Entry) -> None:
    data, blobs = encode_entry(entry)
    assert plain(decode_entry(data, blobs, CODEC)) == plain(entry)
    again, _ = encode_entry(decode_entry(data, blobs, PLAIN))
    assert again == data


def committed(n: int = 1) -> Entry:
    entry = Entry(12345, "committed", 1753436712.1234567, 123.45678901234567)
    entry.step = "tick"
    entry.done = 4294979645
    entry.outputs = [output(Tick(n), "tick")]
    return entry


def test_a_plain_commit_is_small() -> None:
    data, blobs = encode_entry(committed())
    assert data.startswith(b'{"f":1,')
    assert len(data) < 120
    assert not blobs


def test_an_event_for_several_steps_is_written_once() -> None:
    entry = committed()
    entry.outputs = [output(Tick(987654321), "a", "b", "c")]
    assert encode_entry(entry)[0].count(b"987654321") == 1


def test_an_event_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = committed()
    data, blobs = encode_entry(entry)
    back = decode_entry(data, blobs, CODEC)
    dumped = []
    monkeypatch.setattr("blazen_trio._codec.converter._writers", {Tick: dumped.append})
    assert encode_entry(back)[0] == data
    assert dumped == []


def test_large_values_are_stored_by_reference() -> None:
    entry = committed()
    entry.outputs = [output(StopEvent("x" * LARGE), "tick")]
    entry.cells = {"big": Cell(CODEC.encode_value("y" * LARGE, "big"))}
    data, blobs = encode_entry(entry)
    assert len(data) < 400
    assert len(blobs) == 2
    back = decode_entry(data, blobs, CODEC)
    assert plain(back) == plain(entry)
    with pytest.raises(SerializationError, match="missing"):
        decode_entry(data, {}, CODEC)


def test_the_cost_of_a_collected_event_does_not_depend_on_the_number_of_types() -> None:
    def size(count: int) -> int:
        entry = committed()
        entry.collected = [
            Collected(
                ("Tick",) * count, ("Tick", Tick(1), CODEC.encode_event(Tick(1))), step="tick"
            )
        ]
        data, blobs = encode_entry(entry)
        assert plain(decode_entry(data, blobs, CODEC)) == plain(entry)
        return len(data)

    assert size(10_000) <= size(3) + 5


@pytest.mark.parametrize("types", ['["Tick","Tick"]', '[["Tick",2]]', '["Tick",["Tick",1]]'])
def test_collected_types_may_be_written_out(types: str) -> None:
    entry = decode_entry(
        b'{"f":1,"q":1,"t":[1,0],"l":[["tick",%s,null,[1]]]}' % types.encode(), {}, CODEC
    )
    assert [one.types for one in entry.collected] == [("Tick", "Tick")]


@pytest.mark.parametrize(
    "types",
    ["[1]", '["Tick",[]]', '[["Tick"]]', '[["Tick",0]]', '[["Tick",4000001]]', "[[1,1]]", "{}"],
)
def test_collected_types_are_checked(types: str) -> None:
    with pytest.raises(SerializationError, match=r"at l\[0\]\[1\]"):
        decode_entry(
            b'{"f":1,"q":1,"t":[1,0],"l":[["tick",%s,null,[1]]]}' % types.encode(), {}, CODEC
        )


def test_a_newer_format_is_refused() -> None:
    with pytest.raises(SnapshotVersionError) as caught:
        decode_entry(b'{"f":4}', {}, CODEC)
    assert (caught.value.found, caught.value.supported) == (4, 3)
    with pytest.raises(SerializationError, match="is in lines"):
        decode_entry(b'{"f":2}', {}, CODEC)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(entries(), st.data())
def test_a_corrupt_entry_is_refused_or_decoded(entry: Entry, data: st.DataObject) -> None:
    wire, blobs = encode_entry(entry)
    document = orjson.loads(wire)
    document[data.draw(st.sampled_from([*document, "n", "l", "y", "b", "w", "c"]))] = data.draw(
        json_values
    )
    with pytest.raises(SerializationError):
        decode_entry(wire[: data.draw(st.integers(0, len(wire) - 1))], blobs, CODEC)
    try:
        found = decode_entry(orjson.dumps(document), blobs, CODEC)
    except SerializationError:
        return
    assert isinstance(found, Entry)


@given(
    st.lists(
        st.builds(
            HistoryRecord,
            st.integers(1, 99),
            st.datetimes(timezones=st.just(dt.UTC)),
            st.just("step_completed"),
            st.none() | text,
            st.none() | text,
            st.none() | st.floats(0, 1e6),
            st.none() | text,
        )
    )
)
def test_history_round_trips(records: list[HistoryRecord]) -> None:
    assert decode_history(encode_history(records)) == records


@given(
    st.binary(max_size=20)
    | json_values.map(orjson.dumps)
    | json_values.map(lambda r: orjson.dumps({"f": 1, "r": r}))
)
def test_invalid_history_is_a_serialization_error(data: bytes) -> None:
    try:
        records = decode_history(data)
    except SerializationError:
        return
    assert decode_history(encode_history(records)) == records


def test_an_error_of_another_version_can_be_read() -> None:
    entry = committed()
    entry.kind, entry.status = "failed", RunStatus.FAILED
    entry.error = StoredError("StepFailedError", "no tea", traceback="Traceback ...")
    data, blobs = encode_entry(entry)
    wire = orjson.loads(data)
    del wire["w"]["traceback"]  # as in versions without one
    wire["w"]["later"] = [1]
    error = decode_entry(orjson.dumps(wire), blobs, CODEC).error
    assert error is not None
    assert (error.message, error.traceback) == ("no tea", "")
