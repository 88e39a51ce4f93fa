"""The graph of a workflow, coloured by what happened in a run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from blazen_trio._pictures.graph import Edge, Node, WorkflowGraph, workflow_graph
from blazen_trio._state.status import RunStatus

if TYPE_CHECKING:
    from blazen_trio._codec.snapshot import Snapshot
    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._definitions.events import Event
    from blazen_trio._state.entry import HistoryRecord

__all__ = ["STATUSES", "graph_of", "is_detailed", "run_line"]

STATUSES = {
    "done": "done",
    "failed": "failed",
    "retrying": "waiting for the next attempt",
    "undone": "pending or in flight",
    "waiting": "waiting",
    "untouched": "not reached",
}
"""The meaning of each status of a node."""

_DETAILS = frozenset({"step_dispatched", "step_completed"})


def is_detailed(history: tuple[HistoryRecord, ...]) -> bool:
    """Return whether it records every attempt: the run's workflow had `history=True`."""
    return any(record.kind in _DETAILS for record in history)


def run_line(snapshot: Snapshot) -> str:
    """Return one line about a run."""
    return f"run {snapshot.run_id} of workflow {snapshot.workflow_name}: {snapshot.status.value}"


def graph_of(workflow: WorkflowDefinition, run: Snapshot | None) -> WorkflowGraph:
    """Return a workflow's graph; with a run, coloured by what happened in it.

    Raises:
        ValueError: The run belongs to another workflow.
        TypeError: `run` is not a snapshot.
    """
    graph = workflow_graph(workflow)
    if run is None:
        return graph
    name = getattr(run, "workflow_name", None)
    if name is None:
        msg = (
            f"run={run!r:.80} is not a Snapshot: pass the result of `await run.snapshot()` or "
            "`await store.load_snapshot(run_id)`"
        )
        raise TypeError(msg)
    if name != workflow.name:
        msg = (
            f"run {run.run_id!r} is of workflow {name!r}: it can't be drawn on the graph of "
            f"workflow {workflow.name!r}"
        )
        raise ValueError(msg)
    return _Overlay(workflow, run).over(graph)


class _Overlay:
    """A run's facts, counted once."""

    def __init__(self, workflow: WorkflowDefinition, run: Snapshot) -> None:
        self._run = run
        self._types = workflow.event_types
        history = run.history
        self._detailed = is_detailed(history)
        self._kinds = Counter(
            (record.kind, record.step) for record in history if record.step is not None
        )
        self._came = {
            (one.step, one.event_type)
            for one in history
            if one.kind in ("event_received", "workflow_completed")
        }
        self._went = {
            (one.step, _element(one.event_type)) for one in history if one.kind == "step_dispatched"
        }
        self._seen = {
            _element(record.event_type) for record in history if record.event_type is not None
        }
        failures = [record.step for record in history if record.kind == "workflow_failed"]
        self._culprit = failures[-1] if failures and run.status is RunStatus.FAILED else None
        deliveries = run.deliveries
        retrying = [one.step for one in deliveries if one.due is not None and not run.status.ended]
        self._retrying = Counter(retrying)
        self._undone = Counter(one.step for one in deliveries) - self._retrying
        self._collected = Counter(one.step for one in run.collected)
        self._waiting = {(one.step, one.event.event_type) for one in run.collected}
        # `input_requests` has them as plain requests, without the type by which they were asked.
        self._open = Counter(one.event.event_type for one in run.run_state.questions.values())
        self._delayed = Counter(one.event.event_type for one in run.delayed)

    def over(self, graph: WorkflowGraph) -> WorkflowGraph:
        """Return the graph, coloured by what happened."""
        nodes = {
            node.id: self._step(node)
            if node.kind == "step"
            else self._event(node, graph.classes[node.id])
            for node in graph.nodes.values()
        }
        edges = tuple(attrs.evolve(edge, taken=self._taken(edge, graph)) for edge in graph.edges)
        summary = run_line(self._run) + (f" ({self._run.error})" if self._run.error else "")
        if not self._detailed:
            summary += "; completed steps are not shown, as the workflow lacks history=True"
        return attrs.evolve(
            graph, title=run_line(self._run), summary=summary, nodes=nodes, edges=edges
        )

    def _step(self, node: Node) -> Node:
        name = node.name
        done, failures = self._kinds["step_completed", name], self._kinds["step_failed", name]
        over = {"done": done, "failed": failures, "retried": self._kinds["step_retried", name]}
        left = {
            "pending": self._undone[name],
            "awaiting retry": self._retrying[name],
            "collected": self._collected[name],
        }
        lines = [
            ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
            for counts in (over, left)
        ]
        happened = tuple(filter(None, lines))
        if name == self._culprit:
            return attrs.evolve(node, status="failed", happened=happened)
        for status, count in (
            ("undone", self._undone[name]),
            ("retrying", self._retrying[name]),
            ("waiting", self._collected[name]),
            ("done", done),
            ("failed", failures if self._detailed else 0),
        ):
            if count:
                return attrs.evolve(node, status=status, happened=happened)
        return attrs.evolve(node, status="untouched" if self._detailed else None, happened=happened)

    def _event(self, node: Node, event_class: type[Event]) -> Node:
        if node.kind == "failure":
            step = node.id.removeprefix("failure:")
            seen = (step, node.name) in self._went
            return attrs.evolve(
                node, status=("done" if seen else "untouched") if self._detailed else None
            )
        for counter, what in ((self._open, "open"), (self._delayed, "delayed")):
            count = sum(number for name, number in counter.items() if self._is(name, event_class))
            if count:
                return attrs.evolve(node, status="waiting", happened=(f"{count:,} {what}",))
        if any(self._is(name, event_class) for name in self._seen):
            return attrs.evolve(node, status="done")
        return attrs.evolve(node, status="untouched" if self._detailed else None)

    def _is(self, event_type: str | None, event_class: type[Event]) -> bool:
        """Return whether an event of this type may have been declared as this class."""
        if event_type == event_class.event_type:
            return True
        known = self._types.get(event_type or "")
        return known is not None and issubclass(known, event_class)

    def _taken(self, edge: Edge, graph: WorkflowGraph) -> bool | None:
        if not self._detailed:
            return None
        source, target = graph.nodes[edge.source], graph.nodes[edge.target]
        if edge.kind == "ask":
            return any(self._is(name, graph.classes[target.id]) for name in self._seen)
        if edge.kind == "fail":
            return (
                self._kinds["step_failed", source.name] > self._kinds["step_retried", source.name]
            )
        if source.kind == "step":
            return any(
                step == source.name and self._is(name, graph.classes[target.id])
                for step, name in self._came
            )
        went = {*self._went, *self._waiting}
        return any(
            step == target.name and self._is(name, graph.classes[source.id]) for step, name in went
        )


def _element(event_type: str | None) -> str | None:
    """Return the type of a join's events, which the history records as `list[...]`."""
    if event_type is not None and event_type.startswith("list[") and event_type.endswith("]"):
        return event_type[5:-1]
    return event_type
