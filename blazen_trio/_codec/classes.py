"""Attrs classes, dataclasses and events, field by field, strict in both directions."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import attrs

from blazen_trio._codec import values
from blazen_trio._codec.names import Misfit, current, short
from blazen_trio._codec.scalars import INT_MAX, INT_MIN
from blazen_trio._definitions.events import DynamicEvent, Event

__all__ = [
    "event_hooks",
    "event_wire",
    "fields_reader",
    "fields_writer",
    "load_event",
    "value_class_hooks",
]

Hook = Callable[[Any], Any]
HookOf = Callable[[Any], Hook]


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    alias: str
    type: Any
    init: bool
    converted: bool
    """Whether the class's own converter makes the value from what `__init__` is given."""


def _fields(cls: Any) -> list[_Field]:
    """The fields of a class, or of a generic class with its arguments, with their types resolved."""
    origin = typing.get_origin(cls) or cls
    arguments = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(cls), strict=False))
    hints = _hints(origin)
    if attrs.has(origin):
        return [
            _Field(
                a.name,
                a.alias or a.name,
                _filled(_hint(hints, a), arguments),
                a.init,
                a.converter is not None,
            )
            for a in attrs.fields(origin)
        ]
    # An event class that is declared without fields needs no decorator.
    fields = dataclasses.fields(origin) if dataclasses.is_dataclass(origin) else ()
    return [
        _Field(f.name, f.name, _filled(hints[f.name], arguments), f.init, False) for f in fields
    ]


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        if attrs.has(cls) and not any(
            isinstance(attribute.type, str) for attribute in attrs.fields(cls)
        ):
            return {}  # Whoever could see their names (`attrs.resolve_types`) has resolved them already.
        msg = (
            f"the annotations of {cls.__qualname__} can't be resolved ({error}): import and define what they name "
            "at module level, not in a function or under TYPE_CHECKING"
        )
        raise Misfit(msg) from error


def _hint(hints: dict[str, Any], attribute: attrs.Attribute[Any]) -> Any:
    if attribute.type is not None and not isinstance(attribute.type, str):
        return attribute.type
    return hints.get(attribute.name, Any)


def _filled(type_: Any, arguments: dict[Any, Any]) -> Any:
    """A field's type with the class's type variables replaced."""
    if isinstance(type_, typing.TypeVar):
        return arguments.get(type_, Any)
    parameters = getattr(type_, "__parameters__", ())
    if parameters and typing.get_origin(type_) is not None:
        return type_[tuple(arguments.get(parameter, Any) for parameter in parameters)]
    return type_


def _named(name: str, hook: Hook) -> Hook:
    def named(value: Any) -> Any:
        try:
            return hook(value)
        except Misfit as misfit:
            raise misfit.under(name) from misfit.__cause__

    return named


_INLINE: dict[Any, str] = {
    str: "v if type(v := o.{0}) is str else h{1}(v)",
    bool: "v if type(v := o.{0}) is bool else h{1}(v)",
    int: "v if type(v := o.{0}) is int and least <= v <= most else h{1}(v)",
}


def fields_writer(cls: Any, hook_of: HookOf) -> Hook:
    """A function from an instance to the dict of its fields' wire forms.

    It is generated, as attrs and cattrs do it: events are encoded on the engine's hot path, and a field of the
    commonest types then costs no call.
    """
    namespace: dict[str, Any] = {"least": INT_MIN, "most": INT_MAX}
    entries = []
    for index, field in enumerate(_fields(cls)):
        namespace[f"h{index}"] = _named(field.name, hook_of(field.type))
        value = _INLINE.get(field.type, "h{1}(o.{0})").format(field.name, index)
        entries.append(f"{field.name!r}: ({value})")
    source = "def write(o):\n    return {" + ", ".join(entries) + "}\n"
    exec(source, namespace)  # noqa: S102  # of field names of the user's own class, which are identifiers
    return typing.cast("Hook", namespace["write"])


def fields_reader(cls: Any, hook_of: HookOf) -> Hook:
    """A function from the dict of all fields' wire forms to an instance."""
    origin = typing.get_origin(cls) or cls
    fields = _fields(cls)
    hooks = {field.name: _named(field.name, hook_of(field.type)) for field in fields}
    forced = [field.name for field in fields if field.converted or not field.init]

    def read(data: Any) -> Any:
        if type(data) is not dict:
            msg = f"the fields of {origin.__name__} are expected, not {short(data)}"
            raise Misfit(msg)
        if data.keys() != hooks.keys():
            raise _wrong_fields(origin, data, hooks)
        found = {name: hook(data[name]) for name, hook in hooks.items()}
        try:
            instance = origin(**{field.alias: found[field.name] for field in fields if field.init})
        except Exception as error:  # noqa: BLE001  # whatever a user's validator raises
            return _checked(origin, fields, found, error)
        for name in forced:
            # What was stored is what the converter, or __attrs_post_init__, made: not to be made again from itself.
            object.__setattr__(instance, name, found[name])
        return instance

    return read


def _wrong_fields(cls: type, data: dict[str, Any], hooks: dict[str, Hook]) -> Misfit:
    faults = []
    if missing := [name for name in hooks if name not in data]:
        faults.append(f"missing: {', '.join(missing)}")
    if unknown := [short(name) for name in data if name not in hooks]:
        faults.append(f"unknown: {', '.join(unknown)}")
    hint = (
        "; where the class has changed, raise schema_version and write upcast"
        if issubclass(cls, Event)
        else ""
    )
    return Misfit(f"the stored fields are not those of {cls.__name__} ({'; '.join(faults)}){hint}")


def _checked(cls: Any, fields: list[_Field], found: dict[str, Any], error: Exception) -> Any:
    """`__init__` refused: name the field whose validator did.

    Where no validator did and there are converters, it was a converter that does not take what it once made
    (`str.split`): the instance is right as it was stored.
    """
    instance = cls.__new__(cls)
    for name, value in found.items():
        object.__setattr__(instance, name, value)
    for attribute in attrs.fields(cls) if attrs.has(cls) else ():
        if attribute.validator is not None:
            try:
                attribute.validator(instance, attribute, found[attribute.name])
            except Exception as refusal:  # see above
                msg = f"refused by {cls.__name__}: {refusal}"
                raise Misfit(msg, attribute.name) from refusal
    if any(field.converted for field in fields):
        return instance
    msg = f"{cls.__name__} refused its stored fields: {error}"
    raise Misfit(msg) from error


def value_class_hooks(
    cls: Any, writer: Callable[[], Hook], reader: Callable[[], Hook]
) -> tuple[Hook, Hook]:
    """The hooks of a field declared with an attrs class or dataclass: an instance of a subclass is tagged, never sliced."""
    origin = typing.get_origin(cls) or cls

    def unstructure(value: Any) -> Any:
        if type(value) is origin:
            return writer()(value)
        if isinstance(value, origin):
            return values.to_wire(value)
        msg = f"expected {origin.__name__}, not {short(value)}"
        raise Misfit(msg)

    def structure(wire: Any) -> Any:
        if type(wire) is not dict or len(wire) != 1 or "$object" not in wire:
            return reader()(wire)
        name, data = values.named(wire["$object"])
        if name == origin.__name__:
            return reader()(data)
        known = current.names.types.get(name)
        if known is None or not issubclass(known, origin):
            msg = f"expected {origin.__name__} or a subclass that the workflow knows, not {short(name)}"
            raise Misfit(msg)
        return values.classes.read_fields(known, data)

    return unstructure, structure


def event_wire(event: Event) -> list[Any]:
    """`[event_type, fields]`, with the `schema_version` as a third where it is not 1."""
    cls = type(event)
    if cls is DynamicEvent:
        check_dynamic(event)  # type: ignore[arg-type]
        fields = event.data  # type: ignore[attr-defined]
    else:
        known = current.names.events.get(cls.event_type, cls)
        if known is not cls and current.names.strict:
            msg = f"the workflow knows another class, {known.__qualname__}, under its event_type: set an event_type of its own"
            raise Misfit(msg)
        fields = values.classes.write_fields(event)
    version = event.schema_version
    return [event.event_type, fields] if version == 1 else [event.event_type, fields, version]


def check_dynamic(event: DynamicEvent) -> None:
    """Refuse a handmade `DynamicEvent` that is not made of JSON."""
    if (
        type(event.event_type) is not str
        or type(event.data) is not dict
        or type(event.schema_version) is not int
    ):
        msg = "a DynamicEvent has a string as event_type, a dict of JSON values as data and an integer as schema_version"
        raise Misfit(msg)
    values.check_plain(event.data)


def load_event(wire: Any, expected: type[Event] | None = None) -> Event:
    """The event of a wire form; a `DynamicEvent` where the class is not known.

    Raises:
        Misfit: It is rubbish, of a newer `schema_version`, or its fields are not those of its class.
    """
    if (
        type(wire) is not list
        or len(wire) not in (2, 3)
        or type(wire[0]) is not str
        or type(wire[1]) is not dict
    ):
        msg = f"[event type, fields] is expected, not {short(wire)}"
        raise Misfit(msg)
    event_type, data = wire[0], wire[1]
    version = wire[2] if len(wire) == 3 else 1
    if type(version) is not int:
        msg = f"a schema_version is a number, not {short(version)}"
        raise Misfit(msg)
    declared = expected is not None and expected is not Event and expected.event_type == event_type
    cls = expected if declared else current.names.events.get(event_type)
    if cls is None:
        return DynamicEvent(event_type, data, version)
    if version > cls.schema_version:
        msg = (
            f"{event_type} was stored with schema_version {version}, and this program's class has "
            f"{cls.schema_version}: it was written by a newer program"
        )
        raise Misfit(msg)
    if version < cls.schema_version:
        data = _upcast(cls, data, version)
    return typing.cast("Event", values.classes.read_fields(cls, data))


def _upcast(cls: type[Event], data: dict[str, Any], version: int) -> dict[str, Any]:
    names = current.names
    try:
        return cls.upcast(dict(data), version)
    except Exception as error:  # a user's code
        msg = f"{cls.__name__}.upcast failed on data of schema_version {version}: {type(error).__name__}: {error}"
        raise Misfit(msg) from error
    finally:
        current.names = names


def event_hooks(cls: type[Event]) -> tuple[Hook, Hook]:
    """The hooks of a field declared with an event class: always tagged, for events have schema versions."""

    def unstructure(value: Any) -> Any:
        if not isinstance(value, cls):
            msg = f"expected {cls.__name__}, not {short(value)}"
            raise Misfit(msg)
        return {"$event": event_wire(value)}

    def structure(wire: Any) -> Any:
        if type(wire) is not dict or wire.keys() != {"$event"}:
            msg = f"expected a {cls.__name__}, not {short(wire)}"
            raise Misfit(msg)
        event = load_event(wire["$event"], cls)
        if not isinstance(event, cls):
            msg = f"expected {cls.__name__}, not {event.event_type}"
            raise Misfit(msg)
        return event

    return unstructure, structure
