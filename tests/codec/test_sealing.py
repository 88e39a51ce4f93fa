"""Nothing can fail once an entry is applied: encoding errors are raised before."""

from __future__ import annotations

from typing import Any

import pytest

from blazen_trio import SerializationError, StartEvent, StopEvent, step
from blazen_trio._codec.codec import Codec
from blazen_trio._codec.entries import decode_entry, encode_entry, seal_entry
from blazen_trio._codec.snapshot import iter_state
from blazen_trio._definitions.definition import WorkflowDefinition
from blazen_trio._state.entry import Entry
from blazen_trio._state.lifecycle import begin
from blazen_trio._state.machine import Machine, Moment
from blazen_trio._state.model import Cell, Delivery, Payload, StoredError
from blazen_trio._state.routing import Routing
from blazen_trio._state.status import RunStatus


@step
async def work(ev: StartEvent) -> StopEvent:
    return StopEvent()


FLOW = WorkflowDefinition("flow", [work])
CODEC = Codec(FLOW.event_types, FLOW.value_types)
MOMENT = Moment(1000.0, 0.0)


def started() -> tuple[Machine, Entry]:
    machine, entry = begin(
        Routing(FLOW), "run", StartEvent(), Payload(b"{}"), None, CODEC.encode_event, MOMENT
    )
    machine.seal = seal_entry
    return machine, entry


def commit(machine: Machine, delivery: Any, cells: dict[str, Cell | None]) -> Entry:
    assert isinstance(delivery, Delivery)
    outputs = machine.outputs([StopEvent("ok")], CODEC.encode_event, lambda: MOMENT.at)
    return machine.committed(delivery, FLOW.steps["work"], outputs, None, MOMENT, cells)


def test_an_entry_that_can_t_be_encoded_is_not_applied() -> None:
    machine, entry = started()
    before = b"".join(iter_state(machine.state, inline=True))
    with pytest.raises(SerializationError, match=r"journal entry 2 \(completed\)"):
        commit(machine, entry.effects[0], {"\ud800": Cell(Payload(b"1"))})
    assert b"".join(iter_state(machine.state, inline=True)) == before
    assert commit(machine, entry.effects[0], {"key": Cell(Payload(b"1"))}).kind == "completed"
    assert machine.state.status is RunStatus.COMPLETED


def test_a_sealed_entry_is_not_encoded_again() -> None:
    machine, entry = started()
    entry = commit(machine, entry.effects[0], {"key": Cell(Payload(b"1"))})
    assert entry.sealed is not None
    data, _ = encode_entry(entry)
    assert data is entry.sealed[0]
    assert list(decode_entry(data, {}, CODEC).cells or ()) == ["key"]


@pytest.mark.parametrize("text", ["a \0 b", "a \ud800 b"])
def test_the_texts_of_an_error_can_always_be_stored(text: str) -> None:
    error = StoredError("RunCancelledError", text, details=(text,), error_type=text, traceback=text)
    for each in (error.message, *error.details, error.error_type, error.traceback):
        assert "\0" not in each
        assert each.encode().startswith(b"a \\")
    machine, _ = started()
    entry = machine.changed("cancelled", RunStatus.CANCELLED, MOMENT, error)
    back = decode_entry(*encode_entry(entry), CODEC).error
    assert back is not None
    assert back.message == error.message
