"""What can come of what: which joins a fan-out fires, and which joins a live item holds back.

Levels. A returned list opens a fan-out one level down. A join collects what is at the level of its fan-out, and what
it returns belongs one level up. So walking at one level: a step leads to what it returns plainly, and to whoever takes
its failures; a list that it returns leads to what the joins of that fan-out return, for that comes back up to here; what
is collected here leaves the level. Only the run's root has no level above it: what a root join returns stays there.

All answers are conservative: an event declared as `T` may be an instance of a subclass, so it may go to a step
that accepts a base of `T` or a subclass of it.
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
    """Whether an event declared as `emitted` may go to a step that accepts `accepted`. A `StopEvent` goes nowhere."""
    if issubclass(emitted, StopEvent):
        return False
    return issubclass(emitted, accepted) or issubclass(accepted, emitted)


def handles_failure(handler: StepDefinition, step: str) -> bool:
    """Whether `handler` takes failures of the step of that name.

    Only a step that names `StepFailedEvent` does: one that accepts every `Event` is not meant to swallow failures.
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
        """Whether it goes where failures lead, too."""
        self.root = root
        self.target = target
        """At the root, the join that is asked about: paths through it don't count."""
        self.joins: set[str] = set()
        self.steps: set[str] = set()
        self.classes: set[type[Event]] = set()
        self.todo: list[StepDefinition] = []

    def emitted(self, event_class: type[Event], *, exact: bool = False) -> None:
        """An event of this class comes up; `exact`: of this very class, not of a subclass."""
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
        """An event goes to this step."""
        if not step.is_join:
            self.run(step)
            return
        self.joins.add(step.name)
        if self.root and step.name != self.target:
            self.run(step)

    def run(self, step: StepDefinition) -> None:
        """This step runs at this level."""
        if step.name not in self.steps:
            self.steps.add(step.name)
            self.todo.append(step)

    def finish(self) -> _Walk:
        """Follow what the steps that run return, and who gets their failures."""
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
    """The static graph of a workflow's steps. All answers are cached; names are step names."""

    def __init__(self, steps: Mapping[str, StepDefinition]) -> None:
        self.steps = steps
        self.handlers: dict[str, list[StepDefinition]] = {
            name: [handler for handler in steps.values() if handles_failure(handler, name)]
            for name in steps
        }
        self.opens: dict[bool, dict[str, tuple[str, ...]]] = {}
        """Of each step: the joins that a list which it returns leads to, with or without the ways that failures take."""
        self._fired: dict[tuple[tuple[type[Event], ...], bool], tuple[str, ...]] = {}
        self._step_holds: dict[tuple[str, bool], frozenset[str]] = {}
        self._event_holds: dict[tuple[type[Event], bool], frozenset[str]] = {}
        self._question_holds: dict[bool, frozenset[str]] = {}
        for failures in (False, True):
            self._close(failures)
        self._at_home = frozenset().union(*self.opens[False].values())
        """The joins that a list fires in which nothing fails."""

    def _close(self, failures: bool) -> None:
        """Fill `opens`: what a list fires depends on what nested lists fire, and only ever grows."""
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
        """The joins that a fan-out with these declared element classes may fire, in the order of declaration."""
        return self._joins(classes, failures=True)

    def joins_if_any(self, classes: tuple[type[Event], ...]) -> tuple[str, ...]:
        """Those of them that it fires only if something came: only failures lead to them from here, and they are at home in other lists. Fired
        with nothing, they would go on where nobody waits for them.
        """
        away = self._at_home.difference(self._joins(classes, failures=False))
        return tuple(join for join in self.fired_joins(classes) if join in away)

    def _joins(self, classes: tuple[type[Event], ...], *, failures: bool) -> tuple[str, ...]:
        known = self._fired.get((classes, failures))
        if known is None:
            known = self._fired[classes, failures] = self._fire(classes, failures)
        return known

    def recovering(self, name: str) -> list[StepDefinition]:
        """The handlers of a step that lead back to it, through whatever steps and joins."""
        return [handler for handler in self.handlers[name] if name in self._ahead(handler)]

    def _ahead(self, start: StepDefinition) -> set[str]:
        """All steps that what a step returns may lead to, at whatever level."""
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
        """The joins of its level that a delivery to this step, or the pending outcome of this join, holds back."""
        known = self._step_holds.get((name, root))
        if known is None:
            step = self.steps.get(name)
            known = self._step_holds[name, root] = (
                self._holds(step, (), root=root) if step else frozenset()
            )
        return known

    def event_holds(self, event_class: type[Event], root: bool) -> frozenset[str]:
        """The joins of its level that an event of this very class, still to be routed, holds back."""
        known = self._event_holds.get((event_class, root))
        if known is None:
            known = self._holds(None, (event_class,), root=root, exact=True)
            self._event_holds[event_class, root] = known
        return known

    def question_holds(self, request_class: type[Event], root: bool) -> frozenset[str]:
        """The joins of its level that an open question holds back: through every answer that a step accepts.

        Which class of answer a question gets is not declared, so `request_class` makes no difference (yet).
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
