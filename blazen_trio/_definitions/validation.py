"""Validation of a workflow, which reports all faults at once."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import attrs

from blazen_trio._definitions.events import (
    DynamicEvent,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from blazen_trio._definitions.graph import may_be_routed
from blazen_trio._definitions.names import is_positive_seconds, name_fault
from blazen_trio._definitions.steps import define_step, is_positive_int, is_step, step_name
from blazen_trio._definitions.value_classes import is_stored_by_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blazen_trio._definitions.steps import StepDefinition

__all__ = [
    "DURABILITIES",
    "as_classes",
    "check_classes",
    "check_options",
    "check_steps",
    "collect_steps",
    "find_starts",
]

DURABILITIES: Final = ("sync", "async", "exit")
_SELF_MADE: Final = (InputResponseEvent, StepFailedEvent)
"""Events that the engine or an outside caller creates, so no step has to emit them."""


def check_options(options: Any) -> list[str]:
    """Return the faults in a workflow's plain options, which are attributes of `options`."""
    faults = [
        f"{option}={getattr(options, option)!r:.80}: expected a name that can be stored: {fault}"
        for option in ("name", "version")
        if (fault := name_fault(getattr(options, option)))
    ]
    if options.timeout is not None and not is_positive_seconds(options.timeout):
        faults.append(
            f"timeout={options.timeout!r}: expected a number of seconds above 0 and up to 1e11, or"
            " None for no limit"
        )
    if options.input_handler is not None and not callable(options.input_handler):
        faults.append(
            f"input_handler={options.input_handler!r}: expected an async function that takes the"
            " InputRequestEvent"
        )
    if options.max_concurrency is not None and not is_positive_int(options.max_concurrency):
        faults.append(
            f"max_concurrency={options.max_concurrency!r}: expected an integer, at least 1, or None"
            " for no bound"
        )
    if options.durability not in DURABILITIES:
        faults.append(
            f"durability={options.durability!r}: expected one of"
            f" {', '.join(map(repr, DURABILITIES))}"
        )
    return faults


def as_classes(option: str, given: object, faults: list[str]) -> tuple[Any, ...]:
    """Return the classes given for `external` or `types`, in order and without duplicates."""
    if isinstance(given, str | type) or not isinstance(given, Iterable):
        faults.append(
            f"{option}={given!r}: expected a sequence of classes, as in {option}=[Approved]"
        )
        return ()
    classes = list(given)
    for one in classes:
        if option == "external" and not _is_event_class(one):
            faults.append(
                f"external= contains {one!r}: expected Event subclasses, for events sent in from"
                " outside"
            )
        elif not _is_event_class(one) and not is_stored_by_name(one):
            faults.append(
                f"types= contains {one!r}: expected attrs classes, dataclasses, enums or Event"
                " subclasses"
            )
    good = (
        one
        for one in classes
        if _is_event_class(one) or (option == "types" and is_stored_by_name(one))
    )
    return tuple(dict.fromkeys(good))


def _is_event_class(candidate: object) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, Event)


def collect_steps(given: object, faults: list[str]) -> dict[str, StepDefinition]:
    """Return the definitions of a workflow's steps by name, in order of declaration.

    If faults were added, the definitions contain what could be read.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        faults.append(f"steps={given!r}: expected a sequence of steps, as in [begin, tick]")
        return {}
    found: dict[str, StepDefinition] = {}
    names: set[str] = set()
    steps = list(given)
    if not steps:
        faults.append("it has no steps: give it at least one function declared with @step")
    for index, function in enumerate(steps):
        if not is_step(function):
            faults.append(f"{_describe(function)} is not a step: declare it with @step")
            continue
        name = step_name(function)
        definition = define_step(function, index, faults)
        if name in names:
            faults.append(f"two steps are named {name!r}: rename one with @step(name=...)")
            name = f"{name} (the {index + 1}th)"
        names.add(name)
        if definition is not None:
            found[name] = (
                definition if definition.name == name else attrs.evolve(definition, name=name)
            )
    return found


def _describe(candidate: object) -> str:
    name = getattr(candidate, "__qualname__", None)
    return f"{type(candidate).__name__} {name or repr(candidate)}"


def event_class_fault(event_class: type[Event]) -> str | None:
    """Return the fault of an event class as the end of a sentence, or `None` if it has none."""
    if reserved := _reserved_fields(event_class):
        return (
            f"has a field {reserved[0]!r}, a name that every event class uses for something else: "
            f"give the field another name, as in `{reserved[0]}_`"
        )
    if type(event_class.event_type) is not str or not event_class.event_type:
        return f"has the event_type {event_class.event_type!r}: it must be a non-empty str"
    version = event_class.schema_version
    if type(version) is not int or not 1 <= version < 2**31:
        return f"has the schema_version {version!r}: it must be an integer from 1 to 2**31 - 1"
    if "__attrs_attrs__" in vars(event_class):
        if event_class.__setattr__ is not StartEvent.__setattr__:
            return "is mutable: declare it with @attrs.frozen instead"
        return None
    try:
        own = inspect.get_annotations(event_class)
    except NameError:
        own = {"?": "?"}
    if all(
        _is_class_variable(annotation) for annotation in own.values()
    ) and "__init__" not in vars(event_class):
        return None
    return "has fields but is not an attrs class: declare it with @attrs.frozen"


def _reserved_fields(event_class: type[Event]) -> list[str]:
    """Return the fields that would replace attributes of the class that the engine uses."""
    if issubclass(event_class, DynamicEvent) or not attrs.has(event_class):
        return []
    reserved = ("event_type", "schema_version", "upcast")
    return [field.name for field in attrs.fields(event_class) if field.name in reserved]


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.removeprefix("typing.").removeprefix("t.").startswith("ClassVar")
    return annotation is typing.ClassVar or typing.get_origin(annotation) is typing.ClassVar


def emitted_classes(step: StepDefinition) -> tuple[type[Event], ...]:
    """Return all classes that a step may return or send, one by one or in lists."""
    return (*step.emits, *step.list_emits)


def _accepted(steps: Mapping[str, StepDefinition]) -> list[type[Event]]:
    return list(dict.fromkeys(one for step in steps.values() for one in step.accepts))


def _is_emitted(accepted: type[Event], steps: Mapping[str, StepDefinition]) -> bool:
    return any(
        may_be_routed(one, accepted) for step in steps.values() for one in emitted_classes(step)
    )


def find_starts(
    steps: Mapping[str, StepDefinition], external: Sequence[type[Event]]
) -> tuple[type[Event], ...]:
    """Return the event classes that a run may start with.

    These are the accepted `StartEvent` classes. If there are none, they are the accepted classes
    that no step emits and that are not sent in from outside. If there are none of those either,
    they are all accepted classes.
    """
    accepted = [
        one
        for one in _accepted(steps)
        if not issubclass(one, StopEvent | InputResponseEvent | StepFailedEvent)
    ]
    return (
        tuple(one for one in accepted if issubclass(one, StartEvent))
        or tuple(
            one
            for one in accepted
            if not _is_emitted(one, steps) and not issubclass(one, tuple(external))
        )
        or tuple(accepted)
    )


def check_steps(
    steps: Mapping[str, StepDefinition],
    starts: Sequence[type[Event]],
    external: Sequence[type[Event]],
) -> list[str]:
    """Return the faults of the steps as a whole."""
    return [
        *_check_handles(steps),
        *_check_routes(steps, starts, external),
        *_check_reachable(steps, starts, external),
        *_check_cycles(steps),
    ]


def check_classes(classes: Iterable[type[Event]]) -> list[str]:
    """Return the faults of event classes, each checked by itself."""
    return [
        f"event class {one.__name__} {fault}"
        for one in classes
        if (fault := event_class_fault(one))
    ]


def _check_handles(steps: Mapping[str, StepDefinition]) -> list[str]:
    faults = []
    for step in steps.values():
        if step.max_recoveries != 1 and StepFailedEvent not in step.accepts:
            faults.append(
                f"step {step.name!r} has max_recoveries=, but does not accept StepFailedEvent: set"
                " it on the step that handles the failures"
            )
        if step.handles is None:
            continue
        if StepFailedEvent not in step.accepts:
            faults.append(
                f"step {step.name!r} has handles=, but does not accept StepFailedEvent: accept it,"
                " or drop handles="
            )
        for name in step.handles:
            if name not in steps:
                faults.append(
                    f"step {step.name!r} handles failures of {name!r}, which is not a step of this"
                    f" workflow; the steps are {', '.join(map(repr, steps))}"
                )
            elif name == step.name:
                faults.append(
                    f"step {step.name!r} can't handle its own failures: let another step do it"
                )
            elif set(steps[name].accepts) == {StepFailedEvent}:
                faults.append(
                    f"step {step.name!r} handles failures of {name!r}, which itself handles"
                    " failures: when it fails, so does the run; drop it from handles="
                )
    return faults


def _check_routes(
    steps: Mapping[str, StepDefinition],
    starts: Sequence[type[Event]],
    external: Sequence[type[Event]],
) -> list[str]:
    """Find events that no step accepts, and accepted events that have no source."""
    faults = []
    accepted = _accepted(steps)
    for step in steps.values():
        faults += [
            f"step {step.name!r} returns {one.__name__}, which no step accepts: add a step that"
            " takes it"
            for one in dict.fromkeys(emitted_classes(step))
            if not issubclass(one, StopEvent | InputRequestEvent)
            and not any(may_be_routed(one, to) for to in accepted)
        ]
        for one in step.accepts:
            if issubclass(one, StopEvent):
                faults.append(
                    f"step {step.name!r} accepts {one.__name__}, but a StopEvent ends the run and"
                    " reaches no step"
                )
            elif not _has_source(one, steps, starts, external):
                faults.append(_no_source(step, one))
    return faults


def _has_source(
    accepted: type[Event],
    steps: Mapping[str, StepDefinition],
    starts: Sequence[type[Event]],
    external: Sequence[type[Event]],
) -> bool:
    if issubclass(accepted, _SELF_MADE) or _is_emitted(accepted, steps):
        return True
    return any(may_be_routed(one, accepted) for one in (*starts, *external))


def _no_source(step: StepDefinition, accepted: type[Event]) -> str:
    name = accepted.__name__
    cure = f"return it from a step, or name it in external=[{name}] if it is sent in from outside"
    if step.is_join:
        return (
            f"step {step.name!r} joins list[{name}], but no fan-out can feed it, because no step"
            f" returns {name}: {cure}"
        )
    return (
        f"step {step.name!r} accepts {name}, which no step returns and no run starts with: {cure}"
    )


def _followers(steps: Mapping[str, StepDefinition]) -> dict[str, list[str]]:
    """Return, for each step, the steps that its outputs may go to."""
    return {
        step.name: [
            to.name
            for to in steps.values()
            if any(
                may_be_routed(one, accepted)
                for one in emitted_classes(step)
                for accepted in to.accepts
            )
        ]
        for step in steps.values()
    }


def _reach(begin: Iterable[str], followers: Mapping[str, Sequence[str]]) -> set[str]:
    seen = set(begin)
    todo = list(seen)
    while todo:
        for name in followers[todo.pop()]:
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen


def _check_reachable(
    steps: Mapping[str, StepDefinition],
    starts: Sequence[type[Event]],
    external: Sequence[type[Event]],
) -> list[str]:
    """Find steps that feed only each other.

    An event without a source is reported separately, not once more for every step behind it.
    """
    begin = [
        step.name
        for step in steps.values()
        if any(
            issubclass(one, _SELF_MADE)
            or any(may_be_routed(source, one) for source in (*starts, *external))
            or not _is_emitted(one, steps)
            for one in step.accepts
        )
    ]
    reached = _reach(begin, _followers(steps))
    return [
        f"step {name!r} can't be reached from the events that a run starts with"
        f" ({', '.join(one.__name__ for one in starts)}): let a reachable step return an event that"
        " it accepts"
        for name in steps
        if name not in reached
    ]


def _may_end(step: StepDefinition) -> bool:
    """Return whether a run can leave a cycle at this step.

    The run may stop, wait for an answer from outside, or have no more work.
    """
    if step.returns_none or step.returns_list:
        return True
    return any(
        issubclass(one, StopEvent | InputRequestEvent) or issubclass(StopEvent, one)
        for one in emitted_classes(step)
    )


def _check_cycles(steps: Mapping[str, StepDefinition]) -> list[str]:
    """Find cycles that a run can't leave: no step that may end is reachable from them."""
    followers = _followers(steps)
    ahead = {name: _reach(to, followers) for name, to in followers.items()}
    faults = []
    told: set[str] = set()
    for name in steps:
        if name not in ahead[name] or name in told:
            continue
        cycle = [other for other in steps if other in ahead[name] and name in ahead[other]]
        told.update(cycle)
        if not any(_may_end(steps[other]) for other in ahead[name]):
            faults.append(
                f"the cycle of {', '.join(map(repr, cycle))} has no exit: let one of them, or a"
                " step after them, return a StopEvent"
            )
    return faults
