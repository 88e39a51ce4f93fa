"""What the state machine asks of a workflow while a run goes on, looked up once per workflow and not per run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._definitions.events import InputRequestEvent, StopEvent
from blazen_trio._state.entry import Targets

if TYPE_CHECKING:
    from blazen_trio._definitions.definition import WorkflowDefinition
    from blazen_trio._definitions.events import Event

__all__ = ["Routing"]


class Routing:
    """A workflow's routing table and graph, as its runs use them; shared by all of them."""

    def __init__(self, definition: WorkflowDefinition) -> None:
        self.definition = definition
        self.known: dict[type[Event], Targets] = {}
        self.root_joins = tuple(step.name for step in definition.steps.values() if step.is_join)
        self.bounds = {
            name: step.max_concurrency
            for name, step in definition.steps.items()
            if step.max_concurrency is not None
        }
        """The steps with a `max_concurrency`."""
        self._later: dict[type[Event], Targets] = {}
        self._holds: dict[tuple[str, bool], frozenset[str]] = {}

    def targets(self, cls: type[Event]) -> Targets:
        """Where events of this class go."""
        targets = self.known.get(cls)
        if targets is None:
            route = self.definition.routes(cls)
            chosen = {*route.steps, *route.joins}
            steps = tuple(name for name in self.definition.steps if name in chosen)
            stops = issubclass(cls, StopEvent)
            plain = not stops and not issubclass(cls, InputRequestEvent)
            targets = Targets(steps, route.joins, plain=plain, stops=stops)
            self.known[cls] = targets
        return targets

    def later(self, cls: type[Event]) -> Targets:
        """Return where delayed events of this class go now: nowhere, but joins wait for them."""
        targets = self._later.get(cls)
        if targets is None:
            targets = self._later[cls] = Targets(collects=self.targets(cls).joins)
        return targets

    def holds(self, node: str, *, root: bool) -> frozenset[str]:
        """The joins that a live item of this node holds back, in the root or in a fan-out."""
        key = (node, root)
        held = self._holds.get(key)
        if held is None:
            held = self._holds[key] = self._find_holds(node, root=root)
        return held

    def _find_holds(self, node: str, *, root: bool) -> frozenset[str]:
        definition = self.definition
        if node in definition.steps:
            return definition.graph.step_holds(node, root)
        kind, _, name = node.partition(":")
        if kind == "member":
            return frozenset()
        cls = definition.event_types.get(name)
        if cls is None:
            # A class made after the workflow was built: until it is routed it may lead anywhere.
            return frozenset(self.root_joins)
        return (
            definition.graph.event_holds(cls, root)
            if kind == "event"
            else definition.graph.question_holds(cls, root)
        )
