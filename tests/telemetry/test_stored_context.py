"""The trace context that is stored with a run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blazen_trio import MemoryStore, SerializationError, Snapshot
from blazen_trio._codec.codec import PLAIN
from blazen_trio._codec.entries import decode_entry, encode_entry
from blazen_trio._codec.snapshot import decode_state, iter_state
from blazen_trio._state.entry import Entry
from blazen_trio._state.model import Payload, RunState
from tests.telemetry.seen import Seen, ticks

HEADERS = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "a=b",
}


def entry(**created: Any) -> Entry:
    made = Entry(1, "resumed", 1.0, 0.0)
    made.created = {"workflow_version": "1", "root": False, "timeout": None, **created}
    return made


def test_an_entry_has_the_context_if_there_is_one() -> None:
    data, blobs = encode_entry(entry(trace=HEADERS))
    assert decode_entry(data, blobs, PLAIN).created["trace"] == HEADERS
    data, blobs = encode_entry(entry())
    assert b"trace" not in data
    assert "trace" not in decode_entry(data, blobs, PLAIN).created


def test_a_snapshot_has_the_context_if_there_is_one() -> None:
    state = RunState("r", "ticks", "1")
    before = b"".join(iter_state(state, inline=True))
    assert b"trace" not in before
    assert decode_state(before, {}, PLAIN).trace is None
    state.trace = HEADERS
    after = b"".join(iter_state(state, inline=True))
    assert decode_state(after, {}, PLAIN).trace == HEADERS
    assert json.loads(after) == {**json.loads(before), "trace": HEADERS}


@pytest.mark.parametrize("invalid", [1, "text", ["a"], {"traceparent": 1}, {"traceparent": None}])
def test_the_error_for_an_invalid_context_names_its_place(invalid: object) -> None:
    state = RunState("r", "ticks", "1")
    state.metadata = Payload(b"{}")
    document = json.loads(b"".join(iter_state(state, inline=True)))
    with pytest.raises(SerializationError, match="at trace"):
        Snapshot.from_json(json.dumps({**document, "trace": invalid})).to_state(PLAIN)
    data, blobs = encode_entry(entry(trace=invalid))
    with pytest.raises(SerializationError, match=r"at b\.trace"):
        decode_entry(data, blobs, PLAIN)


async def test_a_run_keeps_its_first_context(seen: Seen) -> None:
    store = MemoryStore()
    await ticks.run(store=store, run_id="r")
    run = seen.span("workflow.run")
    stored = json.loads((await store.load_snapshot("r")).to_json())["trace"]
    assert list(stored) == ["traceparent"]
    assert stored["traceparent"].startswith(
        f"00-{run.context.trace_id:032x}-{run.context.span_id:016x}-"
    )


async def test_no_context_is_stored_without_instrumentation() -> None:
    store = MemoryStore()
    await ticks.run(store=store, run_id="r")
    assert "trace" not in json.loads((await store.load_snapshot("r")).to_json())
