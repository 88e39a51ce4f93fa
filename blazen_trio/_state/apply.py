"""Application of journal entries to a run's state. Nothing else changes that state.

A live run and the fold of a journal go through the same functions, so disk and memory can't drift
apart. No workflow is needed: an entry records where its events were routed and which joins it
fired.

Wide entries. An entry that inserts, collects or drops many items would block the event loop. All
work that may be wide is therefore done by generators, which yield after each slice. The head of an
entry (the status, the cells, which item is done) is applied at once. A caller that can afford to
block drains the generators (`drain`).
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blazen_trio._state.entry import Questions
from blazen_trio._state.handler_loops import inherit, inherited, merged
from blazen_trio._state.model import (
    ID_EPOCH,
    Buffered,
    Delayed,
    Delivery,
    FanOut,
    Item,
    Member,
    Pending,
    Question,
    RunState,
)
from blazen_trio._state.status import check

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from blazen_trio._state.entry import Collected, Entry, Output
    from blazen_trio._state.handler_loops import Recovered
    from blazen_trio._state.model import Cell

__all__ = [
    "SLICE",
    "all_questions",
    "apply_entry",
    "apply_head",
    "applying",
    "drain",
    "firing",
    "noted",
    "state_from_first",
]

SLICE: Final = 512
"""Items per slice, approximately. One slice takes a fraction of a millisecond."""


class _Place(NamedTuple):
    """The place at which new items are inserted.

    Args:
        group: The fan-out, or the root; `None` if their order is not kept.
        before: The item of the group in front of which they are inserted.
        recovered: The recoveries that they descend from.
    """

    group: FanOut | None
    before: Item | None
    recovered: Recovered | None


def drain(slices: Iterable[None]) -> None:
    """Run all slices at once, without yielding in between."""
    deque(slices, maxlen=0)


def state_from_first(entry: Entry) -> RunState:
    """Return the state of a run before its first entry, which contains the run's id."""
    assert entry.created is not None, "the first entry of a journal creates the run"
    created = entry.created
    state = RunState(created["run_id"], created["workflow"], created["workflow_version"])
    state.created = entry.at
    state.nonce = created.get("nonce", "")
    return state


def apply_entry(state: RunState, entry: Entry) -> None:
    """Apply a whole entry, including the joins that it fired."""
    drain(applying(state, entry))


def applying(state: RunState, entry: Entry, most: int = SLICE) -> Generator[None, None, None]:
    """Apply a whole entry, including the joins that it fired, one slice per `next()`."""
    _, rest = apply_head(state, entry, most)
    if rest is not None:
        yield from rest
    for fan_out_id, join in entry.fired:
        delivery = yield from firing(state, fan_out_id, join, most)
        if delivery is not None:
            noted(entry, delivery)


def apply_head(
    state: RunState, entry: Entry, most: int
) -> tuple[Item | None, Iterator[None] | None]:
    """Apply an entry, except for its wide parts and the joins that it fires.

    Those joins are known only from the state after the entry.

    Args:
        state: The state.
        entry: The entry.
        most: The maximum number of items per slice.

    Returns:
        The item that the entry consumed, whose `group` is still the one that it was in; and a
        generator that applies the rest, one slice per `next()`, or `None` if nothing is left.
    """
    resuming = None
    if entry.created is not None or entry.epoch is not None:
        resuming = _apply_driver(state, entry, most)
    state.seq = entry.seq
    state.updated = entry.at
    if entry.elapsed is not None:
        state.elapsed = entry.elapsed
    if entry.status is not None:
        check(entry.kind, state.status, entry.status)
        state.status = entry.status
        state.error = entry.error
    if entry.cells is not None:
        _apply_cells(state, entry.cells)
    if entry.stop is not None:
        return None, _apply_stop(state, entry, most)
    if entry.retry is not None:
        retry = entry.retry
        delivery = state.deliveries[retry.id]
        delivery.attempt, delivery.due, delivery.since = retry.attempt, retry.due, retry.since
        return None, None
    recovered: Recovered | None = None
    if state.recovered or entry.recovers is not None:
        taken = (id_ for collected in entry.collected for id_ in collected.taken)
        recovered = inherited(state.recovered, (entry.done, *taken), entry.recovers)
    done: Item | None = None
    group: FanOut | None = state.root
    before: Item | None = group
    if entry.done:
        done = state.deliveries.pop(entry.done, None) or _take_other(state, entry)
        group = done.group
        if group is not None:
            before = done.next
            group.remove(done)
    outputs = entry.outputs
    if len(outputs) > most or entry.fan_out is not None or entry.collected or resuming is not None:
        return done, _growing(state, entry, resuming, _Place(group, before, recovered), most)
    if outputs:
        # This is the path of nearly all entries. It needs no generator.
        first = state.next_id
        _insert(state, entry, outputs, group, before)
        if recovered is not None:
            inherit(state.recovered, range(first, state.next_id), recovered)
    return done, None


def _apply_cells(state: RunState, cells: Mapping[str, Cell | None]) -> None:
    for key, cell in cells.items():
        if cell is None:
            state.cells.pop(key, None)
        else:
            state.cells[key] = cell


def _growing(
    state: RunState, entry: Entry, resuming: Iterator[None] | None, place: _Place, most: int
) -> Generator[None, None, None]:
    """Insert the items of an entry.

    Don't change the order. Journals don't store most ids: folding assigns them again, and they must
    come out the same, because later entries refer to them.
    """
    if resuming is not None:
        yield from resuming
    for collected in entry.collected:
        first = state.next_id
        yield from _collecting(state, collected, most)
        inherit(state.recovered, range(first, state.next_id), place.recovered)
    yield from _inserting(state, entry, entry.outputs, place, most)
    if entry.fan_out is not None:
        opened = entry.fan_out
        fan_out = FanOut(_next_id(state), opened.if_any)
        state.fan_outs[fan_out.id] = fan_out
        inherit(state.recovered, (fan_out.id,), place.recovered)
        for join in opened.joins:
            pending = Pending(_next_id(state), fan_out, join)
            fan_out.pending[join] = pending
            if place.group is not None:
                assert place.before is not None
                place.group.insert(pending, place.before)
        within = _Place(fan_out, fan_out, place.recovered)
        yield from _inserting(state, entry, opened.outputs, within, most)


def _inserting(
    state: RunState, entry: Entry, outputs: Sequence[Output], place: _Place, most: int
) -> Generator[None, None, None]:
    for start in range(0, len(outputs), most):
        if start:
            yield
        first = state.next_id
        _insert(state, entry, outputs[start : start + most], place.group, place.before)
        inherit(state.recovered, range(first, state.next_id), place.recovered)


def firing(
    state: RunState, fan_out_id: int, join: str, most: int
) -> Generator[None, None, Delivery | None]:
    """Move a join's members into one delivery, at the fan-out's place in the enclosing fan-out.

    Args:
        state: The state.
        fan_out_id: The fan-out's id; 0 for the root. Deliveries of the root's joins stay in the
            root, at the place of their first member.
        join: The join.
        most: The maximum number of items per slice.

    Returns:
        The delivery; `None` for a join that fires only if it collected something, and didn't.
    """
    fan_out = state.fan_outs[fan_out_id] if fan_out_id else state.root
    assert fan_out is not None, "only a tracked root fires joins"
    taking = fan_out.taking(join, most, state.recovered)
    events, payloads, recovered, place = yield from taking
    group: FanOut | None = fan_out
    if fan_out_id:
        place = fan_out.pending.pop(join)
        group = place.group
    else:
        assert events, "a join of the root fires only with what it has collected"
    delivery = None
    if events or join not in fan_out.if_any:
        delivery = Delivery(_next_id(state), join, tuple(events), tuple(payloads))
        if group is not None:
            group.insert(delivery, place)
        state.deliveries[delivery.id] = delivery
        if state.recovered or recovered is not None:
            recovered = merged(recovered, state.recovered.get(fan_out_id))
            inherit(state.recovered, (delivery.id,), recovered)
    if fan_out_id:
        if group is not None:
            group.remove(place)
        if not fan_out.pending:
            # The remaining items can reach no join, so their places in the order are not needed.
            del state.fan_outs[fan_out_id]
            state.recovered.pop(fan_out_id, None)
            yield from fan_out.dissolving(most)
    return delivery


def all_questions(state: RunState) -> Questions:
    """Return the open questions of a run, as changes that make them all that are open."""
    asked = {question.id: question.request_id for question in state.questions.values()}
    return Questions(asked, whole=True)


def _next_id(state: RunState) -> int:
    id_ = state.next_id
    state.next_id = id_ + 1
    return id_


def _take_other(state: RunState, entry: Entry) -> Delayed | Question:
    """Remove and return the delayed event or open question that an entry consumes."""
    id_ = entry.done
    delayed = state.delayed.pop(id_, None)
    if delayed is not None:
        return delayed
    # Questions are few, and indexed by the `request_id` that their answers use.
    question = next((question for question in state.questions.values() if question.id == id_), None)
    assert question is not None, f"nothing has the id {id_}"
    entry.questions = Questions(closed={id_: question.request_id})
    return state.questions.pop(question.request_id)


def _insert(
    state: RunState,
    entry: Entry,
    outputs: Iterable[Output],
    group: FanOut | None,
    before: Item | None,
) -> None:
    effects: list[Item] = entry.effects or []
    for output in outputs:
        event, payload = output.event, output.payload
        if output.due is not None:
            delayed = Delayed(_next_id(state), event, payload, output.due)
            state.delayed[delayed.id] = delayed
            effects.append(delayed)
            if group is not None:
                group.insert(delayed, before)  # type: ignore[arg-type]
            continue
        if output.request_id is not None:
            question = Question(_next_id(state), event, payload, output.request_id)
            state.questions[output.request_id] = question
            effects.append(question)
            if entry.questions is None:
                entry.questions = Questions()
            entry.questions.opened[question.id] = output.request_id
            if group is not None:
                group.insert(question, before)  # type: ignore[arg-type]
        joins = output.targets.joins
        for step in output.targets.steps:
            id_ = state.next_id
            state.next_id = id_ + 1
            if joins and step in joins:
                assert group is not None, "a join collects in a fan-out or in a tracked root only"
                group.insert(Member(id_, step, event, payload), before)  # type: ignore[arg-type]
                continue
            delivery = Delivery(id_, step, event, payload)
            state.deliveries[id_] = delivery
            effects.append(delivery)
            if group is not None:
                group.insert(delivery, before)  # type: ignore[arg-type]
    entry.effects = effects


def noted(entry: Entry, delivery: Delivery) -> None:
    """Add the delivery of a join that fired to the entry's effects."""
    if entry.effects:
        entry.effects.append(delivery)
    else:
        entry.effects = [delivery]


def _collecting(state: RunState, collected: Collected, most: int) -> Generator[None, None, None]:
    key = (collected.step, collected.types)
    by_type = state.buffers.get(key)
    if by_type is None:
        by_type = state.buffers[key] = {}
    for index, id_ in enumerate(collected.taken, 1):
        for events in by_type.values():
            if events.pop(id_, None) is not None:
                break
        if index % most == 0:
            yield
    if collected.added is not None:
        event_type, event, payload = collected.added
        id_ = _next_id(state)
        by_type.setdefault(event_type, {})[id_] = Buffered(id_, event, payload)
    if not any(by_type.values()):
        del state.buffers[key]


def _apply_stop(state: RunState, entry: Entry, most: int) -> Iterator[None] | None:
    """End the run: the commit that stops it drops all pending work.

    Readers of the state see it gone at once. The slices only free its memory, which is also slow
    for many items.
    """
    state.stop, state.stop_payload = entry.stop, entry.stop_payload
    if state.questions:
        entry.questions = Questions(whole=True)
    tables: list[dict[Any, Any]] = [state.deliveries, state.delayed, state.questions]
    if state.buffers:
        tables += [events for by_type in state.buffers.values() for events in by_type.values()]
    groups = [*state.fan_outs.values()]
    if state.root is not None:
        groups.append(state.root)
    state.deliveries, state.delayed, state.questions = {}, {}, {}
    state.fan_outs, state.buffers = {}, {}
    state.root = None
    state.recovered = {}
    if groups or max(map(len, tables)) > most:
        return _freeing(tables, groups, most)
    return None


def _freeing(
    tables: list[dict[Any, Any]], groups: list[FanOut], most: int
) -> Generator[None, None, None]:
    for group in groups:
        yield from group.dissolving(most)
    for table in tables:
        while len(table) > most:
            for key in list(islice(table, most)):
                del table[key]
            yield
        table.clear()


def _apply_driver(state: RunState, entry: Entry, most: int) -> Iterator[None] | None:
    """Record that a process starts to drive the run, for the first time or again.

    Returns:
        A generator that updates the run's existing items; `None` if none needs an update.
    """
    fresh = False
    if entry.epoch is not None:
        state.epoch = entry.epoch
        state.next_id = max(state.next_id, entry.epoch * ID_EPOCH + 1)
        # An ended run is tried again from its pending deliveries, with fresh attempts: earlier
        # failures don't count any more.
        fresh = state.status.ended
        if fresh:
            state.recovered = {}
    created = entry.created
    rooted = False
    if created is not None:
        state.workflow_version = created["workflow_version"]
        state.timeout = created["timeout"]
        if "metadata" in created:
            state.metadata = created["metadata"]
        if "trace" in created:
            state.trace = created["trace"]
        rooted = created["root"] and state.root is None
        if rooted:
            state.root = FanOut(0)
    if (fresh or rooted) and (state.deliveries or state.delayed or state.questions):
        return _resuming(state, fresh, rooted, most)
    return None


def _resuming(state: RunState, fresh: bool, rooted: bool, most: int) -> Generator[None, None, None]:
    # Each table is in the order in which its ids were assigned, as `merge` requires.
    tables = (state.deliveries, state.delayed, state.questions)
    items: Iterator[Item] = heapq.merge(*(table.values() for table in tables), key=attrgetter("id"))
    root = state.root
    for index, item in enumerate(items, 1):
        if fresh and type(item) is Delivery:
            item.attempt, item.due, item.since = 1, None, None
        if rooted and item.group is None:
            assert root is not None
            root.insert(item, root)
        if index % most == 0:
            yield
