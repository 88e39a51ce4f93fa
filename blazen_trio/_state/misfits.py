"""Whether a workflow, perhaps a newer version than the one that left it, can go on with a stored run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._definitions.events import DynamicEvent, Event
from blazen_trio._state.model import Member
from blazen_trio._state.undriven import unrouted_input

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._state.model import FanOut, RunState

__all__ = ["misfits"]


def misfits(definition: WorkflowDefinition, state: RunState) -> list[str]:
    """Why this workflow can't go on with a stored run: a sentence for each step and event that it lacks, and for each event on its
    way to a step that does not accept it.
    """
    return list(dict.fromkeys(_misfits(definition, state)))


def _misfits(definition: WorkflowDefinition, state: RunState) -> Iterator[str]:
    steps = definition.steps
    for delivery in state.deliveries.values():
        where, step = f"an undone delivery to step {delivery.step!r}", steps.get(delivery.step)
        listed = isinstance(delivery.event, tuple)
        if step is None:
            yield f"an undone delivery is for step {delivery.step!r}, which the workflow does not have"
        elif listed != step.is_join:
            held = "a list of events" if listed else f"one event, of type {delivery.event.event_type!r}"  # type: ignore[union-attr]
            yield f"{where} holds {held}, and the step accepts {_accepted(step)} now"
            step = None
        for event in delivery.event if isinstance(delivery.event, tuple) else (delivery.event,):
            yield from _event(event, where, step)
    for delayed in state.delayed.values():
        yield from _event(delayed.event, "its input" if delayed is unrouted_input(state) else "a delayed delivery")
    for question in state.questions.values():
        yield from _event(question.event, "an open question")
    for fan_out in (*state.fan_outs.values(), *([state.root] if state.root else [])):
        yield from _fan_out(fan_out, definition)
    for (name, _types), by_type in state.buffers.items():
        if name not in steps:
            yield f"a collect buffer belongs to step {name!r}, which the workflow does not have"
        for buffered in by_type.values():
            for one in buffered.values():
                yield from _event(one.event, f"a collect buffer of step {name!r}")


def _fan_out(fan_out: FanOut, definition: WorkflowDefinition) -> Iterator[str]:
    members = [item for item in fan_out if type(item) is Member]
    for join in dict.fromkeys((*fan_out.pending, *(member.join for member in members))):
        step = definition.steps.get(join)
        if step is None:
            yield f"an open fan-out waits for the join {join!r}, which the workflow does not have"
        elif not step.is_join:
            yield f"an open fan-out waits for the join {join!r}, and this step accepts {_accepted(step)} now, no list"
    for member in members:
        yield from _event(
            member.event, f"what the join {member.join!r} has collected", definition.steps.get(member.join)
        )


def _event(event: Event, where: str, step: StepDefinition | None = None) -> Iterator[str]:
    """What is wrong with a stored event, and with its way to this step."""
    if isinstance(event, DynamicEvent):
        yield f"{where} holds an event of type {event.event_type!r}, which the workflow does not know"
    elif step is not None and not isinstance(event, step.accepts):
        yield f"{where} holds an event of type {event.event_type!r}, and the step accepts {_accepted(step)} now"


def _accepted(step: StepDefinition) -> str:
    names = " | ".join(cls.__name__ for cls in step.accepts)
    return f"list[{names}]" if step.is_join else names
