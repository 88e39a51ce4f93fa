"""Registries of the types that a workflow knows: events by `event_type`, values by class name.

Stored data is read back through these tables only. A name in data is never imported.
"""

from __future__ import annotations

import enum
import sys
import typing
from typing import TYPE_CHECKING, Any, Final

from blazen_trio._definitions.events import (
    Event,
    InputRequestEvent,
    InputResponseEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from blazen_trio._definitions.names import is_storable
from blazen_trio._definitions.scope import Scope
from blazen_trio._definitions.value_classes import annotations_of, is_stored_by_name, is_typed_dict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["BUILT_IN", "event_registry", "value_registry"]

BUILT_IN: Final = (StartEvent, StopEvent, InputRequestEvent, InputResponseEvent, StepFailedEvent)


def event_registry(declared: Iterable[type[Event]], faults: list[str]) -> dict[str, type[Event]]:
    """Return the declared event classes and their present subclasses, by `event_type`.

    A step that emits a class may return its subclasses, so stored ones have to be found again. A
    declared class takes precedence over an undeclared subclass with the same `event_type`. If two
    undeclared classes share an `event_type`, neither is known: declare one with `types=`.

    Args:
        declared: The classes that the workflow mentions.
        faults: The list to which one sentence per clash is added.
    """
    found: dict[str, type[Event]] = {}
    classes: tuple[type[Event], ...] = (*BUILT_IN, *declared)
    for event_class in classes:
        if not is_storable(event_class.event_type):
            faults.append(
                f"event_type {event_class.event_type!r} of {_full_name(event_class)} contains NUL"
                " or lone surrogates, which not every database can store: use another name"
            )
        other = found.setdefault(event_class.event_type, event_class)
        if other is not event_class:
            faults.append(
                f"event_type {event_class.event_type!r} is that of two classes,"
                f" {_full_name(other)} and {_full_name(event_class)}: set"
                " `event_type: ClassVar[str] = ...` on one of them"
            )
    undeclared: dict[str, list[type[Event]]] = {}
    for event_class in _subclasses(tuple(found.values())):
        name: object = event_class.event_type
        if isinstance(name, str) and name not in found:
            undeclared.setdefault(event_class.event_type, []).append(event_class)
    for event_type, rivals in undeclared.items():
        # attrs replaces a slotted class by a new one. The original stays among the subclasses until
        # it is garbage-collected; it lacks `__attrs_attrs__`.
        candidates = [one for one in rivals if "__attrs_attrs__" in vars(one)] or rivals
        if len(candidates) == 1:
            found[event_type] = candidates[0]
    return found


def _full_name(some_class: type) -> str:
    return f"{some_class.__module__}.{some_class.__qualname__}"


def _subclasses(classes: tuple[type[Event], ...]) -> Iterator[type[Event]]:
    # The subclasses of `Event` are all events of the program, including those of other workflows.
    todo = [one for one in classes if one is not Event]
    seen = set(todo)
    while todo:
        for event_class in todo.pop().__subclasses__():
            if event_class not in seen:
                seen.add(event_class)
                todo.append(event_class)
                yield event_class


def value_registry(
    given: Iterable[type], events: Iterable[type[Event]], faults: list[str]
) -> dict[str, type]:
    """Return the attrs classes, dataclasses and enums that values may have, by class name.

    These are the classes in `types=`, those in the annotations of the events' fields, and those in
    the annotations of their fields in turn. If two classes found in annotations share a name,
    neither is known by it (a field annotated with one of them can still be read back).

    Args:
        given: The value types in `types=`.
        events: All known events.
        faults: The list to which one sentence per clash among `given` is added.
    """
    found: dict[str, type] = {}
    for value_type in given:
        other = found.setdefault(value_type.__name__, value_type)
        if other is not value_type:
            faults.append(
                f"types= contains two classes {value_type.__name__!r}, {_full_name(other)} and"
                f" {_full_name(value_type)}: values are stored under the class's name, so rename"
                " one"
            )
    fixed = set(found)
    ambiguous: set[str] = set()
    seen: set[type] = set()
    todo: list[type] = [*found.values(), *events]
    while todo:
        owner = todo.pop()
        if owner in seen:
            continue
        seen.add(owner)
        name = owner.__name__
        stored = not issubclass(owner, Event) and not is_typed_dict(owner)
        if stored and name not in fixed and found.setdefault(name, owner) is not owner:
            ambiguous.add(name)
        todo.extend(_field_types(owner))
    return {name: value_type for name, value_type in found.items() if name not in ambiguous}


def _field_types(owner: type) -> Iterator[type]:
    """Yield the value types that the fields of a class are annotated with."""
    module: Mapping[str, Any] = vars(sys.modules.get(owner.__module__, typing))
    scope = Scope(owner.__qualname__, module)
    names: set[str] = set()
    for annotation in annotations_of(owner):
        yield from _value_types_in(annotation, scope, names)


def _value_types_in(annotation: Any, scope: Scope, names: set[Any]) -> Iterator[type]:
    """Yield the value types in an annotation.

    `names` holds the quoted names and aliases already visited, because they may be recursive.
    """
    if isinstance(annotation, str | typing.ForwardRef):
        text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
        if text in names:
            return
        names.add(text)
        try:
            annotation = scope.resolve(text)
        except Exception:  # noqa: BLE001  # unreadable for now; the codec raises if it needs it
            return
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        yield from {type(one) for one in typing.get_args(annotation) if isinstance(one, enum.Enum)}
        return
    if isinstance(annotation, typing.NewType):
        yield from _value_types_in(annotation.__supertype__, scope, names)
    elif hasattr(annotation, "__value__") and type(annotation).__name__ == "TypeAliasType":
        if annotation not in names:
            names.add(annotation)
            yield from _value_types_in(annotation.__value__, scope, names)
    elif origin is None:
        if is_typed_dict(annotation) or (
            is_stored_by_name(annotation) and not issubclass(annotation, Event)
        ):
            yield annotation
        return
    if is_stored_by_name(origin):
        yield origin
    for argument in typing.get_args(annotation):
        yield from _value_types_in(argument, scope, names)
