"""Fields of the classes whose values are stored field by field, and restoring of instances.

An instance is restored without its class's `__init__`. The stored values are the results of
`__init__`, converters and `__post_init__`; running these again would change the values, or fail. No
code of the class runs, not even validators, so everything that could be stored can be restored at
any time. The price is that an instance must consist of its fields. One that holds more is refused
when it is stored.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
import types
import typing
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from blazen_trio._codec.names import Misfit
from blazen_trio._codec.scalars import SCALARS
from blazen_trio._definitions.value_classes import (
    is_named_tuple,
    is_pydantic,
    is_struct,
    is_typed_dict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blazen_trio._definitions.events import Event

__all__ = [
    "FIXED",
    "HASH_CACHE",
    "UNSET_KEY",
    "check_whole",
    "field_types",
    "may_hold_more",
    "open_fields",
    "resolved",
]


UNSET_KEY = "$unset"
"""Key under which a pydantic model lists its unset fields, which have their defaults."""

HASH_CACHE = "_attrs_cached_hash"


def field_types(cls: Any) -> dict[str, Any]:
    """Return the types of a class's fields by name, with the arguments of a generic class."""
    origin = typing.get_origin(cls) or cls
    parameters = getattr(origin, "__parameters__", ())
    arguments = dict(zip(parameters, typing.get_args(cls), strict=False))
    if is_pydantic(origin):
        found = {name: field.annotation for name, field in origin.model_fields.items()}
    elif attrs.has(origin):
        hints = _hints(origin)
        found = {a.name: _hint(hints, a) for a in attrs.fields(origin)}
    else:
        hints = _hints(origin)
        found = {name: hints.get(name, Any) for name in _names(origin)}
    return {name: _filled(type_, arguments) for name, type_ in found.items()}


def _names(origin: Any) -> list[str]:
    if is_named_tuple(origin):
        return list(origin._fields)
    if is_struct(origin):
        return list(origin.__struct_fields__)
    if is_typed_dict(origin):
        return list(origin.__annotations__)
    # An event class without fields needs no decorator.
    return [f.name for f in dataclasses.fields(origin)] if dataclasses.is_dataclass(origin) else []


def _hints(cls: Any) -> dict[str, Any]:
    if is_typed_dict(cls) and any(map(_is_quoted, cls.__annotations__.values())):
        # A TypedDict keeps only the annotations of its bases, and those know their modules.
        refs = {name: anchored(one, cls.__module__) for name, one in cls.__annotations__.items()}
        return {
            name: resolved(one) if isinstance(one, typing.ForwardRef) else one
            for name, one in refs.items()
        }
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        types = [attribute.type for attribute in attrs.fields(cls)] if attrs.has(cls) else [""]
        if not any(map(_is_quoted, types)):
            return {}  # they were resolved where their names are visible (`attrs.resolve_types`)
        msg = (
            f"the annotations of {cls.__qualname__} can't be resolved ({error}): define or import "
            "their names at module level, not in a function or under TYPE_CHECKING"
        )
        raise Misfit(msg) from error
    for name, hint in hints.items():
        if _is_quoted(hint):
            # The type is recursive, and `get_type_hints` unrolled it once. The annotation in the
            # source has a single name.
            owner = next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
            hints[name] = anchored(inspect.get_annotations(owner)[name], owner.__module__)
    return hints


def _is_quoted(type_: Any) -> bool:
    """Return whether a type, or a part of it, is still quoted source text."""
    if isinstance(type_, str | typing.ForwardRef):
        return True
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Literal:
        return False
    return any(map(_is_quoted, arguments[:1] if origin is typing.Annotated else arguments))


def anchored(type_: Any, module: str) -> Any:
    """Return a type whose quoted parts know the module in which they are looked up."""
    if isinstance(type_, str):
        return typing.ForwardRef(type_, module=module)
    if isinstance(type_, typing.ForwardRef):
        return typing.ForwardRef(type_.__forward_arg__, module=type_.__forward_module__ or module)
    if not _is_quoted(type_):
        return type_
    origin = typing.get_origin(type_)
    if origin is typing.Annotated:
        return anchored(typing.get_args(type_)[0], module)
    arguments = tuple(anchored(argument, module) for argument in typing.get_args(type_))
    if hasattr(type_, "copy_with"):
        return type_.copy_with(arguments)
    if origin is types.UnionType:
        return typing.Union[arguments]  # noqa: UP007  # `arguments` is a tuple
    return origin[arguments]


def resolved(reference: typing.ForwardRef) -> Any:
    """Evaluate an anchored reference.

    Raises:
        Misfit: It uses a name that is not defined.
    """
    module = sys.modules.get(str(reference.__forward_module__))
    text = reference.__forward_arg__
    try:
        # The text is source code of the program, as in typing.get_type_hints. It is never data.
        found = eval(text, vars(module) if module else {})  # noqa: S307
    except NameError as error:
        msg = f"{text!r} in an annotation can't be resolved ({error}): define it at module level"
        raise Misfit(msg) from error
    return anchored(found, str(reference.__forward_module__))


def _hint(hints: dict[str, Any], attribute: attrs.Attribute[Any]) -> Any:
    if attribute.type is not None and not _is_quoted(attribute.type):
        return attribute.type
    return hints.get(attribute.name, Any)


def _filled(type_: Any, arguments: dict[Any, Any]) -> Any:
    """Return a field's type with the class's type variables replaced."""
    if isinstance(type_, typing.TypeVar):
        return arguments.get(type_, Any)
    parameters = getattr(type_, "__parameters__", ())
    if parameters and typing.get_origin(type_) is not None:
        return type_[tuple(arguments.get(parameter, Any) for parameter in parameters)]
    return type_


def may_hold_more(cls: Any) -> bool:
    """Return whether instances can have attributes that are not fields. Most classes can't."""
    if is_struct(cls) and hasattr(cls, "__post_init__"):
        return True
    return (
        bool(cls.__dictoffset__) or not {*_slots(cls)} - _computed(cls) <= field_types(cls).keys()
    )


def _slots(cls: Any) -> Iterator[str]:
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            yield f"_{base.__name__.lstrip('_')}{name}" if private else name


def check_whole(instance: Any, fields: Mapping[str, Any]) -> None:
    """Refuse an instance that has more attributes than its fields, or lacks a field.

    Raises:
        Misfit: A field has no value, or other attributes would be lost when it is restored.
    """
    cls: Any = type(instance)
    for name in fields:
        if not hasattr(instance, name):
            msg = f"it is a {cls.__name__} whose field {name} has no value"
            raise Misfit(msg)
    look = _look_of(cls)
    if look.fault is not None:
        raise Misfit(look.fault)
    held = getattr(instance, "__dict__", {})
    if look.is_pydantic or look.slots or not held.keys() <= fields.keys():
        _check_rest(instance, look, fields)


def _check_rest(instance: Any, look: _Look, fields: Mapping[str, Any]) -> None:
    held = list(getattr(instance, "__dict__", ()))
    if look.is_pydantic:
        held += [*(instance.__pydantic_extra__ or ()), *(instance.__pydantic_private__ or ())]
    held += [name for name in look.slots if hasattr(instance, name)]
    more = [str(name) for name in held if name not in fields and name not in look.computed]
    if more:
        msg = (
            f"this {type(instance).__name__} has attributes that are not fields "
            f"({', '.join(more)}) and would be lost: make them fields (init=False, say), or a "
            "functools.cached_property"
        )
        raise Misfit(msg)


class _Look(NamedTuple):
    """The places in which the instances of a class keep their attributes.

    Args:
        fault: The reason why no instance can be stored; `None` if they can.
        is_pydantic: Whether it is a pydantic class, which keeps attributes in places of its own.
        computed: The attributes that are computed again on access.
        slots: All other attributes that have a slot and are not fields.
    """

    fault: str | None
    is_pydantic: bool
    computed: set[str]
    slots: tuple[str, ...]


@lru_cache(maxsize=1024)
def _look_of(cls: Any) -> _Look:
    fault = None
    if is_struct(cls) and hasattr(cls, "__post_init__"):
        fault = (
            f"a struct with a __post_init__, such as {cls.__name__}, can't be restored as it was"
        )
    computed, pydantic = _computed(cls), is_pydantic(cls)
    known = computed | field_types(cls).keys()
    slots = () if pydantic else tuple(name for name in _slots(cls) if name not in known)
    return _Look(fault, pydantic, computed, slots)


def _computed(cls: Any) -> set[str]:
    """Return the names of attributes that are computed again on access."""
    found = {"__weakref__", "__dict__", "__orig_class__", HASH_CACHE}
    for base in cls.__mro__:
        found |= {name for name, one in vars(base).items() if isinstance(one, cached_property)}
        # A slotted attrs class has slots for cached properties. Their functions are in a default
        # argument of its `__getattr__`.
        for default in getattr(vars(base).get("__getattr__"), "__defaults__", None) or ():
            found |= set(default) if isinstance(default, dict) else set()
    return found


FIXED: Final = frozenset({*SCALARS, str, bool, type(None)})
"""Types whose instances are deeply immutable."""


def open_fields(cls: type[Event]) -> list[str]:
    """Return the fields of an event class whose types don't show that they are deeply immutable."""
    try:
        return [name for name, type_ in field_types(cls).items() if not _is_fixed(type_)]
    except Misfit:
        return list(getattr(cls, "__annotations__", {}))


def _is_fixed(type_: Any) -> bool:
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Annotated:
        return _is_fixed(arguments[0])
    if origin in (typing.Union, types.UnionType, tuple, frozenset):
        return all(one is Ellipsis or _is_fixed(one) for one in arguments)
    if origin is typing.Literal or type_ is None:
        return True
    if isinstance(type_, type) and issubclass(type_, enum.Enum):
        return True
    return origin is None and type_ in FIXED
