"""Encoding of attrs classes, dataclasses and events by field, strict in both directions."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from typing import Any

from blazen_trio._codec import values
from blazen_trio._codec.names import Misfit, current, short
from blazen_trio._codec.scalars import INT_MAX, INT_MIN
from blazen_trio._codec.shapes import HASH_CACHE, UNSET_KEY, check_whole, field_types, may_hold_more
from blazen_trio._definitions.events import DynamicEvent, Event
from blazen_trio._definitions.value_classes import is_named_tuple, is_pydantic, is_struct

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
    """Return a function from an instance to the dict of its fields' wire forms.

    The function is generated as source code, as in attrs and cattrs, because events are encoded on
    the engine's hot path. A field of one of the most common types then needs no call.
    """
    origin = typing.get_origin(cls) or cls
    types = field_types(cls)
    namespace: dict[str, Any] = {
        "least": INT_MIN,
        "most": INT_MAX,
        "check": lambda instance: check_whole(instance, types),
    }
    entries = []
    for index, (name, type_) in enumerate(types.items()):
        namespace[f"h{index}"] = _named(name, hook_of(type_))
        value = _INLINE.get(type_, "h{1}(o.{0})").format(name, index)
        entries.append(f"{name!r}: ({value})")
    fields = "{" + ", ".join(entries) + "}"
    first = "check(o)" if may_hold_more(origin) else "pass"
    source = (
        f"def write(o):\n    {first}\n    try:\n        return {fields}\n"
        "    except AttributeError:\n        check(o)\n        raise\n"
    )
    exec(source, namespace)  # noqa: S102  # only field names of a class vary, all identifiers
    write = typing.cast("Hook", namespace["write"])
    return _with_unset(write, frozenset(types)) if is_pydantic(origin) else write


def _with_unset(write: Hook, fields: frozenset[str]) -> Hook:
    """Extend `write` for a pydantic model by the names of the fields left at their defaults."""

    def write_model(model: Any) -> Any:
        wire = write(model)
        unset = fields - model.__pydantic_fields_set__
        return {**wire, UNSET_KEY: sorted(unset)} if unset else wire

    return write_model


def _maker(cls: Any) -> Callable[[dict[str, Any]], Any]:
    """Return a function from the values of all fields to an instance."""
    if is_named_tuple(cls):
        return lambda found: tuple.__new__(cls, found.values())
    if is_struct(cls):
        # This is C code that only sets the fields. A struct with a `__post_init__` is not stored.
        return lambda found: cls(**found)
    if is_pydantic(cls):
        return partial(_make_model, cls)
    if issubclass(cls, BaseException):
        return partial(_make_exception, cls)
    put = object.__setattr__
    new: Callable[[type], Any] = cls.__new__
    # A class with `cache_hash=True` has its cached hash in an attribute that has to exist.
    code = getattr(cls.__hash__, "__code__", None)
    caches_hash = HASH_CACHE in getattr(code, "co_names", ())

    def make(found: dict[str, Any]) -> Any:
        instance = new(cls)
        for name, value in found.items():
            put(instance, name, value)
        if caches_hash:
            put(instance, HASH_CACHE, None)
        return instance

    return make


def _make_exception(cls: Any, found: dict[str, Any]) -> Any:
    instance = cls.__new__(cls, *found.values())  # also sets `args`
    for name, value in found.items():
        object.__setattr__(instance, name, value)
    return instance


def _make_model(cls: Any, found: dict[str, Any]) -> Any:
    unset = found.pop(UNSET_KEY, ())
    instance = cls.__new__(cls)
    for name, value in (
        ("__dict__", found),
        ("__pydantic_fields_set__", found.keys() - set(unset)),
        ("__pydantic_extra__", {} if cls.model_config.get("extra") == "allow" else None),
        ("__pydantic_private__", None),
    ):
        object.__setattr__(instance, name, value)
    return instance


def fields_reader(cls: Any, hook_of: HookOf) -> Hook:
    """Return a function from the dict of all fields' wire forms to an instance."""
    origin = typing.get_origin(cls) or cls
    hooks = {name: _named(name, hook_of(type_)) for name, type_ in field_types(cls).items()}
    make = _maker(origin)
    model = is_pydantic(origin)

    def read(data: Any) -> Any:
        if type(data) is not dict:
            msg = f"expected the fields of {origin.__name__}, not {short(data)}"
            raise Misfit(msg)
        if model and UNSET_KEY in data:
            unset = data[UNSET_KEY]
            data = {name: item for name, item in data.items() if name != UNSET_KEY}
            if type(unset) is not list or not all(type(name) is str for name in unset):
                msg = f"expected names of fields, not {short(unset)}"
                raise Misfit(msg, UNSET_KEY)
        else:
            unset = None
        if data.keys() != hooks.keys():
            raise _wrong_fields(origin, data, hooks)
        found = {name: hook(data[name]) for name, hook in hooks.items()}
        if unset:
            found[UNSET_KEY] = unset
        return make(found)

    return read


def _wrong_fields(cls: type, data: dict[str, Any], hooks: dict[str, Hook]) -> Misfit:
    faults = []
    if missing := [name for name in hooks if name not in data]:
        faults.append(f"missing: {', '.join(missing)}")
    if unknown := [short(name) for name in data if name not in hooks]:
        faults.append(f"unknown: {', '.join(unknown)}")
    hint = (
        "; if the class has changed, raise schema_version and define upcast"
        if issubclass(cls, Event)
        else ""
    )
    return Misfit(f"the stored fields are not those of {cls.__name__} ({'; '.join(faults)}){hint}")


def value_class_hooks(
    cls: Any, writer: Callable[[], Hook], reader: Callable[[], Hook]
) -> tuple[Hook, Hook]:
    """Return the hooks of a field declared with an attrs class or dataclass.

    An instance of a subclass is stored with its class's name, so its extra fields are not lost.
    """
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
            msg = (
                f"expected {origin.__name__} or a subclass that the workflow knows, not"
                f" {short(name)}"
            )
            raise Misfit(msg)
        return values.classes.read_fields(known, data)

    return unstructure, structure


def event_wire(event: Event) -> list[Any]:
    """Return `[event_type, fields]`, with the `schema_version` as third item if it is not 1."""
    cls = type(event)
    if cls is DynamicEvent:
        check_dynamic(event)  # type: ignore[arg-type]
        fields = event.data  # type: ignore[attr-defined]
    else:
        if current.names.strict:
            _check_event_class(cls)
        fields = values.classes.write_fields(event)
    version = event.schema_version
    return [event.event_type, fields] if version == 1 else [event.event_type, fields, version]


def _check_event_class(cls: type[Event]) -> None:
    """Raise `Misfit` for a class that decoding would not find or would confuse with another."""
    known = current.names.events.get(cls.event_type)
    if known is cls:
        return
    if known is None:
        msg = (
            f"the workflow does not know the event class {cls.__qualname__} and could not load it "
            "again: it was defined after the workflow, or shares its event_type with another "
            "class; add it to Workflow(types=[...])"
        )
    else:
        msg = (
            f"the workflow knows another class, {known.__qualname__} of {known.__module__}, under "
            f"the event_type {cls.event_type!r}: give one of them another event_type or, if the "
            "class was defined again, build the workflow again"
        )
    raise Misfit(msg)


def check_dynamic(event: DynamicEvent) -> None:
    """Raise `Misfit` for a `DynamicEvent` that a user made of something other than JSON values."""
    if (
        type(event.event_type) is not str
        or type(event.data) is not dict
        or type(event.schema_version) is not int
    ):
        msg = (
            "a DynamicEvent has a string as event_type, a dict of JSON values as data and an"
            " integer as schema_version"
        )
        raise Misfit(msg)
    values.check_plain(event.data)


def load_event(wire: Any, expected: type[Event] | None = None) -> Event:
    """Return the event of a wire form, or a `DynamicEvent` if its class is not known.

    Raises:
        Misfit: The wire form is invalid or of a newer `schema_version`, or the fields are not those
            of the class.
    """
    if (
        type(wire) is not list
        or len(wire) not in (2, 3)
        or type(wire[0]) is not str
        or type(wire[1]) is not dict
    ):
        msg = f"expected [event type, fields], not {short(wire)}"
        raise Misfit(msg)
    event_type, data = wire[0], wire[1]
    version = wire[2] if len(wire) == 3 else 1
    if type(version) is not int:
        msg = f"expected an integer as schema_version, not {short(version)}"
        raise Misfit(msg)
    declared = expected is not None and expected is not Event and expected.event_type == event_type
    cls = expected if declared else current.names.events.get(event_type)
    if cls is None:
        return DynamicEvent(event_type, data, version)
    if version > cls.schema_version:
        msg = (
            f"{event_type} was stored with schema_version {version}, but this program's class has "
            f"{cls.schema_version}: it was written by a newer program"
        )
        raise Misfit(msg, newer=True)
    if version < cls.schema_version:
        data = _upcast(cls, data, version)
    return typing.cast("Event", values.classes.read_fields(cls, data))


def _upcast(cls: type[Event], data: dict[str, Any], version: int) -> dict[str, Any]:
    names = current.names
    try:
        return cls.upcast(dict(data), version)
    except Exception as error:  # a user's code
        msg = (
            f"{cls.__name__}.upcast failed on data of schema_version {version}:"
            f" {type(error).__name__}: {error}"
        )
        raise Misfit(msg) from error
    finally:
        current.names = names


def event_hooks(cls: type[Event]) -> tuple[Hook, Hook]:
    """Return the hooks of a field declared with an event class.

    The event is always tagged, because it has a schema version.
    """

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
