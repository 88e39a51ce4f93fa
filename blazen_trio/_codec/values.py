"""Plain values as self-describing JSON. A value is restored exactly as it was, or it is refused.

JSON's own types are stored as they are. Anything that JSON would change is an object with one key,
a tag that starts with "$" and names the type. A dict with such a key, or with keys that are not
strings, is itself tagged, so there is no clash. Classes are stored by class name, and found again
only in the workflow's registry. Subclasses of builtins are refused: storing them as the builtin
would change them silently.
"""

from __future__ import annotations

import enum
from collections import Counter
from math import isfinite
from typing import TYPE_CHECKING, Any

import orjson

from blazen_trio._codec.names import DynamicValue, Misfit, current, short
from blazen_trio._codec.scalars import (
    INT_MAX,
    INT_MIN,
    SCALARS,
    decode_scalar,
    float_wire,
    int_wire,
)
from blazen_trio._definitions.events import Event
from blazen_trio._definitions.value_classes import is_value_class

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["check_hashes", "check_plain", "classes", "encoded_order", "from_wire", "to_wire"]


class _Classes:
    """Functions of the converter that this module needs.

    The converter imports this module, and sets them.
    """

    write_fields: Callable[[Any], Any]
    read_fields: Callable[[type, Any], Any]
    write_event: Callable[[Event], Any]
    read_event: Callable[[Any], Event]


classes = _Classes()

_BUILTINS = (str, int, float, complex, bytes, bytearray, list, tuple, dict, set, frozenset)
_ATOMS = frozenset({str, bool, type(None)})


def to_wire(value: Any) -> Any:
    """Return the JSON form of a value. A container that is already plain is returned itself.

    Raises:
        Misfit: The value, or something in it, can't be stored faithfully.
    """
    encode = _ENCODERS.get(value.__class__)
    return encode(value) if encode is not None else _object_wire(value)


def _list_wire(value: list[Any]) -> Any:
    kinds = set(map(type, value))
    if kinds <= _ATOMS:
        return value
    if kinds == {int} and min(value) >= INT_MIN and max(value) <= INT_MAX:
        return value
    if kinds == {float} and all(map(isfinite, value)):
        return value
    return _items_wire(value)


def _items_wire(value: Any) -> list[Any]:
    out: list[Any] = []
    try:
        for item in value:
            out.append(to_wire(item))  # noqa: PERF401  # on failure the length is the item's index
    except Misfit as misfit:
        raise misfit.under(len(out)) from misfit.__cause__
    return out


def _dict_wire(value: dict[Any, Any]) -> Any:
    if set(map(type, value)) <= {str} and not any(key.startswith("$") for key in value):
        if set(map(type, value.values())) <= _ATOMS:
            return value
        out = {}
        key = None
        try:
            for key, item in value.items():
                out[key] = to_wire(item)
        except Misfit as misfit:
            raise misfit.at_key(key) from misfit.__cause__
        return out
    check_hashes(value)
    pairs = []
    for key, item in value.items():
        try:
            pairs.append([to_wire(key), to_wire(item)])
        except Misfit as misfit:
            raise misfit.at_key(key) from misfit.__cause__
    return {"$dict": pairs}


def encoded_order(wires: list[Any]) -> list[Any]:
    """Sort a set's encoded elements by their bytes, so that equal sets are stored identically."""
    return wires if len(wires) < 2 else sorted(wires, key=orjson.dumps)


_MOST_OF_ONE_HASH = 100
"""Largest number of members of a set, or keys of a dict, with the same hash. The time to build one
grows with the square of this number. Values that collide are easily made (integers, tuples of them,
decimals, UUIDs), so a small snapshot could otherwise block its reader for minutes."""


def check_hashes(items: Collection[Any]) -> None:
    """Refuse members of a set, or keys of a dict, if too many have the same hash.

    Raises:
        Misfit: More than 100 have the same hash.
        TypeError: One is not hashable.
    """
    if len(items) <= _MOST_OF_ONE_HASH:
        return
    [(_, most)] = Counter(map(hash, items)).most_common(1)
    if most > _MOST_OF_ONE_HASH:
        msg = (
            f"{most:,} of its {len(items):,} members have the same hash: at most"
            f" {_MOST_OF_ONE_HASH} may"
        )
        raise Misfit(msg)


def _set_wire(tag: str) -> Callable[[Any], Any]:
    def encode(value: Any) -> Any:
        check_hashes(value)
        return {tag: encoded_order(_items_wire(value))}

    return encode


def _tagged(tag: str, encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: {tag: encode(value)}


def _plain(value: Any) -> Any:
    return value


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    **{cls: _tagged(tag, encode) for cls, (tag, encode, _) in SCALARS.items()},
    str: _plain,
    bool: _plain,
    type(None): _plain,
    int: int_wire,
    float: float_wire,
    list: _list_wire,
    dict: _dict_wire,
    tuple: _tagged("$tuple", _items_wire),
    set: _set_wire("$set"),
    frozenset: _set_wire("$frozenset"),
}


def _object_wire(value: Any) -> Any:
    cls = value.__class__
    if isinstance(value, enum.Enum):
        check_known(cls)
        return {"$enum": [cls.__name__, enum_wire(value)]}
    if isinstance(value, Event):
        return {"$event": classes.write_event(value)}
    if cls is DynamicValue:
        check_plain(value.data)
        return {"$object" if type(value.data) is dict else "$enum": [value.type_name, value.data]}
    if is_value_class(cls):
        check_known(cls)
        return {"$object": [cls.__name__, classes.write_fields(value)]}
    raise Misfit(_refusal(value))


def _refusal(value: Any) -> str:
    cls = type(value)
    base = next((base for base in _BUILTINS if isinstance(value, base)), None)
    if base in (bytearray, complex) and cls is base:
        return f"a {cls.__name__} can't be stored" + (
            "; convert it with bytes(...)" if cls is bytearray else ""
        )
    if base is not None:
        return (
            f"{short(value)} is a {cls.__qualname__}, a subclass of {base.__name__}, which would "
            f"come back as a plain {base.__name__}; convert it with {base.__name__}(...) first"
        )
    return (
        f"a value of type {cls.__qualname__} can't be stored: use JSON types, attrs classes, "
        "dataclasses, enums, datetime, UUID, Decimal, bytes, tuples or sets"
    )


def check_known(cls: type) -> None:
    """Raise `Misfit` for a class that decoding would not find or would confuse with another."""
    names = current.names
    known = names.types.get(cls.__name__)
    if known is cls or (known is None and not names.strict):
        return
    if known is None:
        msg = (
            f"the workflow does not know the class {cls.__name__}, and could not load it again: "
            "add it to Workflow(types=[...])"
        )
    else:
        msg = (
            f"the workflow knows another class with the name {cls.__name__} "
            f"({known.__module__}): rename one of them"
        )
    raise Misfit(msg)


def enum_wire(member: enum.Enum) -> Any:
    """Return a member's name, or the value of a combination of flags, which may have no name.

    Raises:
        Misfit: The class does not declare the member (`_missing_` created it), so it could not be
            found again.
    """
    cls = type(member)
    name = member.name
    if cls.__members__.get(name) is member:
        return name
    if isinstance(member, enum.Flag) and type(member.value) is int:
        wire = int_wire(member.value)
        if cls(member.value) == member:
            return wire
    msg = f"{short(member)} is not a member that {cls.__name__} declares: store its value instead"
    raise Misfit(msg)


def enum_member(cls: type[enum.Enum], wire: Any) -> enum.Enum:
    """Return the member with that name or, for flags, that value."""
    if type(wire) is str and wire in cls.__members__:
        return cls.__members__[wire]
    if issubclass(cls, enum.Flag) and type(wire) in (int, dict):
        try:
            return cls(from_wire(wire))
        except (ValueError, TypeError) as error:
            raise Misfit(str(error)) from error
    msg = f"{cls.__name__} has no member {short(wire)}; it has {', '.join(cls.__members__)}"
    raise Misfit(msg)


def check_plain(data: Any) -> None:
    """Refuse data that is not JSON: a `DynamicEvent` or `DynamicValue` is stored unchanged."""
    kind = type(data)
    if kind is dict:
        for key, item in data.items():
            if type(key) is not str:
                msg = f"{short(key)} is not a JSON key"
                raise Misfit(msg)
            check_plain(item)
    elif kind is list:
        for item in data:
            check_plain(item)
    elif not (
        kind in _ATOMS
        or (kind is int and INT_MIN <= data <= INT_MAX)
        or (kind is float and isfinite(data))
    ):
        msg = f"{short(data)} is not a JSON value"
        raise Misfit(msg)


def from_wire(wire: Any) -> Any:
    """Return the value that `to_wire` encoded.

    Raises:
        Misfit: The wire form is invalid, or names a class that is not in a closed registry.
    """
    kind = wire.__class__
    if kind is list:
        return wire if set(map(type, wire)) <= _LEAVES else [from_wire(item) for item in wire]
    if kind is not dict:
        return wire
    if len(wire) == 1:
        [(key, content)] = wire.items()
        if key.startswith("$"):
            return _untag(key, content)
        return {key: from_wire(content)}
    if set(map(type, wire.values())) <= _LEAVES:
        return wire
    return {key: from_wire(item) for key, item in wire.items()}


_LEAVES = frozenset({str, bool, int, float, type(None)})


def _untag(tag: str, content: Any) -> Any:
    decode = _DECODERS.get(tag)
    if decode is None:
        msg = f"unknown kind of value: {short(tag)}"
        raise Misfit(msg)
    return decode(content)


def _items(content: Any) -> list[Any]:
    if type(content) is not list:
        msg = f"expected a list, not {short(content)}"
        raise Misfit(msg)
    return [from_wire(item) for item in content]


def _hashed(make: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
    def decode(content: Any) -> Any:
        items = _items(content)
        try:
            check_hashes(items)
            return make(items)
        except TypeError as error:
            raise Misfit(str(error)) from error

    return decode


def pairs_of(content: Any) -> list[tuple[Any, Any]]:
    """Return the pairs of a dict that is stored as a list of pairs."""
    if type(content) is not list or any(
        type(pair) is not list or len(pair) != 2 for pair in content
    ):
        msg = f"expected a list of pairs, not {short(content)}"
        raise Misfit(msg)
    return [(key, item) for key, item in content]


def _decode_dict(content: Any) -> dict[Any, Any]:
    pairs = [(from_wire(key), from_wire(item)) for key, item in pairs_of(content)]
    try:
        check_hashes([key for key, _ in pairs])
        return dict(pairs)
    except TypeError as error:
        raise Misfit(str(error)) from error


def named(content: Any) -> tuple[str, Any]:
    """Return the name and the data under `$object` or `$enum`."""
    if type(content) is not list or len(content) != 2 or type(content[0]) is not str:
        msg = f"expected [name, data], not {short(content)}"
        raise Misfit(msg)
    return content[0], content[1]


def _decode_object(content: Any) -> Any:
    name, data = named(content)
    cls = current.names.types.get(name)
    if cls is None:
        if current.names.closed:
            msg = (
                f"the workflow does not know the class {name}: pass type={name} to get, or add it "
                "to Workflow(types=[...])"
            )
            raise Misfit(msg)
        return DynamicValue(name, data)
    if issubclass(cls, enum.Enum):
        return enum_member(cls, data)
    return classes.read_fields(cls, data)


def _decode_event(content: Any) -> Event:
    return classes.read_event(content)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "$tuple": lambda content: tuple(_items(content)),
    "$set": _hashed(set),
    "$frozenset": _hashed(frozenset),
    "$dict": _decode_dict,
    "$object": _decode_object,
    "$enum": _decode_object,
    "$event": _decode_event,
}


def _scalar_decoder(cls: type) -> Callable[[Any], Any]:
    return lambda content: decode_scalar(cls, content)


_DECODERS.update({tag: _scalar_decoder(cls) for cls, (tag, _, _) in SCALARS.items()})
