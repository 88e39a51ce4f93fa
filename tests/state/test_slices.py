"""Wide transitions in slices: each changes few items, and all together do the same as one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from blazen_trio import Context, Delayed, Event, StartEvent, StopEvent, step
from blazen_trio._codec.codec import Codec
from blazen_trio._codec.entries import decode_entry, encode_entry, seal_entry
from blazen_trio._codec.snapshot import decode_state, iter_state
from blazen_trio._definitions.definition import WorkflowDefinition
from blazen_trio._state.apply import apply_entry, drain, state_from_first
from blazen_trio._state.entry import Collected, Entry
from blazen_trio._state.lifecycle import begin
from blazen_trio._state.machine import Machine, Moment
from blazen_trio._state.model import Cell, Delivery, Payload, RunState, StoredError
from blazen_trio._state.routing import Routing
from blazen_trio._state.status import RunStatus

MOST = 3
MOMENT = Moment(1000.0, 0.0)


@attrs.frozen
class Item(Event):
    n: int


@attrs.frozen
class Part(Event):
    n: int


@step
async def open_up(ev: StartEvent) -> list[Item] | tuple[Item | Delayed[Item], ...]:
    raise NotImplementedError


@step
async def work(ev: Item, ctx: Context) -> Part | Item | None:
    raise NotImplementedError


@step
async def gather(parts: list[Part]) -> StopEvent:
    raise NotImplementedError


@step
async def end(ev: Part) -> StopEvent:
    raise NotImplementedError


FLOW = WorkflowDefinition("wide", [open_up, work, gather])
LOOSE = WorkflowDefinition("wide", [open_up, work, end])
CODEC = Codec(FLOW.event_types, FLOW.value_types)


class Harness:
    """A run whose journal is folded in one go, while its machine works in slices."""

    def __init__(self, flow: WorkflowDefinition = FLOW, most: int = MOST) -> None:
        self.flow = flow
        started = begin(
            Routing(flow), "run", StartEvent(), Payload(b"{}"), None, CODEC.encode_event, MOMENT
        )
        self.machine = self.slicing(started[0].state, most)
        self.folded: RunState | None = None
        self.first = started[1].effects[0]
        self.note(started[1])

    def slicing(self, state: RunState, most: int) -> Machine:
        machine = Machine(Routing(self.flow), state, most)
        machine.slices = True
        machine.seal = seal_entry
        return machine

    @property
    def state(self) -> RunState:
        return self.machine.state

    def made(self, events: list[Any]) -> Any:
        return self.machine.outputs(events, CODEC.encode_event, lambda: MOMENT.at + 5)

    def commit(
        self, item: Any, outputs: list[Any], members: list[Any] | None = None, **more: Any
    ) -> Entry:
        assert isinstance(item, Delivery)
        definition = self.flow.steps[item.step]
        listed = None if members is None else self.made(members)
        return self.machine.committed(item, definition, self.made(outputs), listed, MOMENT, **more)

    def note(self, entry: Entry) -> None:
        drain(entry.rest or ())
        again = decode_entry(*encode_entry(entry), CODEC)
        self.folded = self.folded or state_from_first(again)
        apply_entry(self.folded, again)
        assert image(self.folded) == image(self.state)


def image(state: RunState) -> bytes:
    return b"".join(iter_state(state, inline=True))


def live(state: RunState) -> int:
    """Count the items, wherever they are."""
    groups = [*state.fan_outs.values(), *([] if state.root is None else [state.root])]
    grouped = {id(item) for group in groups for item in group}
    buffered = sum(len(events) for types in state.buffers.values() for events in types.values())
    tables = (state.deliveries, state.delayed, state.questions)
    return len(grouped | {id(item) for table in tables for item in table.values()}) + buffered


def changes(state: RunState, entry: Entry) -> Iterator[int]:
    """Yield by how many items each slice, except the first, changes the state."""
    assert entry.rest is not None
    before = live(state)
    for _ in entry.rest:
        yield abs(live(state) - before)
        before = live(state)
    yield abs(live(state) - before)


def items(count: int) -> list[Any]:
    return [Item(n) for n in range(count)]


def test_a_narrow_transition_is_applied_in_one_go() -> None:
    harness = Harness()
    entry = harness.commit(harness.first, [], items(MOST))
    assert entry.rest is None
    assert len(entry.effects) == MOST
    harness.note(entry)


def test_a_wide_fan_out_is_applied_slice_by_slice() -> None:
    harness = Harness()
    entry = harness.commit(harness.first, [], items(20), cells={"key": Cell(Payload(b"1"))})
    assert list(harness.state.cells) == ["key"], "its head is applied immediately"
    assert len(harness.state.deliveries) <= MOST
    sizes = list(changes(harness.state, entry))
    assert max(sizes) <= MOST
    assert len(sizes) >= 20 // MOST - 1
    assert [one.event for one in entry.effects if isinstance(one, Delivery)] == items(20)
    harness.note(entry)


def test_a_wide_tuple_and_delayed_events_are_applied_slice_by_slice() -> None:
    harness = Harness(LOOSE)
    entry = harness.commit(harness.first, [*items(8), *(Delayed(one, 5.0) for one in items(8))])
    assert max(changes(harness.state, entry)) <= MOST
    assert (len(harness.state.deliveries), len(harness.state.delayed)) == (8, 8)
    harness.note(entry)


def joined(harness: Harness, count: int) -> Entry:
    """Collect all members of a fan-out. Return the last transition, which fires the join."""
    entry = harness.commit(harness.first, [], items(count))
    harness.note(entry)
    for one in list(entry.effects)[:-1]:
        harness.note(harness.commit(one, [Part(0)]))
    return harness.commit(entry.effects[-1], [Part(1)])


def test_a_wide_join_takes_its_members_slice_by_slice() -> None:
    harness = Harness()
    entry = joined(harness, 20)
    assert not entry.effects, "the join has not fired yet"
    assert max(changes(harness.state, entry)) <= MOST + 2
    [delivery] = entry.effects
    assert isinstance(delivery, Delivery)
    assert list(delivery.event) == [Part(0)] * 19 + [Part(1)]  # type: ignore[arg-type]
    assert harness.state.fan_outs == {}
    harness.note(entry)


def test_a_fan_out_is_dissolved_slice_by_slice() -> None:
    harness = Harness()
    entry = harness.commit(harness.first, [], items(20))
    harness.note(entry)
    group = entry.effects[0].group
    assert group is not None
    steps = list(group.dissolving(MOST))
    assert len(steps) == 20 // MOST
    assert all(item.group is None for item in entry.effects)


def test_a_stop_drops_all_items_at_once_and_frees_them_slice_by_slice() -> None:
    harness = Harness()
    entry = harness.commit(harness.first, [], items(20))
    harness.note(entry)
    stop = harness.commit(entry.effects[-1], [StopEvent("over")])
    assert harness.state.status is RunStatus.COMPLETED
    assert live(harness.state) == 0
    assert stop.rest is not None
    with pytest.raises(AssertionError, match="all of it is applied"):
        encode_entry(stop)
    assert len(list(stop.rest)) >= 20 // MOST
    assert stop.rest is None
    assert all(item.group is None for item in entry.effects)
    harness.note(stop)


def test_outputs_next_to_a_stop_are_recorded_but_not_delivered() -> None:
    harness = Harness()
    entry = harness.commit(harness.first, [], [*items(10), StopEvent("over"), *items(10)])
    assert (entry.kind, len(entry.outputs), entry.effects) == ("completed", 20, ())
    back = decode_entry(*encode_entry(entry), CODEC)
    assert all(output.targets.steps == () for output in back.outputs)
    harness.note(entry)


def test_many_collected_events_are_taken_slice_by_slice() -> None:
    harness = Harness()
    entry = harness.commit(harness.first, [], items(9))
    harness.note(entry)
    types = ("Item",) * 9
    for one in list(entry.effects)[:-1]:
        event = one.event  # type: ignore[attr-defined]
        added = ("Item", event, CODEC.encode_event(event))
        harness.note(harness.commit(one, [], collected=[Collected(types, added, (), "work")]))
    taken = tuple(harness.state.buffers["work", types]["Item"])
    assert len(taken) == 8
    entry = harness.commit(entry.effects[-1], [], collected=[Collected(types, None, taken, "work")])
    assert max(changes(harness.state, entry)) <= MOST + 2
    assert harness.state.buffers == {}
    harness.note(entry)


def test_a_run_with_many_items_is_resumed_slice_by_slice() -> None:
    """The attempts start again, and the items get places because the workflow now has a join."""
    harness = Harness(LOOSE)
    harness.note(harness.commit(harness.first, items(20)))
    harness.note(
        harness.machine.changed(
            "cancelled", RunStatus.CANCELLED, MOMENT, StoredError("RunCancelledError", "no")
        )
    )
    for delivery in harness.state.deliveries.values():
        delivery.attempt = 3
    harness.folded = decode_state(image(harness.state), {}, CODEC)
    harness.flow = FLOW
    harness.machine = harness.slicing(harness.state, MOST)
    entry = harness.machine.resumed(None, MOMENT)
    root = harness.state.root
    assert root is not None
    assert len(list(root)) == MOST
    assert len(list(entry.rest or ())) >= 20 // MOST - 1
    assert [item.id for item in root] == list(harness.state.deliveries)
    assert {delivery.attempt for delivery in harness.state.deliveries.values()} == {1}
    harness.note(entry)


def test_many_events_are_encoded_slice_by_slice() -> None:
    harness = Harness()
    seen: list[Any] = []

    def encode(event: Event) -> Payload:
        seen.append(event)
        return CODEC.encode_event(event)

    making = harness.machine.making(items(100), encode, lambda: MOMENT.at)
    next(making)
    assert 0 < len(seen) < 20
    with pytest.raises(StopIteration) as end:
        while True:
            next(making)
    assert [output.event for output in end.value.value] == seen == items(100)
