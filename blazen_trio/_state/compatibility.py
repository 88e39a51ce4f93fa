"""The reasons why a workflow, perhaps in a newer version, can't continue a stored run."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from blazen_trio._definitions.events import DynamicEvent, Event
from blazen_trio._state.apply import SLICE
from blazen_trio._state.entry import drained
from blazen_trio._state.lifecycle import unrouted_input
from blazen_trio._state.model import Delivery, Member, Question

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._state.model import FanOut, Item, RunState

__all__ = ["finding_misfits", "misfits"]


def misfits(definition: WorkflowDefinition, state: RunState) -> list[str]:
    """Return why this workflow can't continue a stored run; nothing if it can.

    There is one sentence for each step and event type that the workflow lacks, and for each event
    on its way to a step that does not accept it.
    """
    return drained(finding_misfits(definition, state))


def finding_misfits(
    definition: WorkflowDefinition, state: RunState, most: int = SLICE
) -> Generator[None, None, list[str]]:
    """Return the result of `misfits`, in slices of at most `most` items."""
    found: dict[str, None] = {}
    for index, misfit in enumerate(_misfits(definition, state), 1):
        if misfit is not None:
            found[misfit] = None
        if index % most == 0:
            yield
    return list(found)


def _misfits(definition: WorkflowDefinition, state: RunState) -> Iterator[str | None]:
    """Yield each mismatch, and `None` per item examined, so that the caller can slice the work."""
    steps = definition.steps
    for delivery in state.deliveries.values():
        yield from _delivery(delivery, steps)
        yield from _loose(delivery, state, definition)
    for delayed in state.delayed.values():
        yield None
        yield from _loose(delayed, state, definition)
        yield from _event(
            delayed.event, "its input" if delayed is unrouted_input(state) else "a delayed delivery"
        )
    for question in state.questions.values():
        yield None
        yield from _loose(question, state, definition)
        yield from _event(question.event, "an open question")
    for fan_out in itertools.chain(state.fan_outs.values(), [state.root] if state.root else []):
        yield from _fan_out(fan_out, definition)
    for (name, _types), by_type in state.buffers.items():
        if name not in steps:
            yield f"a collect buffer belongs to step {name!r}, which the workflow does not have"
        for buffered in by_type.values():
            for one in buffered.values():
                yield None
                yield from _event(one.event, f"a collect buffer of step {name!r}")


def _delivery(delivery: Delivery, steps: Mapping[str, StepDefinition]) -> Iterator[str | None]:
    event, where, step = (
        delivery.event,
        f"a pending delivery to step {delivery.step!r}",
        steps.get(delivery.step),
    )
    if step is None:
        yield f"a pending delivery is for step {delivery.step!r}, which the workflow does not have"
    elif isinstance(event, tuple) != step.is_join:
        held = (
            "a list of events"
            if isinstance(event, tuple)
            else f"one event, of type {event.event_type!r}"
        )
        yield f"{where} holds {held}, but the step now accepts {_accepted(step)}"
        step = None
    for one in event if isinstance(event, tuple) else (event,):
        yield None
        yield from _event(one, where, step)


def _loose(item: Item, state: RunState, definition: WorkflowDefinition) -> Iterator[str]:
    """Report an item that may lead to a join although it has no place in any fan-out's order.

    If the root's order is kept, only the rest of a fan-out whose joins have fired has no place.
    """
    if state.root is None or item.group is not None:
        return
    graph = definition.graph
    if isinstance(item, Delivery):
        held = graph.step_holds(item.step, root=False)
    elif isinstance(item, Question):
        held = graph.question_holds(type(item.event), root=False)
    else:
        held = graph.event_holds(type(item.event), root=False)  # type: ignore[attr-defined]
    if held:
        joins = ", ".join(map(repr, sorted(held)))
        yield f"the item {item.id} is in no fan-out, and may lead to the join {joins}"


def _fan_out(fan_out: FanOut, definition: WorkflowDefinition) -> Iterator[str | None]:
    yield None
    collected = (
        node.removeprefix("member:") for node in fan_out.live if node.startswith("member:")
    )
    for join in dict.fromkeys((*fan_out.pending, *collected)):
        step = definition.steps.get(join)
        if step is None:
            yield f"an open fan-out waits for the join {join!r}, which the workflow does not have"
        elif not step.is_join:
            yield (
                f"an open fan-out waits for the join {join!r}, but this step now accepts"
                f" {_accepted(step)}, not a list"
            )
    for item in fan_out:
        yield None
        if type(item) is Member:
            where = f"the collection of the join {item.join!r}"
            yield from _event(item.event, where, definition.steps.get(item.join))


def _event(event: Event, where: str, step: StepDefinition | None = None) -> Iterator[str]:
    """Report a stored event of an unknown type, or of one that the step does not accept."""
    if isinstance(event, DynamicEvent):
        yield (
            f"{where} holds an event of type {event.event_type!r}, which the workflow does not know"
        )
    elif step is not None and not isinstance(event, step.accepts):
        yield (
            f"{where} holds an event of type {event.event_type!r}, but the step now accepts"
            f" {_accepted(step)}"
        )


def _accepted(step: StepDefinition) -> str:
    names = " | ".join(cls.__name__ for cls in step.accepts)
    return f"list[{names}]" if step.is_join else names
