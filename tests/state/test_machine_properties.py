"""Random runs of the state machine, without Trio: the journal is the run in any interleaving."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from blazen_trio import (
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    step,
)
from blazen_trio._codec.codec import Codec
from blazen_trio._codec.entries import decode_entry, encode_entry
from blazen_trio._codec.snapshot import decode_state, iter_state
from blazen_trio._definitions.definition import WorkflowDefinition
from blazen_trio._state.apply import apply_entry, state_from_first
from blazen_trio._state.lifecycle import begin
from blazen_trio._state.machine import Machine, Moment
from blazen_trio._state.model import Cell, Delivery, FanOut, Payload, RunState
from blazen_trio._state.routing import Routing, check_returned
from blazen_trio._state.status import RunStatus
from tests.thorough import try_many


@attrs.frozen
class Branch(Event):
    """A node of a random tree. Its subtree determines what its step returns."""

    tree: Any
    path: str


@attrs.frozen
class Leaf(Event):
    path: str


@attrs.frozen
class Total(Event):
    paths: list[str]
    path: str


@attrs.frozen
class Ask(InputRequestEvent):
    tree: Any = None
    path: str = ""


@attrs.frozen
class Answer(InputResponseEvent):
    path: str = ""


def _child(tree: Any, path: str) -> Any:
    kind = tree if isinstance(tree, str) else tree[0]
    if kind == "leaf":
        return Leaf(path)
    if kind == "ask":
        return Ask("?", request_id=path, path=path)
    if kind == "late":
        return Delayed(Leaf(path), 5.0)
    return Branch(tree, path)


@step
async def plant(ev: StartEvent) -> list[Branch]:
    return [Branch(tree, f"{index:02}") for index, tree in enumerate(ev.data)]


@step
async def grow(
    ev: Branch,
) -> Branch | Leaf | Delayed[Leaf] | Ask | tuple[Branch, Leaf] | list[Branch] | None:
    kind = ev.tree if isinstance(ev.tree, str) else ev.tree[0]
    if kind in ("leaf", "ask", "late"):
        return _child(ev.tree, ev.path)
    if kind == "fail":
        msg = "this branch is rotten"
        raise ValueError(msg)
    if kind == "none":
        return None
    if kind == "chain":
        return Branch(ev.tree[1], ev.path)
    if kind == "tuple":
        return tuple(_child(tree, f"{ev.path}{index:02}") for index, tree in enumerate(ev.tree[1]))
    return [Branch(tree, f"{ev.path}{index:02}") for index, tree in enumerate(ev.tree[1])]


@step
async def answered(ev: Answer) -> Leaf:
    return Leaf(ev.path)


@step
async def mended(ev: StepFailedEvent) -> Leaf:
    return Leaf(ev.event.path)


@step
async def tally(leaves: list[Leaf]) -> Total | StopEvent:
    return Total([leaf.path for leaf in leaves], "")


@step
async def lift(ev: Total) -> Leaf:
    """Make the total of a nested fan-out one leaf of the enclosing one, with all the paths."""
    return Leaf("[" + ",".join(ev.paths) + "]")


# The total of a nested fan-out becomes a leaf of the enclosing one. That of the outermost one ends
# in the root, where it becomes a total, too.
GARDEN = WorkflowDefinition("garden", [plant, grow, answered, mended, tally, lift])
ROUTING = Routing(GARDEN)
CODEC = Codec(GARDEN.event_types, GARDEN.value_types)

trees = st.recursive(
    st.sampled_from(["leaf", "ask", "late", "none", "fail"]),
    lambda children: st.one_of(
        st.tuples(st.just("chain"), children).map(list),
        st.tuples(st.just("tuple"), st.lists(children, min_size=1, max_size=3)).map(list),
        st.tuples(st.just("list"), st.lists(children, max_size=3)).map(list),
    ),
    max_leaves=8,
)


def expected(tree: Any, path: str) -> list[str]:
    """Return the leaves that a node leads to, in order, judging by the tree alone."""
    kind = tree if isinstance(tree, str) else tree[0]
    if kind == "none":
        return []
    if kind in ("leaf", "ask", "late", "fail"):
        return [path]
    if kind == "chain":
        return expected(tree[1], path)
    inner = [expected(child, f"{path}{index:02}") for index, child in enumerate(tree[1])]
    flat = [leaf for leaves in inner for leaf in leaves]
    return flat if kind == "tuple" else ["[" + ",".join(flat) + "]"]


class Harness:
    """Drives a machine by hand, and checks the journal against it after each transition."""

    def __init__(self, trees: list[Any], *, state: RunState | None = None) -> None:
        self.now = 1000.0
        self.journal: list[bytes] = []
        self.consumed: Counter[tuple[int, str]] = Counter()
        self.folded: RunState | None = None
        if state is None:
            self.machine, entry = begin(
                ROUTING,
                "run",
                StartEvent(trees),
                Payload(b"{}"),
                None,
                CODEC.encode_event,
                self.moment(),
            )
        else:
            self.machine = Machine(ROUTING, state)
            self.folded = decode_state(image(state), {}, CODEC)
            entry = self.machine.resumed(None, self.moment())
        self.note(entry)

    @property
    def state(self) -> RunState:
        return self.machine.state

    def moment(self) -> Moment:
        self.now += 1.0
        return Moment(self.now, 0.0)

    def note(self, entry: Any) -> None:
        data, blobs = encode_entry(entry)
        self.journal.append(data)
        again = decode_entry(data, blobs, CODEC)
        if self.folded is None:
            self.folded = state_from_first(again)
        apply_entry(self.folded, again)
        assert image(self.folded) == image(self.state)
        assert image(decode_state(image(self.state), {}, CODEC)) == image(self.state)
        check_counts(self.state)

    def choices(self) -> list[Any]:
        """Return everything that may happen next, in a fixed order."""
        state = self.state
        return [*state.deliveries.values(), *state.delayed.values(), *state.questions.values()]

    async def happen(self, item: Any, *, retry: bool = False) -> None:
        if item.id in self.state.delayed:
            self.note(self.machine.due(item, self.moment()))
        elif isinstance(item, Delivery):
            await self.run(item, retry=retry)
        else:
            answer = Answer(item.request_id, "yes", path=item.event.path)
            self.note(self.machine.answered(answer, CODEC.encode_event, self.moment()))

    async def run(self, item: Delivery, *, retry: bool) -> None:
        definition = GARDEN.steps[item.step]
        if retry:
            moment = self.moment()
            self.note(self.machine.retried(item, moment.at + 1, moment.at, moment))
            return
        self.consumed[item.id, item.step] += 1
        event: Any = list(item.event) if definition.is_join else item.event
        try:
            result = await definition.call(event)
        except ValueError as error:
            failure = StepFailedEvent(item.step, item.event, "ValueError", str(error), item.attempt)
            entry = self.machine.handled(item, failure, CODEC.encode_event, self.moment())
            assert entry is not None
            self.note(entry)
            return
        returned, listed = check_returned(definition, result)
        outputs = self.machine.outputs(returned, CODEC.encode_event, lambda: self.now)
        members = (
            None
            if listed is None
            else self.machine.outputs(listed, CODEC.encode_event, lambda: self.now)
        )
        cells = (
            {f"step {item.step}": Cell(CODEC.encode_value(self.consumed.total(), "count"))}
            if item.id % 3
            else None
        )
        self.note(self.machine.committed(item, definition, outputs, members, self.moment(), cells))


def image(state: RunState) -> bytes:
    return b"".join(iter_state(state, inline=True, codec=CODEC))


def check_counts(state: RunState) -> None:
    """Check that the counts of joins match the live items, and that no id repeats."""
    groups: list[FanOut] = [
        *state.fan_outs.values(),
        *([state.root] if state.root is not None else []),
    ]
    for group in groups:
        assert Counter(item.node for item in group) == group.live
        assert all(item.group is group for item in group)
    ids = [item.id for group in groups for item in group if item.id]
    assert len(ids) == len(set(ids))


def finish(coroutine: Any) -> None:
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def drive(harness: Harness, data: Any) -> None:
    while choices := harness.choices():
        item = data.draw(st.sampled_from(choices))
        await harness.happen(
            item, retry=isinstance(item, Delivery) and item.attempt < 3 and data.draw(st.booleans())
        )


async def drive_in_order(harness: Harness) -> None:
    while choices := harness.choices():
        await harness.happen(choices[0])


@settings(max_examples=try_many(60, 1200), deadline=None)
@given(trees=st.lists(trees, max_size=4), data=st.data())
def test_each_fan_out_collects_its_leaves_in_tree_order_in_any_interleaving(
    trees: list[Any], data: Any
) -> None:
    seen: list[list[str]] = []
    harness = Harness(trees)
    gather(harness, seen)
    finish(drive(harness, data))
    wanted = [leaf for index, tree in enumerate(trees) for leaf in expected(tree, f"{index:02}")]
    # The outermost total becomes a leaf of the root, whose join fires for it, and so on forever, so
    # `gather` ends the run there. The outermost fan-out's join is the last that fired in a fan-out.
    assert seen[-1] == wanted
    assert max(harness.consumed.values(), default=0) <= 1
    assert harness.state.fan_outs == {}


def gather(harness: Harness, seen: list[list[str]]) -> None:
    """Record what the joins are given, and end the run at the outermost one."""
    run = harness.run

    async def watched(item: Delivery, *, retry: bool) -> None:
        if item.step == "tally" and not retry:
            seen.append([leaf.path for leaf in item.event])  # type: ignore[union-attr]
            if item.group is harness.state.root and not harness.state.fan_outs:
                stop = StopEvent([leaf.path for leaf in item.event])  # type: ignore[union-attr]
                outputs = harness.machine.outputs([stop], CODEC.encode_event, lambda: harness.now)
                harness.note(
                    harness.machine.committed(
                        item, GARDEN.steps["tally"], outputs, None, harness.moment()
                    )
                )
                return
        await run(item, retry=retry)

    harness.run = watched  # type: ignore[method-assign]


@settings(max_examples=try_many(8, 250), deadline=None)
@given(trees=st.lists(trees, min_size=1, max_size=3), data=st.data())
def test_every_prefix_of_the_journal_leads_to_the_same_end(trees: list[Any], data: Any) -> None:
    harness = Harness(trees)
    gather(harness, [])
    finish(drive(harness, data))
    assert harness.state.status is RunStatus.COMPLETED
    for length in range(1, len(harness.journal)):
        state = fold(harness.journal[:length])
        resumed = Harness([], state=state)
        gather(resumed, [])
        finish(drive_in_order(resumed))
        assert resumed.state.status is RunStatus.COMPLETED
        assert resumed.state.stop == harness.state.stop
        # The second process does not reuse an id of the first.
        assert resumed.state.epoch == 1


def fold(journal: list[bytes]) -> RunState:
    state = None
    for data in journal:
        entry = decode_entry(data, {}, CODEC)
        state = state or state_from_first(entry)
        apply_entry(state, entry)
    assert state is not None
    return state
