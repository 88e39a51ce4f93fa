"""Reachability: the joins that a fan-out may fire, and the joins that a live item holds back.

Levels. A returned list opens a fan-out one level down. A join collects items at the level of its
fan-out, and its outputs belong one level up. A walk at one level therefore follows three rules:

- A step leads to the steps that accept its plain outputs, and to the handlers of its failures.
- A list that it returns leads to the outputs of that fan-out's joins, which come back up to this
  level.
- An item that a join of this level collects leaves the level.

Only the run's root has no level above it: the outputs of a root join stay at the root.

All answers are conservative: an event declared as `T` may be an instance of a subclass, so it may
go to a step that accepts a base of `T` or a subclass of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._definitions.events import (
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StepFailedEvent,
    StopEvent,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blazen_trio._definitions.steps import StepDefinition

__all__ = ["Graph", "handles_failure", "may_be_routed"]


def may_be_routed(emitted: type[Event], accepted: type[Event]) -> bool:
    """Return whether an event declared as `emitted` may go to a step that accepts `accepted`.

    A `StopEvent` goes to no step.
    """
    if issubclass(emitted, StopEvent):
        return False
    return issubclass(emitted, accepted) or issubclass(accepted, emitted)


def handles_failure(handler: StepDefinition, step: str) -> bool:
    """Return whether `handler` takes failures of the step of that name.

    Only a step that names `StepFailedEvent` does. One that accepts every `Event` is not meant to
    swallow failures.
    """
    if StepFailedEvent not in handler.accepts or handler.name == step:
        return False
    return handler.handles is None or step in handler.handles


class _Walk:
    """One walk along declared emits, at one level."""

    def __init__(
        self, graph: Graph, *, root: bool = False, target: str | None = None, failures: bool = True
    ) -> None:
        self.graph = graph
        self.failures = failures
        """If true, the walk also follows failures to their handlers."""
        self.root = root
        self.target = target
        """The join in question, for a walk at the root. Paths through it don't count."""
        self.joins: set[str] = set()
        self.steps: set[str] = set()
        self.classes: set[type[Event]] = set()
        self.todo: list[StepDefinition] = []

    def emitted(self, event_class: type[Event], *, exact: bool = False) -> None:
        """Add an event of this class. With `exact`, it is not an instance of a subclass."""
        if event_class in self.classes or issubclass(event_class, StopEvent):
            return
        if not exact:
            self.classes.add(event_class)
        for step in self.graph.steps.values():
            if issubclass(event_class, step.accepts) or (
                not exact and any(issubclass(accepted, event_class) for accepted in step.accepts)
            ):
                self.delivered(step)
        if issubclass(event_class, InputRequestEvent) or (
            not exact and issubclass(InputRequestEvent, event_class)
        ):
            self.emitted(InputResponseEvent)

    def delivered(self, step: StepDefinition) -> None:
        """Add a delivery to this step."""
        if not step.is_join:
            self.run(step)
            return
        self.joins.add(step.name)
        if self.root and step.name != self.target:
            self.run(step)

    def run(self, step: StepDefinition) -> None:
        """Add this step to those that run at this level."""
        if step.name not in self.steps:
            self.steps.add(step.name)
            self.todo.append(step)

    def finish(self) -> _Walk:
        """Follow the outputs and failures of all steps that run, until nothing is new."""
        while self.todo:
            step = self.todo.pop()
            for event_class in step.emits:
                self.emitted(event_class)
            for join in self.graph.opens[self.failures][step.name]:
                self.run(self.graph.steps[join])
            if self.failures:
                for handler in self.graph.handlers[step.name]:
                    self.delivered(handler)
        return self


class Graph:
    """The static graph of a workflow's steps. Answers are cached; names are step names."""

    def __init__(self, steps: Mapping[str, StepDefinition]) -> None:
        self.steps = steps
        self.handlers: dict[str, list[StepDefinition]] = {
            name: [handler for handler in steps.values() if handles_failure(handler, name)]
            for name in steps
        }
        self.opens: dict[bool, dict[str, tuple[str, ...]]] = {}
        """The joins that a list returned by each step leads to; the outer key includes failures."""
        self._fired: dict[tuple[tuple[type[Event], ...], bool], tuple[str, ...]] = {}
        self._step_holds: dict[tuple[str, bool], frozenset[str]] = {}
        self._event_holds: dict[tuple[type[Event], bool], frozenset[str]] = {}
        self._question_holds: dict[bool, frozenset[str]] = {}
        for failures in (False, True):
            self._close(failures)
        self._at_home = frozenset().union(*self.opens[False].values())
        """The joins that some list fires even if nothing in it fails."""

    def _close(self, failures: bool) -> None:
        """Fill `opens`, by iterating to a fixed point.

        The joins of a list depend on those of nested lists. A set of joins only grows, so it ends.
        """
        opens = self.opens[failures] = dict.fromkeys(self.steps, ())
        changed = True
        while changed:
            changed = False
            for step in self.steps.values():
                if not step.list_emits:
                    continue
                fired = self._fire(step.list_emits, failures)
                if fired != opens[step.name]:
                    opens[step.name] = fired
                    changed = True

    def _fire(self, classes: Iterable[type[Event]], failures: bool) -> tuple[str, ...]:
        walk = _Walk(self, failures=failures)
        for event_class in classes:
            walk.emitted(event_class)
        walk.finish()
        return tuple(name for name in self.steps if name in walk.joins)

    def fired_joins(self, classes: tuple[type[Event], ...]) -> tuple[str, ...]:
        """Return the joins that a fan-out of these element classes may fire, in declared order."""
        return self._joins(classes, failures=True)

    def joins_if_any(self, classes: tuple[type[Event], ...]) -> tuple[str, ...]:
        """Return those of `fired_joins` that fire only if they collected something.

        From this fan-out only failures lead to them, and other lists fire them anyway. Fired here
        with `[]`, such a join would run, and emit its outputs, in a fan-out that is not its own.
        """
        away = self._at_home.difference(self._joins(classes, failures=False))
        return tuple(join for join in self.fired_joins(classes) if join in away)

    def _joins(self, classes: tuple[type[Event], ...], *, failures: bool) -> tuple[str, ...]:
        known = self._fired.get((classes, failures))
        if known is None:
            known = self._fired[classes, failures] = self._fire(classes, failures)
        return known

    def recovering(self, name: str) -> list[StepDefinition]:
        """Return the handlers of a step that lead back to it, through any steps and joins."""
        return [handler for handler in self.handlers[name] if name in self._ahead(handler)]

    def _ahead(self, start: StepDefinition) -> set[str]:
        """Return all steps that the outputs of a step may lead to, at any level."""
        ahead: set[str] = set()
        todo = [start]
        while todo:
            step = todo.pop()
            emitted = list(step.emits + step.list_emits)
            if any(
                issubclass(one, InputRequestEvent) or issubclass(InputRequestEvent, one)
                for one in emitted
            ):
                emitted.append(InputResponseEvent)
            led = [
                other
                for other in self.steps.values()
                if any(
                    may_be_routed(one, accepted) for one in emitted for accepted in other.accepts
                )
            ]
            for other in (*led, *self.handlers[step.name]):
                if other.name not in ahead:
                    ahead.add(other.name)
                    todo.append(other)
        return ahead

    def step_holds(self, name: str, root: bool) -> frozenset[str]:
        """Return the joins of its level that a delivery to this step holds back.

        If the step is a join, those that its pending outcome holds back.
        """
        known = self._step_holds.get((name, root))
        if known is None:
            step = self.steps.get(name)
            known = self._step_holds[name, root] = (
                self._holds(step, (), root=root) if step else frozenset()
            )
        return known

    def event_holds(self, event_class: type[Event], root: bool) -> frozenset[str]:
        """Return the joins of its level that an unrouted event of exactly this class holds back."""
        known = self._event_holds.get((event_class, root))
        if known is None:
            known = self._holds(None, (event_class,), root=root, exact=True)
            self._event_holds[event_class, root] = known
        return known

    def question_holds(self, request_class: type[Event], root: bool) -> frozenset[str]:
        """Return the joins of its level that an open question holds back.

        It does so through every answer that a step accepts. A question does not declare the class
        of its answer, so `request_class` makes no difference (yet).
        """
        del request_class
        known = self._question_holds.get(root)
        if known is None:
            known = self._question_holds[root] = self._holds(None, (InputResponseEvent,), root=root)
        return known

    def _holds(
        self,
        start: StepDefinition | None,
        classes: tuple[type[Event], ...],
        *,
        root: bool,
        exact: bool = False,
    ) -> frozenset[str]:
        if not root:
            return frozenset(self._walk(start, classes, exact=exact).joins)
        joins = (step.name for step in self.steps.values() if step.is_join)
        return frozenset(
            join
            for join in joins
            if join in self._walk(start, classes, exact=exact, root=True, target=join).joins
        )

    def _walk(
        self,
        start: StepDefinition | None,
        classes: tuple[type[Event], ...],
        *,
        exact: bool,
        root: bool = False,
        target: str | None = None,
    ) -> _Walk:
        walk = _Walk(self, root=root, target=target)
        if start is not None:
            walk.run(start)
        for event_class in classes:
            walk.emitted(event_class, exact=exact)
        return walk.finish()
