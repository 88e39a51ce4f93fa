"""The events that a step accepts and returns, read from its function's annotations."""

from __future__ import annotations

import inspect
import types
import typing
from typing import TYPE_CHECKING, Any, Final

import attrs

from blazen_trio._definitions.events import Delayed, Event
from blazen_trio._definitions.scope import Scope, UnknownNameError, strings_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "Accepts",
    "Emits",
    "Shape",
    "function_scope",
    "read_accepts",
    "read_emits",
    "read_shape",
]

_UNIONS: Final = (typing.Union, types.UnionType)
_UNRESOLVED: Final = object()


@attrs.define
class Accepts:
    """The event classes that a step's event parameter accepts."""

    classes: list[type[Event]] = attrs.field(factory=list)
    is_join: bool = False


@attrs.define
class Emits:
    """The event classes that a step may return or send."""

    plain: list[type[Event]] = attrs.field(factory=list)
    """Classes returned or sent one by one: alone, in a tuple, or delayed."""
    listed: list[type[Event]] = attrs.field(factory=list)
    returns_list: bool = False
    returns_tuple: bool = False
    returns_none: bool = False


@attrs.frozen
class Shape:
    """The parameters of a step's function, and the events that it declares."""

    event: inspect.Parameter
    context: inspect.Parameter | None
    parameters: tuple[inspect.Parameter, ...]
    accepts: Accepts
    emits: Emits


def function_scope(function: Callable[..., Any]) -> Scope:
    """Return the scope of a function's annotations. Names that exist by now are captured."""
    target = _target(function)
    cells = dict(zip(target.__code__.co_freevars, target.__closure__ or (), strict=True))
    scope = Scope(target.__qualname__, target.__globals__, cells)
    scope.capture(
        text for annotation in _annotations(target).values() for text in strings_in(annotation)
    )
    return scope


def _target(function: Callable[..., Any]) -> Any:
    """Return the function that has the annotations, without `wraps` wrappers and binding."""
    target = inspect.unwrap(function)
    target = getattr(target, "__func__", target)
    # `functools.wraps` may have wrapped something that is not a function.
    return target if inspect.isfunction(target) else getattr(function, "__func__", function)


def _annotations(target: Any) -> dict[str, Any]:
    try:
        return dict(target.__annotations__)
    except NameError:  # Python 3.14 evaluates annotations here; a class may be defined later
        return {}


def _show(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation)


def _is_event_class(candidate: Any) -> bool:
    return (
        isinstance(candidate, type)
        and not typing.get_args(candidate)
        and issubclass(candidate, Event)
    )


def _add(classes: list[type[Event]], event_class: type[Event]) -> None:
    if event_class not in classes:
        classes.append(event_class)


class _Reader:
    """Reader of one step's annotations. It adds one sentence to `faults` per fault."""

    def __init__(self, step: str, scope: Scope, faults: list[str]) -> None:
        self.step = step
        self.scope = scope
        self.faults = faults

    def resolved(self, annotation: Any, where: str) -> Any:
        """Strip quotes, aliases and `Annotated` from an annotation.

        If it can't be resolved, add a fault and return `_UNRESOLVED`.
        """
        while True:
            if isinstance(annotation, str | typing.ForwardRef):
                text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
                try:
                    annotation = self.scope.resolve(text)
                except UnknownNameError as exc:
                    self.faults.append(
                        f"step {self.step!r}: {where} is annotated {text!r}, but {exc.name!r} is"
                        " not defined: define or import it where the step is defined (an import"
                        " under `if TYPE_CHECKING:` does not exist at run time), or declare the"
                        " events with @step(accepts=..., emits=...)"
                    )
                    return _UNRESOLVED
                except Exception as exc:  # noqa: BLE001  # any error of the expression is a fault
                    self.faults.append(
                        f"step {self.step!r}: {where} is annotated {text!r}, which fails: {exc!r}"
                    )
                    return _UNRESOLVED
            elif typing.get_origin(annotation) is typing.Annotated:
                annotation = typing.get_args(annotation)[0]
            elif hasattr(annotation, "__value__") and type(annotation).__name__ == "TypeAliasType":
                annotation = annotation.__value__
            elif _is_event_class(origin := typing.get_origin(annotation)):
                annotation = origin  # routing ignores the parameters of a generic event
            else:
                return annotation

    def members(self, annotation: Any, where: str) -> Iterator[Any]:
        """Yield the members of a union, flat and resolved. A single type is its only member."""
        annotation = self.resolved(annotation, where)
        if annotation is _UNRESOLVED:
            return
        if typing.get_origin(annotation) in _UNIONS:
            for member in typing.get_args(annotation):
                yield from self.members(member, where)
        else:
            yield annotation

    def accepts(self, annotations: Sequence[Any], where: str) -> Accepts:
        found = Accepts()
        plain = False
        for annotation in annotations:
            for member in self.members(annotation, where):
                if typing.get_origin(member) is list:
                    found.is_join = True
                    for element in self.members(typing.get_args(member)[0], where):
                        self.accept(found, element, member, where)
                elif member not in (None, type(None)):
                    plain = True
                    self.accept(found, member, member, where)
        if plain and found.is_join:
            self.faults.append(
                f"step {self.step!r}: {where} takes both single events and a list of them: a step"
                " takes events either one by one or, as a join, as list[...]; make it two steps"
            )
        return found

    def accept(self, found: Accepts, member: Any, shown: Any, where: str) -> None:
        if _is_event_class(member):
            _add(found.classes, member)
        else:
            self.faults.append(
                f"step {self.step!r}: {where} is annotated {_show(shown)}, but a step takes an"
                " Event subclass, a union of them, or list[...] of them to join a"
                f" fan-out{self.hint(member)}"
            )

    def emits(self, annotations: Sequence[Any], where: str) -> Emits:
        found = Emits()
        for annotation in annotations:
            for member in self.members(annotation, where):
                origin = typing.get_origin(member)
                if member in (None, type(None)):
                    found.returns_none = True
                elif origin is list:
                    found.returns_list = True
                    self.elements(found.listed, typing.get_args(member), member, where)
                elif origin is tuple:
                    found.returns_tuple = True
                    elements = [one for one in typing.get_args(member) if one is not Ellipsis]
                    self.elements(found.plain, elements, member, where)
                else:
                    self.elements(found.plain, (member,), member, where)
        return found

    def elements(
        self, classes: list[type[Event]], annotations: Sequence[Any], shown: Any, where: str
    ) -> None:
        for annotation in annotations:
            for member in self.members(annotation, where):
                if typing.get_origin(member) is Delayed:
                    self.elements(classes, typing.get_args(member), shown, where)
                elif _is_event_class(member):
                    _add(classes, member)
                else:
                    self.faults.append(
                        f"step {self.step!r}: {where} is {_show(shown)}, but a step returns Event"
                        " subclasses, Delayed[...] of them, a list[...] or tuple[...] of those,"
                        f" unions of all these, or None{self.hint(member)}"
                    )

    def hint(self, member: Any) -> str:
        if member in (list, tuple, Delayed):
            return f"; add the element type: {_show(member)}[SomeEvent]"
        if typing.get_origin(member) is list:
            return "; lists can't be nested: return one list, whose members may fan out again"
        if isinstance(member, type) and member is not Any and not typing.get_args(member):
            return f"; make {member.__name__} an @attrs.frozen subclass of Event, or wrap it in one"
        return ""


def read_accepts(step: str, scope: Scope, annotations: Sequence[Any], faults: list[str]) -> Accepts:
    """Read the classes given as `@step(accepts=...)`."""
    return _Reader(step, scope, faults).accepts(annotations, "accepts=")


def read_emits(step: str, scope: Scope, annotations: Sequence[Any], faults: list[str]) -> Emits:
    """Read the classes given as `@step(emits=...)`."""
    return _Reader(step, scope, faults).emits(annotations, "emits=")


def _is_context(annotation: Any) -> bool:
    owner = typing.get_origin(annotation) or annotation
    return isinstance(owner, type) and bool(getattr(owner, "__step_context__", False))


def read_shape(
    step: str,
    function: Callable[..., Any],
    scope: Scope,
    accepts: Accepts | None,
    emits: Emits | None,
    faults: list[str],
) -> Shape | None:
    """Read the shape of a step's function, bound or not.

    Returns `None`, with faults added, if the function can't be a step.

    Args:
        step: The step's name.
        function: The function, as it will be called.
        scope: The scope of the function's annotations.
        accepts: The classes of `@step(accepts=...)`, which replace the parameter's annotation.
        emits: The classes of `@step(emits=...)`, which replace the return annotation.
        faults: The list to which one sentence per fault is added.
    """
    reader = _Reader(step, scope, faults)
    before = len(faults)
    try:
        target = _target(function)
        annotations = dict(target.__annotations__)
        parameters = tuple(inspect.signature(function).parameters.values())
    except NameError as exc:
        faults.append(
            f"step {step!r}: an annotation uses {exc.name!r}, which is not defined: define it or"
            " import it before the workflow is built"
        )
        return None
    context, events = _sort(reader, parameters, annotations, by_hand=accepts is not None)
    if len(faults) > before:
        return None
    if len(events) != 1:
        faults.append(_count_fault(step, events, parameters))
        return None
    event = events[0]
    if accepts is None:
        accepts = reader.accepts((annotations.get(event.name),), f"parameter {event.name!r}")
    if not accepts.classes and len(faults) == before:
        faults.append(f"step {step!r}: it accepts no event: a step takes an Event subclass")
    if emits is None:
        if "return" in annotations:
            emits = reader.emits((annotations["return"],), "its return annotation")
        else:
            faults.append(
                f"step {step!r}: it has no return annotation: declare the events that it returns"
                " (-> None for none), or use @step(emits=...)"
            )
            emits = Emits(returns_none=True)
    return Shape(event, context, parameters, accepts, emits)


def _sort(
    reader: _Reader,
    parameters: tuple[inspect.Parameter, ...],
    annotations: dict[str, Any],
    *,
    by_hand: bool,
) -> tuple[inspect.Parameter | None, list[inspect.Parameter]]:
    """Find the parameter for the context and those for an event.

    Any other parameter must have a default, which the engine leaves alone.
    """
    context: inspect.Parameter | None = None
    events = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        if _takes_context(reader, parameter, annotations):
            if context is not None:
                reader.faults.append(
                    f"step {reader.step!r}: both {context.name!r} and {parameter.name!r} take the"
                    " context: keep one"
                )
            context = parameter
        elif by_hand:
            if required:
                events.append(parameter)
        elif required and parameter.name not in annotations:
            reader.faults.append(
                f"step {reader.step!r}: parameter {parameter.name!r} has no annotation: annotate it"
                " with the event that the step takes, or call it `ctx` if it is the context"
                + _self_hint(parameter)
            )
        elif required or _names_event(reader, parameter, annotations):
            events.append(parameter)
    return context, events


def _self_hint(parameter: inspect.Parameter) -> str:
    if parameter.name not in ("self", "cls"):
        return ""
    return (
        "; a method has to be bound: give Workflow the method of an instance, as in [service.fetch]"
    )


def _takes_context(
    reader: _Reader, parameter: inspect.Parameter, annotations: dict[str, Any]
) -> bool:
    if parameter.name not in annotations:
        return parameter.name == "ctx"
    quiet = _Reader(reader.step, reader.scope, [])
    found = list(quiet.members(annotations[parameter.name], parameter.name))
    if quiet.faults:
        # `ctx: Context`, with an import under `if TYPE_CHECKING:`, as linters demand.
        return parameter.name == "ctx"
    return any(_is_context(member) for member in found)


def _names_event(
    reader: _Reader, parameter: inspect.Parameter, annotations: dict[str, Any]
) -> bool:
    """Check whether a parameter that has a default takes the event nevertheless."""
    if parameter.name not in annotations:
        return False
    quiet = _Reader(reader.step, reader.scope, [])
    return bool(quiet.accepts((annotations[parameter.name],), parameter.name).classes)


def _count_fault(
    step: str, events: list[inspect.Parameter], parameters: tuple[inspect.Parameter, ...]
) -> str:
    if events:
        names = ", ".join(repr(parameter.name) for parameter in events)
        return (
            f"step {step!r}: {names} would each have to take an event, but a step takes exactly"
            " one: use a union (A | B) for several types, list[...] for a join, and a default for"
            " any other parameter"
        )
    names = ", ".join(parameter.name for parameter in parameters)
    return (
        f"step {step!r}: no parameter takes an event (found: {names or 'none'}); a step takes"
        " exactly one, as in (ev: Tick)"
    )
