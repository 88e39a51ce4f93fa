"""Snapshots: a whole state round-trips, both for stores and for users."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import orjson
import ormsgpack
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from blazen_trio._codec.codec import LARGE, PLAIN
from blazen_trio._codec.entries import encode_entry
from blazen_trio._codec.histories import encode_history
from blazen_trio._codec.snapshot import (
    Snapshot,
    blob_digests,
    decode_state,
    iter_state,
    large_values,
)
from blazen_trio._definitions.events import DynamicEvent, Event, InputRequestEvent, StopEvent
from blazen_trio._definitions.targets import Targets
from blazen_trio._state.apply import apply_entry
from blazen_trio._state.entry import Entry, HistoryRecord, Output
from blazen_trio._state.model import Cell, Delivery, FanOut, Item, Payload, RunState
from blazen_trio._state.status import RunStatus
from blazen_trio._stores.base import StoreQueries, fold
from blazen_trio._stores.protocol import RunInfo, StoredRun
from blazen_trio.errors import SerializationError, SnapshotVersionError, StoreError
from tests.strategies import CODEC, Order, Tick, json_values, states


def plain(value: Any) -> Any:
    """Return a state and its parts in a form that can be compared, fan-outs in order."""
    if isinstance(value, Event):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Payload):
        return value.data, value.digest
    if isinstance(value, Cell):
        return plain(value.payload)
    if isinstance(value, FanOut):
        return value.id, [plain(item) for item in value], value.live, list(value.pending)
    names = [
        n
        for cls in type(value).__mro__
        for n in getattr(cls, "__slots__", ())
        if n not in ("prev", "next")
    ]
    if names:
        links = {"group", "fan_out"} if isinstance(value, Item) else set()
        return [
            (
                n,
                getattr(value, n) and getattr(value, n).id
                if n in links
                else plain(getattr(value, n)),
            )
            for n in names
        ]
    return value


def whole(state: RunState, *, inline: bool = False) -> bytes:
    return b"".join(iter_state(state, inline=inline))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(states())
def test_a_state_round_trips(state: RunState) -> None:
    for inline in (False, True):
        data = whole(state, inline=inline)
        back = decode_state(data, large_values(state), CODEC)
        assert dict(plain(back)) == dict(plain(state))
        assert whole(back, inline=inline) == data


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(states())
def test_snapshots_round_trip(state: RunState) -> None:
    snapshot = Snapshot.from_state(state)
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    assert Snapshot.from_json(snapshot.to_json().encode()) == snapshot
    assert Snapshot.from_msgpack(snapshot.to_msgpack()) == snapshot
    pretty = orjson.dumps(orjson.loads(snapshot.to_json()), option=orjson.OPT_INDENT_2)
    assert Snapshot.from_json(pretty) == snapshot
    assert whole(snapshot.to_state(CODEC), inline=True).decode() == snapshot.to_json()
    for name in (
        "state",
        "deliveries",
        "collected",
        "fan_outs",
        "input_requests",
        "delayed",
        "result",
        "metadata",
        "history",
    ):
        getattr(snapshot, name)


def small_state() -> RunState:
    state = RunState("r1", "countdown", "1")
    state.seq, state.next_id, state.updated = 4, 10, 1.5
    state.status = RunStatus.RUNNING
    state.metadata = CODEC.encode_value({"by": "ann"}, "metadata")
    state.cells = {"seen": Cell(CODEC.encode_value({1, 2}, "seen"))}
    state.deliveries[1] = Delivery(1, "tick", Tick(3), CODEC.encode_event(Tick(3)))
    return state


def test_the_attributes_of_a_snapshot() -> None:
    state = small_state()
    when = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    record = HistoryRecord(1, when, "workflow_started")
    snapshot = Snapshot.from_state(state, history=[record])
    assert (snapshot.version, snapshot.workflow_name, snapshot.run_id, snapshot.seq) == (
        1,
        "countdown",
        "r1",
        4,
    )
    assert snapshot.timestamp == dt.datetime(1970, 1, 1, 0, 0, 1, 500_000, dt.UTC)
    assert snapshot.status is RunStatus.RUNNING
    assert snapshot.state == {"seen": {1, 2}}
    assert snapshot.metadata == {"by": "ann"}
    assert snapshot.result is None
    assert snapshot.history == (record,)
    [delivery] = snapshot.deliveries
    assert (delivery.step, delivery.event, delivery.attempt) == (
        "tick",
        DynamicEvent("Tick", {"n": 3}),
        1,
    )
    assert snapshot.to_json().startswith('{"version":1,"workflow":"countdown"')


def test_a_typed_result_and_a_question_of_an_unknown_class_are_readable() -> None:
    @attrs.frozen
    class Approve(InputRequestEvent):
        amount: int = 0

    @attrs.frozen
    class Finished(StopEvent):
        total: int = 0

    state = small_state()
    entry = Entry(5, "committed", 2.0, 0.0)
    request = Approve("ok?", {"a": {"b": 1}}, "q1", 3)
    entry.outputs = [Output(request, None, request_id="q1")]
    apply_entry(state, entry)
    snapshot = Snapshot.from_json(Snapshot.from_state(state).to_json())
    assert snapshot.input_requests == (InputRequestEvent("ok?", {"a": {"b": 1}}, "q1"),)
    with pytest.raises(SerializationError, match="not the question"):
        Snapshot.from_json(snapshot.to_json().replace('"prompt":"ok?"', '"prompt":1'))
    entry = Entry(6, "completed", 2.0, 0.0)
    entry.status, entry.stop = RunStatus.COMPLETED, Finished(total=3)
    apply_entry(state, entry)
    completed = Snapshot.from_json(Snapshot.from_state(state).to_json())
    assert completed.result == DynamicEvent("Finished", {"result": None, "total": 3})


def test_events_of_a_run_without_a_store_are_encoded_when_a_snapshot_is_taken() -> None:
    state = small_state()
    state.deliveries[1].payload = None
    state.deliveries[1].event = Tick("three")  # type: ignore[arg-type]
    with pytest.raises(SerializationError) as caught:
        Snapshot.from_state(state, codec=CODEC)
    assert (caught.value.subject, caught.value.path) == ("Tick", "n")


def test_a_snapshot_is_encoded_in_small_pieces() -> None:
    state = small_state()
    for id_ in range(10, 10_010):
        state.deliveries[id_] = Delivery(id_, "tick", Tick(1), CODEC.encode_event(Tick(1)))
    pieces = list(iter_state(state, inline=True))
    assert len(pieces) > 39
    assert max(map(len, pieces)) < 256 * 100


def test_large_values_are_included_or_stored_by_reference() -> None:
    state = small_state()
    state.cells["big"] = Cell(CODEC.encode_value("x" * LARGE, "big"))
    [digest] = blob_digests(state)
    assert digest.encode() in whole(state)
    assert len(whole(state)) < 2000
    assert digest.encode() not in whole(state, inline=True)
    back = decode_state(whole(state, inline=True), {}, CODEC)
    assert blob_digests(back) == {digest}
    with pytest.raises(SerializationError, match="missing"):
        decode_state(whole(state), {}, CODEC)


class TestBadInput:
    @pytest.mark.parametrize(
        "data",
        [b"", b"rubbish", b"[]", b"{}", b'{"version":"1"}', b"\xff", b"[" * 5000, b'{"version":1}'],
    )
    def test_invalid_snapshots_are_refused(self, data: bytes) -> None:
        with pytest.raises(SerializationError):
            Snapshot.from_json(data)
        with pytest.raises(SerializationError):
            Snapshot.from_msgpack(data)

    def test_truncated_snapshots_are_refused(self) -> None:
        snapshot = Snapshot.from_state(small_state())
        for end in range(0, len(snapshot.to_json()), 7):
            with pytest.raises(SerializationError):
                Snapshot.from_json(snapshot.to_json()[:end])
        packed = snapshot.to_msgpack()
        for end in range(0, len(packed), 7):
            with pytest.raises(SerializationError):
                Snapshot.from_msgpack(packed[:end])

    def test_newer_snapshots_are_refused(self) -> None:
        document = orjson.loads(Snapshot.from_state(small_state()).to_json())
        document["version"] = 2
        for load in (
            lambda: Snapshot.from_json(orjson.dumps(document)),
            lambda: Snapshot.from_msgpack(ormsgpack.packb(document)),
        ):
            with pytest.raises(SnapshotVersionError) as caught:
                load()
            assert (caught.value.found, caught.value.supported) == (2, 1)

    @settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
    @given(states(), st.data())
    def test_snapshots_corrupt_anywhere_are_refused(
        self, state: RunState, data: st.DataObject
    ) -> None:
        document = orjson.loads(whole(state, inline=True))
        place: Any = document
        while True:
            key = data.draw(
                st.sampled_from(sorted(place))
                if isinstance(place, dict)
                else st.integers(0, len(place) - 1)
            )
            if (
                not isinstance(place[key], (dict, list))
                or not place[key]
                or data.draw(st.booleans())
            ):
                break
            place = place[key]
        place[key] = data.draw(json_values | st.sampled_from([-1, 1e300, "x", [], {}]))
        try:
            snapshot = Snapshot.from_json(orjson.dumps(document))
        except SerializationError:
            return
        assert Snapshot.from_msgpack(snapshot.to_msgpack()) == snapshot
        assert snapshot.deliveries is not None

    @pytest.mark.parametrize(
        ("change", "path"),
        [
            ({"status": "sleeping"}, "status"),
            ({"seq": "4"}, "seq"),
            ({"seq": True}, "seq"),
            ({"items": [{"delivery": 99, "step": "x", "event": ["A", {}]}]}, "items[0].delivery"),
            (
                {"items": [{"delivery": 1, "step": "x", "event": ["A", {}], "group": 7}]},
                "items[0].group",
            ),
            ({"items": [{"member": 1, "join": "x", "event": ["A", {}]}]}, "items[0].group"),
            ({"items": [{"pending": 1, "fan_out": 7, "join": "x"}]}, "items[0].fan_out"),
            ({"fan_outs": [{"fan_out": 2, "joins": ["x"]}]}, "fan_outs"),
            ({"items": [{"delayed": 1, "due": 1e300, "event": ["A", {}]}]}, "items[0].due"),
        ],
    )
    def test_each_fault_is_named(self, change: dict[str, Any], path: str) -> None:
        document = {**orjson.loads(whole(small_state())), **change}
        with pytest.raises(SerializationError) as caught:
            decode_state(orjson.dumps(document), {}, PLAIN)
        assert caught.value.path == path


def stored(
    entries: list[tuple[int, bytes]], snapshot: tuple[int, bytes] | None = None, **more: Any
) -> StoredRun:
    when = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    info = RunInfo("r1", "countdown", "1", RunStatus.RUNNING, when, when)
    return StoredRun(info, snapshot, entries, more.pop("blobs", {}), **more)


def journal(steps: int) -> list[tuple[int, bytes]]:
    first = Entry(1, "started", 1.0, 0.0)
    first.created = {
        "run_id": "r1",
        "workflow": "countdown",
        "workflow_version": "1",
        "metadata": Payload(b"{}"),
        "root": False,
    }
    first.status, first.epoch = RunStatus.RUNNING, 0
    first.outputs = [Output(Tick(0), CODEC.encode_event(Tick(0)), Targets(("tick",)))]
    entries = [(1, encode_entry(first)[0])]
    for n in range(1, steps):
        entry = Entry(n + 1, "committed", 1.0 + n, float(n))
        entry.done = n
        entry.outputs = [Output(Tick(n), CODEC.encode_event(Tick(n)), Targets(("tick",)))]
        entries.append((n + 1, encode_entry(entry)[0]))
    return entries


class TestFold:
    def test_a_journal_is_applied_to_its_snapshot(self) -> None:
        entries = journal(6)
        state = fold(stored(entries), CODEC)
        assert [delivery.event for delivery in state.deliveries.values()] == [Tick(5)]
        half = fold(stored(entries[:3]), CODEC)
        both = fold(stored(entries[3:], (3, whole(half))), CODEC)
        assert plain(both) == plain(state)

    @pytest.mark.parametrize("kept", [[1, 2], [0, 2], []])
    def test_a_gap_is_a_store_error(self, kept: list[int]) -> None:
        entries = journal(3)
        with pytest.raises(StoreError):
            fold(stored([entries[index] for index in kept]), CODEC)

    def test_an_entry_that_does_not_fit_is_a_store_error(self) -> None:
        entries = journal(3)
        entries[2] = (3, entries[2][1].replace(b'"d":2', b'"d":77'))
        with pytest.raises(StoreError, match="does not fit"):
            fold(stored(entries), CODEC)

    async def test_a_store_answers_from_what_it_loads(self) -> None:
        record = HistoryRecord(1, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "workflow_started")

        class Store(StoreQueries):
            async def load(self, run_id: str) -> StoredRun:
                return stored(journal(4), history=[encode_history([record])])

        snapshot = await Store().load_snapshot("r1")
        assert [delivery.event for delivery in snapshot.deliveries] == [
            DynamicEvent("Tick", {"n": 3})
        ]
        assert snapshot.history == (record,)
        assert await Store().history("r1") == [record]


def test_the_error_of_a_snapshot_names_its_invalid_event() -> None:
    snapshot = Snapshot.from_state(small_state())
    spoiled = Snapshot.from_json(snapshot.to_json().replace('{"n":3}', '{"n":"3"}'))
    with pytest.raises(SerializationError) as caught:
        spoiled.to_state(CODEC)
    assert (caught.value.subject, caught.value.path) == ("Tick", "n")
    assert Order.event_type not in spoiled.to_json()
