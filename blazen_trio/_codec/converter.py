"""The cattrs converter, with the hooks of every type that a field may be declared with.

It is built once, at import, and shared by all workflows, so the hooks of a class are made once. The
names that a workflow knows differ between workflows; hooks look them up in `names.current`.

Hooks are strict both ways: encoding checks that a value matches its declared type, so that a wrong
value is an error where it is created, and not when the run is resumed.

cattrs gives the registry: each type's hooks are made once, from those of its parts, by the one
factory registered below. Its own hooks for classes and containers (`make_dict_structure_fn` and the
like) are made for data from outside, and are not used, because stored data needs the opposite:

- They unstructure by the value's class without comparing it with the declared type.
- They coerce when structuring: a field of type `int` takes "3". Here it must come back as it was.
- They call `__init__`, with its converters and validators. Here, what could be stored must always
  be readable again, also by a version whose validators have become stricter.
"""

from __future__ import annotations

import enum
import inspect
import numbers
import threading
import types
import typing
from collections import abc
from collections.abc import Callable
from typing import Any

from cattrs.preconf.orjson import make_converter

from blazen_trio._codec import fields, values
from blazen_trio._codec.containers import (
    ARRAYS,
    DICTS,
    array_hooks,
    dict_hooks,
    expected,
    tuple_hooks,
    typed_dict_hooks,
    untagged,
)
from blazen_trio._codec.names import Misfit
from blazen_trio._codec.scalars import SCALARS, decode_scalar
from blazen_trio._codec.shapes import field_types, resolved
from blazen_trio._codec.unions import literal_hooks, union_hooks
from blazen_trio._definitions.events import Event
from blazen_trio._definitions.value_classes import is_typed_dict, is_value_class

__all__ = [
    "bare",
    "converter",
    "fields_writer",
    "is_open",
    "structure_hook",
    "unstructure_hook",
]

Hook = Callable[[Any], Any]
Hooks = tuple[Hook, Hook]

converter = make_converter(forbid_extra_keys=True, detailed_validation=False)

_NONE = type(None)
_NUMBERS = (numbers.Number, numbers.Complex, numbers.Real, numbers.Rational, numbers.Integral)
_NEVER_STORED = frozenset(
    {
        *(abc.Callable, abc.Iterator, abc.Generator, abc.Awaitable, abc.Coroutine),
        *(abc.AsyncIterable, abc.AsyncIterator, abc.AsyncGenerator, abc.ByteString),
        *(abc.MappingView, abc.KeysView, abc.ItemsView, abc.ValuesView),
    }
)
"""Abstract classes that no storable builtin value is an instance of."""
_EXACT = frozenset({*SCALARS, str, bool, _NONE})


def unstructure_hook(type_: Any) -> Hook:
    """Return the function that converts values of a declared type to wire forms.

    It raises `Misfit` for a value of another type.
    """
    return _hooks_of(type_)[0]


def structure_hook(type_: Any) -> Hook:
    """Return the function that converts plain or self-describing wire forms to a declared type."""
    return _hooks_of(type_)[1]


class _Making(threading.local):
    """The types whose hooks this thread is making. One that is met again is recursive."""

    def __init__(self) -> None:
        self.types: set[Any] = set()


_making = _Making()
_own: dict[type, Hooks] = {}
"""The hooks of all classes except our scalars. They bypass those of cattrs, which treats a StrEnum
as a str, and anything with a path in it as a Path."""


def _hooks_of(type_: Any) -> Hooks:
    type_ = bare(type_)
    if type_ in _making.types:
        # The hooks of a recursive type are looked up on use. They have been made by then.
        return _later(type_, 0), _later(type_, 1)
    plain = isinstance(type_, type) and not typing.get_args(type_)
    if plain and type_ in _own:
        return _own[type_]
    _making.types.add(type_)
    try:
        if plain and type_ not in _EXACT:
            _own[type_] = hooks = _make_hooks(type_)
            return hooks
        structure = converter.get_structure_hook(type_)
        return converter.get_unstructure_hook(type_), lambda wire: structure(wire, type_)
    finally:
        _making.types.discard(type_)


def _later(type_: Any, which: int) -> Hook:
    def hook(value: Any) -> Any:
        return _hooks_of(type_)[which](value)

    return hook


_WRAPPERS = (typing.Annotated, typing.Final, typing.Required, typing.NotRequired)


def bare(type_: Any) -> Any:
    """Strip wrappers that don't affect a type's values: Annotated, NewType, Final, aliases."""
    while True:
        origin = typing.get_origin(type_)
        if origin in _WRAPPERS or getattr(origin, "_name", None) == "ReadOnly":
            type_ = typing.get_args(type_)[0]
        elif isinstance(type_, typing.NewType):
            type_ = type_.__supertype__
        elif isinstance(type_, typing.ForwardRef):
            type_ = resolved(type_)
        elif hasattr(type_, "__value__") and origin is None:
            type_ = type_.__value__
        elif origin is not None and hasattr(origin, "__value__"):
            type_ = origin.__value__[typing.get_args(type_)]
        elif type_ is typing.LiteralString:
            return str
        else:
            return _NONE if type_ is None else type_


def is_open(kind: Any) -> bool:
    """Return whether this is a protocol or abstract class, whose instances have other classes.

    Such instances are stored under the names of their own classes.
    """
    if not isinstance(kind, type) or kind in _NEVER_STORED:
        return False
    return getattr(kind, "_is_protocol", False) or inspect.isabstract(kind) or kind in _NUMBERS


def _make_hooks(type_: Any) -> Hooks:
    """Make the hooks of any type that is not a scalar."""
    origin = typing.get_origin(type_)
    arguments = typing.get_args(type_)
    kind = origin or type_
    if type_ is Any or type_ is object or isinstance(type_, typing.TypeVar):
        return values.to_wire, values.from_wire
    if origin is typing.Union or origin is types.UnionType:
        return _union_hooks(tuple(bare(arm) for arm in arguments))
    if origin is typing.Literal:
        return literal_hooks(arguments)
    if kind is tuple:
        return _tuple_hooks(arguments, bare=origin is None)
    if kind in ARRAYS:
        element = bare(arguments[0]) if arguments else Any
        return array_hooks(
            ARRAYS[kind], *_hooks_of(element), element if element in (str, bool) else None
        )
    if kind in DICTS:
        key, item = arguments or (Any, Any)
        return dict_hooks(_hooks_of(key), _hooks_of(item))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum_hooks(kind)
    if is_typed_dict(kind):
        return _typed_dict_hooks(type_)
    if isinstance(kind, type) and issubclass(kind, Event):
        return fields.event_hooks(kind)
    if is_value_class(kind):
        # The field hooks are looked up on use, because a class may contain itself.
        return fields.value_class_hooks(
            type_, lambda: fields_writer(type_), lambda: fields_reader(type_)
        )
    if is_open(kind):
        return _open_hooks(kind)
    return _refusing(type_)


def _open_hooks(kind: type) -> Hooks:
    """Return the hooks of a class whose instances have other classes, with their own names."""
    if getattr(kind, "_is_protocol", False):  # few protocols support isinstance()
        return values.to_wire, values.from_wire

    def instance(value: Any) -> Any:
        if not isinstance(value, kind):
            raise expected(kind.__name__, value)
        return value

    return (
        lambda value: values.to_wire(instance(value)),
        lambda wire: instance(values.from_wire(wire)),
    )


def _refusing(type_: Any) -> Hooks:
    def refuse(value: Any) -> Any:
        del value
        msg = (
            f"fields of type {getattr(type_, '__name__', type_)} can't be stored: use JSON types, "
            "attrs classes, dataclasses, named tuples, pydantic models, msgspec structs, enums, "
            "datetime, UUID, Decimal, bytes, list, tuple, set, dict, TypedDict, or Any"
        )
        raise Misfit(msg)

    return refuse, refuse


def _typed_dict_hooks(type_: Any) -> Hooks:
    kind = typing.get_origin(type_) or type_
    types = field_types(type_)
    hooks = {key: _hooks_of(item) for key, item in types.items()}
    # With postponed annotations, `__required_keys__` does not reflect Required and NotRequired.
    said = {key: typing.get_origin(item) for key, item in types.items()}
    required = {key for key in kind.__required_keys__ if said[key] is not typing.NotRequired}
    required |= {key for key in types if said[key] is typing.Required}
    writes = {key: write for key, (write, _) in hooks.items()}
    reads = {key: read for key, (_, read) in hooks.items()}
    return typed_dict_hooks(kind.__name__, writes, reads, required)


def _tuple_hooks(arguments: tuple[Any, ...], *, bare: bool) -> Hooks:
    if bare or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return array_hooks((tuple,), *_hooks_of(Any if bare else arguments[0]), None)
    hooks = [_hooks_of(argument) for argument in arguments]
    return tuple_hooks([write for write, _ in hooks], [read for _, read in hooks])


def _union_hooks(arms: tuple[Any, ...]) -> Hooks:
    if Any in arms or object in arms or any(isinstance(arm, typing.TypeVar) for arm in arms):
        return values.to_wire, values.from_wire
    if len(arms) == 2 and _NONE in arms:
        write, read = _hooks_of(arms[0] if arms[1] is _NONE else arms[1])
        return (
            lambda value: None if value is None else write(value),
            lambda wire: None if wire is None else read(wire),
        )
    return union_hooks(arms, _hooks_of)


def _enum_hooks(cls: type[enum.Enum]) -> Hooks:
    def unstructure(value: Any) -> Any:
        if type(value) is not cls:
            raise expected(cls.__name__, value)
        return values.enum_wire(value)

    def structure(wire: Any) -> Any:
        content = untagged(wire, "$enum")
        if content is wire:
            return values.enum_member(cls, wire)
        name, member = values.named(content)
        if name != cls.__name__:
            raise expected(cls.__name__, wire)
        return values.enum_member(cls, member)

    return unstructure, structure


def _scalar_hooks(cls: type) -> Hooks:
    tag, encode, _ = SCALARS[cls]
    native = cls is int or cls is float

    def unstructure(value: Any) -> Any:
        if type(value) is cls:
            return encode(value)
        if cls is float and type(value) is int:
            return SCALARS[int][1](value)
        raise expected(cls.__name__, value)

    def structure(wire: Any) -> Any:
        if native and (type(wire) is cls or (cls is float and type(wire) is int)):
            return wire
        content = untagged(wire, tag)
        if content is not wire:
            return decode_scalar(cls, content)
        if cls is float and type(wire) is dict and wire.keys() == {"$int"}:
            return decode_scalar(int, wire["$int"])
        if native:
            raise expected(cls.__name__, wire)
        return decode_scalar(cls, wire)

    return unstructure, structure


def _exact_hooks(cls: type) -> Hooks:
    name = "None" if cls is _NONE else cls.__name__

    def same(value: Any) -> Any:
        if type(value) is not cls:
            raise expected(name, value)
        return value

    return same, same


def _register() -> None:
    def two(structure: Hook) -> Callable[[Any, Any], Any]:
        return lambda wire, _type: structure(wire)

    converter.register_unstructure_hook_factory(
        lambda _type: True, lambda type_: _make_hooks(type_)[0]
    )
    converter.register_structure_hook_factory(
        lambda _type: True, lambda type_: two(_make_hooks(type_)[1])
    )
    for cls in (*SCALARS, str, bool, _NONE):
        unstructure, structure = _scalar_hooks(cls) if cls in SCALARS else _exact_hooks(cls)
        converter.register_unstructure_hook(cls, unstructure)
        converter.register_structure_hook(cls, two(structure))


_writers: dict[Any, Hook] = {}
_readers: dict[Any, Hook] = {}


def fields_writer(cls: Any) -> Hook:
    """Return the writer of a class's fields, made on first use: a class may contain itself."""
    writer = _writers.get(cls)
    if writer is None:
        writer = _writers[cls] = fields.fields_writer(cls, unstructure_hook)
    return writer


def fields_reader(cls: Any) -> Hook:
    """Return the reader of a class's fields, made on first use."""
    reader = _readers.get(cls)
    if reader is None:
        reader = _readers[cls] = fields.fields_reader(cls, structure_hook)
    return reader


_register()
values.classes.write_fields = lambda value: fields_writer(type(value))(value)
values.classes.read_fields = lambda cls, data: fields_reader(cls)(data)
values.classes.write_event = fields.event_wire
values.classes.read_event = fields.load_event
