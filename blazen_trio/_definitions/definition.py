"""Workflow definitions: validated when built, then immutable and safe to share."""

from __future__ import annotations

import itertools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from blazen_trio._definitions.events import (
    DynamicEvent,
    Event,
    InputRequestEvent,
    StartEvent,
    StopEvent,
)
from blazen_trio._definitions.graph import Graph, handles_failure
from blazen_trio._definitions.registry import event_registry, value_registry
from blazen_trio._definitions.targets import Targets
from blazen_trio._definitions.validation import (
    as_classes,
    check_classes,
    check_options,
    check_steps,
    collect_steps,
    find_starts,
)
from blazen_trio.errors import NoHandlerError, WorkflowValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from blazen_trio._definitions.steps import StepDefinition

__all__ = ["WorkflowDefinition", "no_handler"]


class WorkflowDefinition:
    """A named, validated, immutable set of steps.

    Args:
        name: The workflow's name, stored with each run. A workflow resumes the runs of its name.
        steps: Functions and bound methods declared with `@step`.
        version: A version for people to read, stored with each run.
        timeout: Seconds that a run may be at work; `None` for no limit.
        input_handler: An async function that answers an `InputRequestEvent`. `None`: the run waits
            for `respond`.
        publish_lifecycle: Whether a run's stream also includes each `LifecycleEvent`.
        history: Whether a run records everything that happens to it. Otherwise it records its
            start, its end and failures.
        max_concurrency: The maximum number of tasks that a run has for all its steps; `None` for no
            bound.
        durability: `"sync"`, `"async"` or `"exit"`.
        external: Event classes that may be sent in from outside.
        types: Classes of values in untyped fields and state (attrs classes, dataclasses, enums),
            and event classes that no step names but that stored data may contain.

    Raises:
        WorkflowValidationError: A declaration is wrong. `errors` lists every fault.

    Attributes:
        steps: The steps by name, in the order of declaration.
        starts: The event classes that a run may start with.
        graph: The static graph of the steps.
        has_joins: Whether any step is a join.
        event_types: Every event class that the workflow knows, by `event_type`: what steps accept
            and emit, `external`, `types`, the built-in classes, and the subclasses of all of these
            that existed when the workflow was built.
        value_types: Every value class that the workflow knows, by class name: those in `types` and
            those in the events' annotations.
    """

    name: str
    version: str
    timeout: float | None
    input_handler: Callable[..., Any] | None
    publish_lifecycle: bool
    history: bool
    max_concurrency: int | None
    durability: str
    external: tuple[type[Event], ...]
    types: tuple[type, ...]
    steps: Mapping[str, StepDefinition]
    starts: tuple[type[Event], ...]
    graph: Graph
    has_joins: bool
    event_types: Mapping[str, type[Event]]
    value_types: Mapping[str, type]
    known_targets: dict[type[Event], Targets]
    _failure_targets: dict[str, Targets]
    _most_recoveries: dict[str, int | None]
    _sealed = False

    def __init__(
        self,
        name: str,
        steps: Iterable[Callable[..., Any]],
        *,
        version: str = "1",
        timeout: float | None = 300.0,
        input_handler: Callable[..., Any] | None = None,
        publish_lifecycle: bool = False,
        history: bool = False,
        max_concurrency: int | None = None,
        durability: str = "sync",
        external: Iterable[type[Event]] = (),
        types: Iterable[type] = (),
    ) -> None:
        self.name = name
        self.version = version
        self.timeout = timeout
        self.input_handler = input_handler
        self.publish_lifecycle = bool(publish_lifecycle)
        self.history = bool(history)
        self.max_concurrency = max_concurrency
        self.durability = durability
        self._declare(steps, external, types)
        self.known_targets = {}
        self._failure_targets = {}
        self._most_recoveries = {}
        self._sealed = True

    def _declare(self, steps: object, external: object, types: object) -> None:
        faults = check_options(self)
        self.external = as_classes("external", external, faults)
        self.types = as_classes("types", types, faults)
        self.steps = MappingProxyType(collect_steps(steps, faults))
        self.starts = find_starts(self.steps, self.external)
        faults += check_steps(self.steps, self.starts, self.external)
        mentioned = dict.fromkeys(
            one
            for step in self.steps.values()
            for one in (*step.accepts, *step.emits, *step.list_emits)
        )
        events: list[type[Event]] = [one for one in self.types if issubclass(one, Event)]
        values = [one for one in self.types if not issubclass(one, Event)]
        declared = dict.fromkeys((*mentioned, *self.external, *events))
        # A class with an invalid `event_type` can't be put into a table by that name.
        wrong = {one: told for one in declared if (told := check_classes([one]))}
        faults += itertools.chain.from_iterable(wrong.values())
        right = [one for one in declared if one not in wrong]
        self.event_types = MappingProxyType(event_registry(right, faults))
        self.value_types = MappingProxyType(
            value_registry(values, self.event_types.values(), faults)
        )
        if faults:
            raise WorkflowValidationError(f"workflow {self.name!r}", faults)
        self.graph = Graph(self.steps)
        self.has_joins = any(step.is_join for step in self.steps.values())

    def __setattr__(self, name: str, value: Any) -> None:
        if self._sealed:
            msg = (
                f"workflow {self.name!r} is immutable: build another one instead of setting"
                f" {name!r}"
            )
            raise AttributeError(msg)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        msg = f"workflow {self.name!r} is immutable: {name!r} can't be deleted"
        raise AttributeError(msg)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r} version {self.version!r},"
            f" {len(self.steps)} steps>"
        )

    def targets(self, event_class: type[Event]) -> Targets:
        """Return the destinations of an event of exactly this class. Cached in `known_targets`.

        They are the steps that accept this class or a base of it.
        """
        targets = self.known_targets.get(event_class)
        if targets is None:
            taking = [step for step in self.steps.values() if issubclass(event_class, step.accepts)]
            stops = issubclass(event_class, StopEvent)
            plain = not stops and not issubclass(event_class, InputRequestEvent)
            targets = self.known_targets[event_class] = _targets(taking, plain=plain, stops=stops)
        return targets

    def accepts(self, event_class: type[Event]) -> bool:
        """Return whether any step takes events of this class, one by one or in a list."""
        return bool(self.targets(event_class).steps)

    def failure_targets(self, step_name: str) -> Targets:
        """Return the destinations of the `StepFailedEvent` of that step. Cached.

        They are the other steps that accept this class by name (`Event` is not enough) and whose
        `handles`, if given, names the failed step.
        """
        targets = self._failure_targets.get(step_name)
        if targets is None:
            taking = [step for step in self.steps.values() if handles_failure(step, step_name)]
            targets = self._failure_targets[step_name] = _targets(taking)
        return targets

    def most_recoveries(self, step_name: str) -> int | None:
        """Return how often a failed step may be recovered for what descends from one failure.

        That is the smallest `max_recoveries` of the handlers that lead back to the step; `None` if
        none of them does. Cached.
        """
        if step_name not in self._most_recoveries:
            back = self.graph.recovering(step_name)
            most = min((step.max_recoveries for step in back), default=None)
            self._most_recoveries[step_name] = most
        return self._most_recoveries[step_name]

    def can_emit_start(self, input: object) -> bool:  # noqa: A002
        """Return whether `start_event(input)` returns an event rather than raising."""
        if isinstance(input, Event):
            return isinstance(input, self.starts)
        return issubclass(StartEvent, self.starts)

    def start_event(self, input: object) -> Event:  # noqa: A002
        """Return the event that starts a run on this input.

        An event of one of the classes in `starts` is returned as it is. Plain input is wrapped in a
        `StartEvent`.

        Raises:
            NoHandlerError: The input is an event that no run starts with, or it is plain input and
                no step accepts `StartEvent`.
        """
        if self.can_emit_start(input):
            return input if isinstance(input, Event) else StartEvent(input)
        starts = ", ".join(one.__name__ for one in self.starts)
        if isinstance(input, Event):
            msg = f"workflow {self.name!r} can't start with {_name(input)}: it starts with {starts}"
            raise NoHandlerError(msg, event_type=input.event_type)
        msg = (
            f"workflow {self.name!r} can't start with {input!r:.200}: plain input is wrapped in a"
            f" StartEvent, which no step accepts; it starts with {starts}, so pass such an event"
        )
        raise NoHandlerError(msg, event_type=StartEvent.event_type)


def no_handler(definition: WorkflowDefinition, event: Event, run_id: str) -> NoHandlerError:
    """Return the error for an event that no step accepts."""
    accepted = sorted({cls.__name__ for step in definition.steps.values() for cls in step.accepts})
    return NoHandlerError(
        f"no step of workflow {definition.name!r} accepts {_name(event)}; accepted are"
        f" {', '.join(accepted)}",
        run_id=run_id,
        event_type=event.event_type,
    )


def _name(event: Event) -> str:
    return event.event_type if isinstance(event, DynamicEvent) else type(event).__name__


def _targets(taking: list[StepDefinition], *, plain: bool = False, stops: bool = False) -> Targets:
    return Targets(
        tuple(step.name for step in taking),
        tuple(step.name for step in taking if step.is_join),
        plain=plain,
        stops=stops,
    )
