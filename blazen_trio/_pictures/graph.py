"""A workflow as nodes and edges, which every format draws.

Events are nodes, not labels on edges. An event with several steps before and after it is therefore
drawn once, and labels can't overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blazen_trio._definitions.events import (
    InputRequestEvent,
    InputResponseEvent,
    StepFailedEvent,
    StopEvent,
)
from blazen_trio._definitions.graph import handles_failure, may_be_routed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._definitions.events import Event
    from blazen_trio._definitions.steps import StepDefinition

__all__ = ["Edge", "Node", "WorkflowGraph", "workflow_graph"]


@attrs.frozen
class Node:
    """A step or an event.

    Attributes:
        id: Unique in this graph; always the same for the same workflow.
        kind: `step`, `start`, `stop`, `event`, `external`, `question`, `answer` or `failure`.
        name: The step's name, or the event's type.
        notes: Notes shown beside its name.
        status: In a run's picture: `done`, `failed`, `retrying`, `undone`, `waiting` or
            `untouched`; `None` if it is unknown.
        happened: In a run's picture: its past attempts and pending work, in words.
    """

    id: str
    kind: str
    name: str
    notes: tuple[str, ...] = ()
    status: str | None = None
    happened: tuple[str, ...] = ()


@attrs.frozen
class Edge:
    """An edge from a step to an event that it emits, or from an event to a step that accepts it.

    Attributes:
        source: The id of the node that it leaves.
        target: The id of the node that it enters.
        kind: `emit`, `fan_out` (in a list), `deliver`, `fan_in` (collected), `ask` (from a question
            to its answer) or `fail` (from a step to the handler of its failures).
        taken: In a run's picture: whether anything went along it; `None` if that is unknown.
    """

    source: str
    target: str
    kind: str
    taken: bool | None = None


@attrs.frozen
class WorkflowGraph:
    """The picture's content.

    Attributes:
        title: One line that names the workflow or the run.
        summary: A text alternative for the picture.
        nodes: The nodes by id, in the order of declaration.
        edges: The edges, at most one for each pair of nodes.
        classes: The event class of each event node, by id.
    """

    title: str
    summary: str
    nodes: dict[str, Node]
    edges: tuple[Edge, ...]
    classes: dict[str, type[Event]]

    def to_data(self) -> dict[str, Any]:
        """Return the graph as JSON values."""
        return {
            "title": self.title,
            "nodes": [attrs.asdict(node) for node in self.nodes.values()],
            "edges": [attrs.asdict(edge) for edge in self.edges],
        }


def workflow_graph(workflow: WorkflowDefinition) -> WorkflowGraph:
    """Return the graph of a workflow, as declared."""
    classes = _event_classes(workflow)
    nodes = {_step_id(step): _step_node(step) for step in workflow.steps.values()}
    for id_, event_class in classes.items():
        nodes[id_] = _event_node(id_, event_class, workflow)
    edges: dict[tuple[str, str], Edge] = {}
    for step in workflow.steps.values():
        _connect(edges, step, classes)
        if StepFailedEvent in step.accepts:
            handler = _failure_node(step)
            nodes[handler.id] = handler
            classes[handler.id] = StepFailedEvent
            edges[handler.id, _step_id(step)] = Edge(handler.id, _step_id(step), "deliver")
            # A handler of every step's failures has a note instead: an edge from each step would
            # clutter the picture.
            for name in step.handles or ():
                if name in workflow.steps and handles_failure(step, name):
                    edges[f"step:{name}", handler.id] = Edge(f"step:{name}", handler.id, "fail")
    _connect_questions(edges, nodes)
    steps = len(workflow.steps)
    summary = (
        f"{steps} {'step' if steps == 1 else 'steps'}, from {_named(nodes, 'start')} to "
        f"{_named(nodes, 'stop') or 'no StopEvent'}"
    )
    return WorkflowGraph(
        f"workflow {workflow.name}", summary, nodes, tuple(edges.values()), classes
    )


def _step_id(step: StepDefinition) -> str:
    return f"step:{step.name}"


def _event_classes(workflow: WorkflowDefinition) -> dict[str, type[Event]]:
    """Return the events that steps emit, external events, and the answers that steps accept."""
    found: dict[type[Event], None] = dict.fromkeys(workflow.starts)
    for step in workflow.steps.values():
        found |= dict.fromkeys((*step.emits, *step.list_emits))
    found |= dict.fromkeys(workflow.external)
    for step in workflow.steps.values():
        found |= dict.fromkeys(one for one in step.accepts if issubclass(one, InputResponseEvent))
    return {f"event:{one.event_type}": one for one in found}


def _step_node(step: StepDefinition) -> Node:
    notes = []
    if step.is_join:
        notes.append("fan-in")
    if step.returns_list:
        notes.append("fan-out")
    if step.retry is not None:
        notes.append(f"up to {step.retry.max_attempts} attempts")
    if step.timeout is not None:
        notes.append(f"timeout {step.timeout:g} s")
    return Node(_step_id(step), "step", step.name, tuple(notes))


def _event_node(id_: str, event_class: type[Event], workflow: WorkflowDefinition) -> Node:
    kind, notes = "event", tuple[str, ...]()
    if event_class in workflow.starts:
        kind, notes = (
            "start",
            ("entry", "external") if event_class in workflow.external else ("entry",),
        )
    elif issubclass(event_class, StopEvent):
        kind, notes = "stop", ("exit",)
    elif issubclass(event_class, InputRequestEvent):
        kind, notes = "question", ("question",)
    elif issubclass(event_class, InputResponseEvent):
        kind, notes = "answer", ("answer",)
    elif event_class in workflow.external:
        kind, notes = "external", ("external",)
    return Node(id_, kind, event_class.event_type, notes)


def _failure_node(handler: StepDefinition) -> Node:
    notes = ("failure of any other step",) if handler.handles is None else ()
    return Node(f"failure:{handler.name}", "failure", StepFailedEvent.event_type, notes)


def _connect(
    edges: dict[tuple[str, str], Edge], step: StepDefinition, classes: dict[str, type[Event]]
) -> None:
    own = _step_id(step)
    for id_, event_class in classes.items():
        if event_class in step.list_emits:
            edges[own, id_] = Edge(own, id_, "fan_out")
        elif event_class in step.emits:
            edges[own, id_] = Edge(own, id_, "emit")
        if event_class is not StepFailedEvent and any(
            may_be_routed(event_class, one) for one in step.accepts
        ):
            edges[id_, own] = Edge(id_, own, "fan_in" if step.is_join else "deliver")


def _connect_questions(edges: dict[tuple[str, str], Edge], nodes: dict[str, Node]) -> None:
    """Connect each question to all answers: which of them it gets is not declared."""
    answers = [node.id for node in nodes.values() if node.kind == "answer"]
    for question in nodes.values():
        if question.kind == "question":
            for answer in answers:
                edges[question.id, answer] = Edge(question.id, answer, "ask")


def _named(nodes: dict[str, Node], kind: str) -> str:
    return _listed(node.name for node in nodes.values() if node.kind == kind)


def _listed(names: Iterable[str]) -> str:
    return " or ".join(names)
