"""Applying a journal entry to a run's state: the one place where it changes.

A live run and the fold of a journal go through the same function, so what is on disk and what is in memory can't
drift apart. It needs no workflow: an entry says where its events went and which joins it fired.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from blazen_trio._state.table import check

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blazen_trio._state.entry import Collected, Entry, Output

__all__ = ["apply_body", "apply_entry", "fire", "noted", "state_from_first"]


def state_from_first(entry: Entry) -> RunState:
    """The state of a run before its first entry, which names it."""
    assert entry.created is not None, "the first entry of a journal creates the run"
    state = RunState(entry.created["run_id"], entry.created["workflow"], entry.created["workflow_version"])
    state.created = entry.at
    return state


def apply_entry(state: RunState, entry: Entry) -> None:
    """Apply a whole entry, the joins that it fired included."""
    apply_body(state, entry)
    for fan_out_id, join in entry.fired:
        if (delivery := fire(state, fan_out_id, join)) is not None:
            noted(entry, delivery)


def apply_body(state: RunState, entry: Entry) -> Item | None:
    """Apply all of an entry but the joins that it fired (which can be told only from the state that this makes).

    Returns:
        The item that the entry consumed; its `group` is still the one that it was in.
    """
    state.seq = entry.seq
    state.updated = entry.at
    state.elapsed = entry.elapsed
    if entry.created is not None or entry.epoch is not None:
        _apply_driver(state, entry)
    if entry.status is not None:
        check(entry.kind, state.status, entry.status)
        state.status = entry.status
        state.error = entry.error
    if entry.cells is not None:
        for key, cell in entry.cells.items():
            if cell is None:
                state.cells.pop(key, None)
            else:
                state.cells[key] = cell
    for collected in entry.collected:
        _apply_collected(state, collected)
    if entry.stop is not None:
        _apply_stop(state, entry)
        return None
    if entry.retry is not None:
        retry = entry.retry
        delivery = state.deliveries[retry.id]
        delivery.attempt, delivery.due, delivery.since = retry.attempt, retry.due, retry.since
        return None
    done: Item | None = None
    group: FanOut | None = state.root
    before: Item | None = group
    if entry.done:
        done = state.deliveries.pop(entry.done, None) or _take_other(state, entry.done)
        group = done.group
        if group is not None:
            before = done.next
            group.remove(done)
    if entry.outputs:
        _insert(state, entry, entry.outputs, group, before)
    if entry.fan_out is not None:
        opened = entry.fan_out
        fan_out = FanOut(_next_id(state), opened.if_any)
        state.fan_outs[fan_out.id] = fan_out
        for join in opened.joins:
            pending = Pending(_next_id(state), fan_out, join)
            fan_out.pending[join] = pending
            if group is not None:
                assert before is not None
                group.insert(pending, before)
        _insert(state, entry, opened.outputs, fan_out, fan_out)
    return done


def fire(state: RunState, fan_out_id: int, join: str) -> Delivery | None:
    """Hand a join's members over to one delivery, which takes the fan-out's place in the enclosing one. `None`: it was to fire only
    if it had any, and has none.

    Args:
        fan_out_id: 0 for the root, whose joins' deliveries stay in it, in their first member's place.
    """
    fan_out = state.fan_outs[fan_out_id] if fan_out_id else state.root
    assert fan_out is not None, "only a tracked root fires joins"
    if fan_out_id:
        place: Item = fan_out.pending.pop(join)
    else:
        place = next(item for item in fan_out if type(item) is Member and item.join == join)
    group = place.group
    delivery = None
    if join not in fan_out.if_any or fan_out.has_members(join):
        delivery = Delivery(_next_id(state), join, (), ())
        if group is not None:
            group.insert(delivery, place)
        members = fan_out.take_members(join)
        delivery.event = tuple([member.event for member in members])
        delivery.payload = tuple([member.payload for member in members])
        state.deliveries[delivery.id] = delivery
    if fan_out_id:
        if group is not None:
            group.remove(place)
        if not fan_out.pending:
            # What is left in it reaches no join any more, so its place in the order is of no use.
            del state.fan_outs[fan_out_id]
            for item in list(fan_out):
                item.group = None
    return delivery


def _next_id(state: RunState) -> int:
    id_ = state.next_id
    state.next_id = id_ + 1
    return id_


def _take_other(state: RunState, id_: int) -> Delayed | Question:
    """Take the delayed event or open question of this id out."""
    delayed = state.delayed.pop(id_, None)
    if delayed is not None:
        return delayed
    # Questions are few, and kept by the name that their answers use.
    question = next(question for question in state.questions.values() if question.id == id_)
    return state.questions.pop(question.request_id)


def _insert(
    state: RunState, entry: Entry, outputs: Iterable[Output], group: FanOut | None, before: Item | None
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
    """Note the delivery of a join that fired among the entry's effects."""
    if entry.effects:
        entry.effects.append(delivery)
    else:
        entry.effects = [delivery]


def _apply_collected(state: RunState, collected: Collected) -> None:
    key = (collected.step, collected.types)
    by_type = state.buffers.get(key)
    if by_type is None:
        by_type = state.buffers[key] = {}
    for id_ in collected.taken:
        for events in by_type.values():
            if events.pop(id_, None) is not None:
                break
    if collected.added is not None:
        event_type, event, payload = collected.added
        id_ = _next_id(state)
        by_type.setdefault(event_type, {})[id_] = Buffered(id_, event, payload)
    if not any(by_type.values()):
        del state.buffers[key]


def _apply_stop(state: RunState, entry: Entry) -> None:
    """The run is over: all that is undone is dropped by the commit that stops it."""
    state.stop, state.stop_payload = entry.stop, entry.stop_payload
    state.deliveries.clear()
    state.delayed.clear()
    state.questions.clear()
    state.fan_outs.clear()
    state.buffers.clear()
    state.root = None


def _apply_driver(state: RunState, entry: Entry) -> None:
    """A process begins to drive the run, for the first time or again."""
    if entry.epoch is not None:
        state.epoch = entry.epoch
        state.next_id = max(state.next_id, entry.epoch * ID_EPOCH + 1)
        if state.status.ended:
            # Tried again from its undone deliveries, with fresh attempts.
            for delivery in state.deliveries.values():
                delivery.attempt, delivery.due, delivery.since = 1, None, None
    created = entry.created
    if created is None:
        return
    state.workflow_version = created["workflow_version"]
    state.timeout = created["timeout"]
    if "metadata" in created:
        state.metadata = created["metadata"]
    if "trace" in created:
        state.trace = created["trace"]
    if created["root"] and state.root is None:
        state.root = FanOut(0)
        loose = [*state.deliveries.values(), *state.delayed.values(), *state.questions.values()]
        for item in sorted((item for item in loose if item.group is None), key=lambda item: item.id):
            state.root.insert(item, state.root)
