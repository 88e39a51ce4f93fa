"""Drive a state machine by hand through a run of a random workflow.

A test chooses the order. `Driver.note` checks what must be true after every transition.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

from blazen_trio import Delayed, Event, StartEvent, StepFailedEvent
from blazen_trio._codec.entries import decode_entry, encode_entry, seal_entry
from blazen_trio._codec.snapshot import decode_state, iter_state
from blazen_trio._dispatch.transaction import Transaction
from blazen_trio._state.apply import SLICE, applying, drain, state_from_first
from blazen_trio._state.entry import Entry
from blazen_trio._state.lifecycle import begin
from blazen_trio._state.machine import Machine, Moment
from blazen_trio._state.model import (
    Delayed as DelayedItem,
    Delivery,
    FanOut,
    Item,
    Member,
    Payload,
    Pending,
    Question,
    RunState,
    StoredError,
)
from blazen_trio._state.routing import check_returned
from blazen_trio._state.status import RunStatus
from tests.state.chooser import Chooser
from tests.state.family import Answer, Family, Labelled, RottenError, name_of
from tests.state.oracle import Node, Oracle


@attrs.define(eq=False)
class Attempt:
    """A step that has run but not committed."""

    delivery: Delivery
    transaction: Transaction
    result: Any
    error: RottenError | None


def run_to_end(coroutine: Any) -> Any:
    """Return the result of a step that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the step waits")


def image(state: RunState, family: Family) -> bytes:
    return b"".join(iter_state(state, inline=True, codec=family.codec))


def fold(journal: list[bytes], family: Family, state: RunState | None = None) -> RunState:
    for data in journal:
        entry = decode_entry(data, {}, family.codec)
        state = state or state_from_first(entry)
        drain(applying(state, entry, most=1))
    assert state is not None
    return state


def groups_of(state: RunState) -> list[FanOut]:
    return [*([] if state.root is None else [state.root]), *state.fan_outs.values()]


def check_lists(state: RunState) -> None:
    """Check what joins rely on: the counts, the places, and the links in both directions."""
    for group in groups_of(state):
        items = list(group)
        assert Counter(item.node for item in items) == group.live
        assert all(
            item.group is group and item.next.prev is item and item.prev.next is item
            for item in items
        )
        assert all(
            pending.fan_out is group and pending.join == join
            for join, pending in group.pending.items()
        )
        assert group is state.root or group.pending, (
            "a fan-out with nothing left to fire is not kept"
        )


def all_items(state: RunState) -> list[Item]:
    items = [*state.deliveries.values(), *state.delayed.values(), *state.questions.values()]
    grouped = [item for group in groups_of(state) for item in group]
    return list({id(item): item for item in (*items, *grouped)}.values())


class Driver:
    """One run, into which the chooser may put `external` events, `pauses` and `crashes`.

    With `most`, its machine applies transitions in slices of this many items, while the journal is
    folded in one go.
    """

    def __init__(
        self,
        family: Family,
        chooser: Chooser,
        *,
        external: int = 0,
        pauses: int = 0,
        crashes: int = 0,
        state: RunState | None = None,
        watched: bool = True,
        most: int | None = None,
    ) -> None:
        self.family, self.chooser, self.watched, self.most = family, chooser, watched, most
        self.budget = {"external": external, "pauses": pauses, "crashes": crashes}
        self.now = 1000.0 if state is None else state.updated + 1.0
        self.journal: list[bytes] = []
        self.in_flight: list[Attempt] = []
        self.given: set[int] = set()
        self.there: set[int] = set()
        self.done: set[int] = set()
        self.folded: RunState | None = None
        self.oracle = Oracle(family.definition)
        self.nodes: dict[int, Node] = {}
        encode = family.codec.encode_event
        if state is None:
            start = StartEvent()
            machine, entry = begin(
                family.routing, "run", start, Payload(b"{}"), None, encode, self.moment()
            )
            self.machine = self.make_machine(machine.state)
            self.oracle.begin(start)
            self.note(entry)
        else:
            self.machine = self.make_machine(state)
            self.note(self.machine.resumed(None, self.moment()))

    @property
    def state(self) -> RunState:
        return self.machine.state

    def make_machine(self, state: RunState) -> Machine:
        machine = Machine(self.family.routing, state, SLICE if self.most is None else self.most)
        machine.slices = self.most is not None
        machine.seal = seal_entry
        return machine

    def moment(self) -> Moment:
        self.now += 1.0
        return Moment(self.now, 0.0)

    # What must be true

    def note(self, entry: Entry) -> None:
        """Check the run after a transition.

        The journal gives the same state as memory, and a snapshot holds all of it. The counts are
        right, and no id is given twice. Every join that is due has fired, and no other. All items
        are in the order of their paths.
        """
        drain(entry.rest or ())
        data, blobs = encode_entry(entry)
        assert blobs == {}
        self.journal.append(data)
        if not self.watched:
            return
        codec = self.family.codec
        self.folded = fold([data], self.family, self.folded)
        here = image(self.state, self.family)
        assert image(self.folded, self.family) == here
        restored = decode_state(here, {}, codec)
        assert image(restored, self.family) == here
        for state in (self.state, self.folded, restored):
            check_lists(state)
        self._check_ids()
        if entry.done:
            assert entry.done not in self.done, "consumed twice"
            self.done.add(entry.done)
        made = [one for one in entry.effects if isinstance(one, Delivery)]
        fired = [one for one in made if isinstance(one.event, tuple)]
        assert [(d.step, [name_of(one) for one in d.event]) for d in fired] == self.oracle.fired
        self._check_order()

    def _check_ids(self) -> None:
        buffered = [
            one
            for types in self.state.buffers.values()
            for events in types.values()
            for one in events
        ]
        ids = [*(item.id for item in all_items(self.state)), *buffered, *self.state.fan_outs]
        there = set(ids)
        assert len(ids) == len(there)
        new = there - self.there
        assert not new & self.given, "an id is given twice"
        assert max(ids, default=0) < self.state.next_id
        self.there, self.given = there, self.given | new

    def _check_order(self) -> None:
        """Compare the machine's lists with the oracle's paths, and note the node of each item."""
        unmatched = list(self.oracle.nodes)
        pairs = [(self.state.root, self.oracle.root)] if self.state.root is not None else []
        opened = {}
        for group, wanted in pairs:
            items, nodes = list(group), self.oracle.items(wanted)
            assert [_described(item) for item in items] == [
                (node.kind, node.what, node.label) for node in nodes
            ]
            for item, node in zip(items, nodes, strict=True):
                self.nodes[item.id] = node
                unmatched.remove(node)
                if isinstance(item, Pending) and node.inner not in opened:
                    assert node.inner is not None
                    opened[node.inner] = item.fan_out
                    pairs.append((item.fan_out, node.inner))
        # The rest belongs to no list that matters, so only its kinds can be compared.
        loose = sorted(
            (item for item in all_items(self.state) if item.group is None), key=lambda item: item.id
        )
        loose += [
            pending
            for group in self.state.fan_outs.values()
            for pending in group.pending.values()
            if pending.group is None
        ]
        self._match_loose(loose, unmatched, opened)

    def _match_loose(
        self, loose: list[Item], unmatched: list[Node], opened: dict[Any, FanOut]
    ) -> None:
        for item in loose:
            node = self.nodes.get(item.id)
            if node not in unmatched:
                # Its group is not kept, so all joins of the group have fired.
                alike = (
                    n
                    for n in unmatched
                    if not n.group.joins and (n.kind, n.what, n.label) == _described(item)
                )
                node = next(alike)
            assert node is not None
            self.nodes[item.id] = node
            unmatched.remove(node)
        # Fan-outs opened by items that belong to no list: their own items are still in order.
        for item in loose:
            if isinstance(item, Pending):
                self._check_inner(item.fan_out, self.nodes[item.id].inner, unmatched, opened)
        assert unmatched == []

    def _check_inner(
        self, group: FanOut, wanted: Any, unmatched: list[Node], opened: dict[Any, FanOut]
    ) -> None:
        if wanted in opened:
            assert opened[wanted] is group
            return
        opened[wanted] = group
        items, nodes = list(group), self.oracle.items(wanted)
        assert [_described(item) for item in items] == [
            (node.kind, node.what, node.label) for node in nodes
        ]
        for item, node in zip(items, nodes, strict=True):
            self.nodes[item.id] = node
            unmatched.remove(node)
            if isinstance(item, Pending):
                self._check_inner(item.fan_out, node.inner, unmatched, opened)

    # What may happen

    def happen(self) -> bool:
        """Do one of the things that may happen now. Return False if there is none."""
        chooser = self.chooser
        if (
            self.budget["pauses"]
            and self.state.status is not RunStatus.PAUSED
            and chooser.one_in(10)
        ):
            self.pause()
        if self.budget["crashes"] and chooser.one_in(10):
            self.crash()
        state = self.state
        choices: list[tuple[Any, ...]] = [(self.answer, one) for one in state.questions.values()]
        if state.status is RunStatus.PAUSED:
            choices.append((self.unpause,))
        else:
            busy = {attempt.delivery.id for attempt in self.in_flight}
            waiting = [one for one in state.deliveries.values() if one.id not in busy]
            choices += [(self.commit, attempt) for attempt in self.in_flight]
            choices += [(self.start, one) for one in waiting if len(self.in_flight) < 4]
            choices += [(self.become_due, one) for one in state.delayed.values()]
            if chooser.one_in(5):
                choices += [
                    (self.retry, one.delivery) for one in self.in_flight if one.delivery.attempt < 3
                ]
        if self.budget["external"] and (not choices or chooser.one_in(5)):
            choices.append((self.receive,))
        if not choices:
            return False
        what, *arguments = chooser.pick(choices)
        what(*arguments)
        return True

    def drive(self, most: int = 10_000) -> bool:
        """Let at most `most` things happen. Return whether nothing more can."""
        for _ in range(most):
            if not self.happen():
                return True
            if (
                not self.state.deliveries
                and self.state.status is RunStatus.RUNNING
                and self.state.questions
            ):
                self.oracle.fired = []
                self.note(self.machine.changed("waiting", RunStatus.WAITING, self.moment()))
        return False

    def start(self, delivery: Delivery) -> None:
        """Run a step, which sees the state as it is now."""
        self.wake_if_waiting()
        definition = self.family.definition.steps[delivery.step]
        transaction = Transaction(delivery, self.state, self.family.codec)
        event = list(delivery.event) if isinstance(delivery.event, tuple) else delivery.event
        result = error = None
        try:
            result = run_to_end(definition.call(event, transaction))
        except RottenError as rotten:
            error = rotten
        self.in_flight.append(Attempt(delivery, transaction, result, error))

    def wake_if_waiting(self) -> None:
        if self.state.status is RunStatus.WAITING:
            self.oracle.fired = []
            self.note(self.machine.changed("woken", RunStatus.RUNNING, self.moment()))

    def commit(self, attempt: Attempt) -> None:
        """Commit the result of a step, or its failure."""
        self.in_flight.remove(attempt)
        self.wake_if_waiting()
        machine, delivery, transaction = self.machine, attempt.delivery, attempt.transaction
        encode = self.family.codec.encode_event
        definition = self.family.definition.steps[delivery.step]
        if attempt.error is not None:
            event = list(delivery.event) if isinstance(delivery.event, tuple) else delivery.event
            failure = StepFailedEvent(
                delivery.step, event, "RottenError", str(attempt.error), delivery.attempt
            )
            entry = machine.handled(delivery, failure, encode, self.moment())
            assert entry is not None
            self.consume(delivery, [failure])
            self.note(entry)
            return
        if transaction.conflict() is not None:
            self.start(delivery)
            return
        moment = self.moment()
        returned, listed = check_returned(definition, attempt.result)
        plain = [*transaction.sent, *returned]
        members = None if listed is None else machine.outputs(listed, encode, lambda: moment.at)
        outputs = machine.outputs(plain, encode, lambda: moment.at)
        cells, collected = transaction.cells(), transaction.collected(encode)
        entry = machine.committed(delivery, definition, outputs, members, moment, cells, collected)
        self.consume(delivery, plain, listed)
        self.note(entry)

    def consume(self, item: Item, outputs: list[Any], members: list[Any] | None = None) -> None:
        if self.watched:
            self.oracle.done(self.nodes.pop(item.id), outputs, members)

    def retry(self, delivery: Delivery) -> None:
        """Lose an attempt, and make it again."""
        self.in_flight = [attempt for attempt in self.in_flight if attempt.delivery is not delivery]
        self.oracle.fired = []
        moment = self.moment()
        self.note(self.machine.retried(delivery, moment.at + 1, moment.at, moment))

    def become_due(self, delayed: DelayedItem) -> None:
        entry = self.machine.due(delayed, self.moment())
        self.consume(delayed, [delayed.event])
        self.note(entry)

    def answer(self, question: Question) -> None:
        asked: Any = question.event
        response = Answer(question.request_id, "yes", depth=asked.depth)
        entry = self.machine.answered(response, self.family.codec.encode_event, self.moment())
        self.consume(question, [response])
        self.note(entry)

    def receive(self) -> None:
        """Receive an event from outside."""
        self.budget["external"] -= 1
        event: Event = self.chooser.pick(list(self.family.external))(
            f"external{self.budget['external']}", 2
        )
        late = self.chooser.pick([event, Delayed(event, 1.0)])
        entry = self.machine.received(late, self.family.codec.encode_event, self.moment())
        self.oracle.received(late)
        self.note(entry)

    def pause(self) -> None:
        self.budget["pauses"] -= 1
        self.in_flight.clear()
        self.oracle.fired = []
        self.note(self.machine.changed("paused", RunStatus.PAUSED, self.moment()))

    def unpause(self) -> None:
        self.oracle.fired = []
        self.note(self.machine.changed("unpaused", RunStatus.RUNNING, self.moment()))

    def crash(self) -> None:
        """Let the process die. Another resumes from a snapshot and the journal since then."""
        self.budget["crashes"] -= 1
        self.in_flight.clear()
        if self.chooser.pick([True, False]):
            self.oracle.fired = []
            error = StoredError("RunTimeoutError", "it took too long")
            self.note(self.machine.changed("cancelled", RunStatus.CANCELLED, self.moment(), error))
        self.machine = self.make_machine(
            decode_state(image(self.state, self.family), {}, self.family.codec)
        )
        assert self.folded is not None
        self.folded = decode_state(image(self.folded, self.family), {}, self.family.codec)
        self.oracle.fired = []
        self.note(self.machine.resumed(None, self.moment()))
        assert self.state.status is RunStatus.RUNNING
        assert self.state.next_id > self.state.epoch * 2**32


def _described(item: Item) -> tuple[str, Any, Any]:
    if isinstance(item, Delivery):
        label: Any = (
            [name_of(one) for one in item.event]
            if isinstance(item.event, tuple)
            else name_of(item.event)
        )
        return "delivery", item.step, label
    if isinstance(item, Member):
        return "member", item.join, name_of(item.event)
    if isinstance(item, DelayedItem):
        return "delayed", type(item.event), name_of(item.event)
    if isinstance(item, Question):
        return "question", type(item.event), item.request_id
    assert isinstance(item, Pending)
    return "pending", item.join, None


__all__ = ["Attempt", "Chooser", "Driver", "Labelled", "fold", "image"]
