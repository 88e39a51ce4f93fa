"""The targets. Each takes a source of randomness, and raises any error that users must not see."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import orjson
import trio
import trio.testing

from blazen_trio import (
    MemoryStore,
    RunStatus,
    Snapshot,
    StopEvent,
    WorkflowError,
)
from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.entries import decode_entry, encode_entry
from blazen_trio.errors import SerializationError
from tests.fuzz.documents import FLOW, LEAVES, changed, seeds, spoilt
from tests.fuzz.inputs import read_inbox, read_rows, run_commands
from tests.strategies import CODEC, Item, Order, Point, Tick

_DOCUMENTS = seeds()


def dumped(value: Any) -> bytes:
    """Return a value as JSON, integers of any size included."""
    return json.dumps(value, ensure_ascii=False).encode()


def look_at(snapshot: Snapshot) -> None:
    """Read all attributes of a snapshot, and write it in each form."""
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    for part in ("deliveries", "collected", "fan_outs", "delayed", "history"):
        assert isinstance(getattr(snapshot, part), tuple)
    try:
        assert isinstance(snapshot.input_requests, tuple)
        assert isinstance(snapshot.metadata, dict)
        assert isinstance(snapshot.state, dict)
        assert snapshot.result is None or snapshot.status is RunStatus.COMPLETED
    except SerializationError:
        pass  # a value in them; the run itself can be handled
    try:
        packed = snapshot.to_msgpack()
    except SerializationError:
        return
    assert Snapshot.from_msgpack(packed) == snapshot


def read_document(dice: random.Random) -> None:
    """Read a changed snapshot."""
    document = changed(dice.choice(_DOCUMENTS), dice)
    data = dumped(document)
    if dice.random() < 0.2:
        data = spoilt(data, dice)
    try:
        snapshot = Snapshot.from_json(data)
    except WorkflowError:
        return
    look_at(snapshot)


def resume_snapshot(dice: random.Random) -> None:
    """Resume a changed snapshot until it waits or ends."""
    try:
        snapshot = Snapshot.from_json(dumped(changed(dice.choice(_DOCUMENTS), dice)))
    except WorkflowError:
        return

    async def resume() -> None:
        store = dice.choice([None, MemoryStore()])
        with trio.move_on_after(5):
            async with FLOW.resume(snapshot, store=store, timeout=2) as run:
                for request in list(run.input_requests):
                    await run.respond(type(request) and dice.choice(["stop", "on"]))
                await run.snapshot()
                await run.result()

    try:
        trio.run(resume, clock=trio.testing.MockClock(autojump_threshold=0))
    except WorkflowError:
        pass
    except ValueError as error:
        if "run_id" not in str(error):  # an id that can't be stored
            raise
    except BaseExceptionGroup as group:
        if group.split(WorkflowError)[1] is not None:
            raise


_WIRES: list[Any] = [
    orjson.loads(CODEC.encode_event(event).data)
    for event in (
        Tick(1),
        Order("a", [Item("b", 1.5)], where=Point(1), counts={1: Point(2)}, extra={1, (2,)}),
        StopEvent([{"a": b"x"}, 2**70, float("nan")]),
    )
]


def read_values(dice: random.Random) -> None:
    """Read changed events and values. Whatever can be read round-trips."""
    holder = {"w": dice.choice(_WIRES + LEAVES)}
    wire = changed(holder, dice).get("w")
    data = dumped(wire)
    if dice.random() < 0.2:
        data = spoilt(data, dice)
    for codec in (CODEC, PLAIN):
        for read, write in (
            (codec.decode_event, codec.encode_event),
            (lambda given, c=codec: c.decode_value(given, "k"), _write_value(codec)),
        ):
            try:
                value = read(data)
            except SerializationError:
                continue
            again = read(write(value).data)
            assert repr(again) == repr(value) or again == value


def _write_value(codec: Any) -> Callable[[Any], Any]:
    return lambda value: codec.encode_value(value, "k")


def read_entries(dice: random.Random) -> None:
    """Read changed entries of a journal."""
    event = orjson.loads(CODEC.encode_event(Tick(1)).data)
    entry = {
        "f": 1,
        "q": 2,
        "t": [1.0, 0.5],
        "s": "tick",
        "d": 1,
        "o": [[event, "tick", ["sum"], 5.0], [event, ["a", "b"]]],
        "n": [["sum"], [[event, "tick"]]],
        "c": {"k": {"$set": [1]}},
        "x": ["gone"],
        "l": [["tick", [["Tick", 3]], ["Tick", event], [4, 5]]],
        "y": [1, 2, 3.0, 4.0],
        "w": {"kind": "StepFailedError", "message": "no"},
    }
    data = dumped(changed(entry, dice))
    if dice.random() < 0.2:
        data = spoilt(data, dice)
    try:
        decoded = decode_entry(data, {}, CODEC)
    except WorkflowError:
        return
    encode_entry(decoded)


TARGETS: dict[str, Callable[[random.Random], None]] = {
    "documents": read_document,
    "values": read_values,
    "entries": read_entries,
    "runs": resume_snapshot,
    "inbox": read_inbox,
    "rows": read_rows,
    "commands": run_commands,
}
