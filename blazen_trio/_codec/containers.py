"""Encoding of lists, tuples, sets and dicts of declared element types."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Mapping, Set
from typing import Any

from blazen_trio._codec import values
from blazen_trio._codec.names import Misfit, short

__all__ = [
    "ARRAYS",
    "DICTS",
    "array_hooks",
    "dict_hooks",
    "expected",
    "tuple_hooks",
    "typed_dict_hooks",
    "untagged",
]

Hook = Callable[[Any], Any]

ARRAYS: dict[Any, tuple[type, ...]] = {
    list: (list,),
    set: (set,),
    frozenset: (frozenset,),
    abc.Sequence: (list, tuple),
    abc.MutableSequence: (list,),
    abc.Set: (set, frozenset),
    abc.MutableSet: (set,),
    abc.Collection: (list, tuple, set, frozenset),
    abc.Iterable: (list, tuple, set, frozenset),
}
"""The types of the values that each declared type accepts. The first is stored as a plain list, the
others with a tag."""

DICTS: frozenset[Any] = frozenset({dict, abc.Mapping, abc.MutableMapping})

_TAGS: dict[type, str] = {list: "$list", tuple: "$tuple", set: "$set", frozenset: "$frozenset"}


def each(hook: Hook, items: Any) -> list[Any]:
    """Apply the hook to each item. A `Misfit` gets the index of its item."""
    out: list[Any] = []
    try:
        for item in items:
            out.append(hook(item))  # noqa: PERF401  # on failure the length is the item's index
    except Misfit as misfit:
        raise misfit.under(len(out)) from misfit.__cause__
    return out


def expected(what: str, value: Any) -> Misfit:
    """Return the `Misfit` for a value of another type than expected."""
    return Misfit(f"expected {what}, not {short(value)} (a {type(value).__name__})")


def untagged(wire: Any, tag: str) -> Any:
    """Return the content under the tag of a self-describing value, or the wire form itself."""
    return wire[tag] if type(wire) is dict and len(wire) == 1 and tag in wire else wire


def array_hooks(
    kinds: tuple[type, ...], write: Hook, read: Hook, atom: type | None
) -> tuple[Hook, Hook]:
    """Return the hooks of a list, set or similar.

    `atom` is the element type if a list of only that type needs no conversion of its items.
    """
    what = " or ".join(kind.__name__ for kind in kinds)

    def unstructure(value: Any) -> Any:
        kind = type(value)
        if kind not in kinds:
            raise expected(what, value)
        if kind is list and atom is not None and set(map(type, value)) <= {atom}:
            return value
        wires = each(write, value)
        if kind is set or kind is frozenset:
            values.check_hashes(value)
            wires = values.encoded_order(wires)
        return wires if kind is kinds[0] else {_TAGS[kind]: wires}

    def structure(wire: Any) -> Any:
        if type(wire) is list:
            kind = kinds[0]
        else:
            kind = next(
                (k for k in kinds if type(wire) is dict and wire.keys() == {_TAGS[k]}), kinds[0]
            )
            wire = untagged(wire, _TAGS[kind])
        if type(wire) is not list:
            raise expected(what, wire)
        items = each(read, wire)
        try:
            if kind is set or kind is frozenset:
                values.check_hashes(items)
            return items if kind is list else kind(items)
        except TypeError as error:  # an item is not hashable
            raise Misfit(str(error)) from error

    return unstructure, structure


def tuple_hooks(writes: list[Hook], reads: list[Hook]) -> tuple[Hook, Hook]:
    """Return the hooks of a tuple of declared length, in which each place has its own type."""

    def place(hooks: list[Hook], items: Any) -> list[Any]:
        if len(items) != len(hooks):
            raise expected(f"a tuple of {len(hooks)}", items)
        turn = iter(hooks)
        return each(lambda item: next(turn)(item), items)  # noqa: PLW0108  # one hook per item

    def unstructure(value: Any) -> Any:
        if type(value) is not tuple:
            raise expected("tuple", value)
        return place(writes, value)

    def structure(wire: Any) -> Any:
        wire = untagged(wire, "$tuple")
        if type(wire) is not list:
            raise expected("tuple", wire)
        return tuple(place(reads, wire))

    return unstructure, structure


def dict_hooks(key_hooks: tuple[Hook, Hook], value_hooks: tuple[Hook, Hook]) -> tuple[Hook, Hook]:
    """Return the hooks of a dict.

    It is stored as an object if all keys are strings that don't start with "$", else as a tagged
    list of pairs.
    """
    write_key, read_key = key_hooks
    write, read = value_hooks

    def pair(key: Any, item: Any, on_key: Hook, on_item: Hook) -> tuple[Any, Any]:
        try:
            return on_key(key), on_item(item)
        except Misfit as misfit:
            raise misfit.at_key(key) from misfit.__cause__

    def unstructure(value: Any) -> Any:
        if type(value) is not dict:
            raise expected("dict", value)
        pairs = [pair(key, item, write_key, write) for key, item in value.items()]
        if all(type(key) is str and not key.startswith("$") for key, _ in pairs) and set(
            map(type, value)
        ) <= {str}:
            return dict(pairs)
        values.check_hashes(value)
        return {"$dict": [list(both) for both in pairs]}

    def structure(wire: Any) -> Any:
        if type(wire) is not dict:
            raise expected("dict", wire)
        tagged = len(wire) == 1 and "$dict" in wire
        pairs = values.pairs_of(wire["$dict"]) if tagged else wire.items()
        made = [pair(key, item, read_key, read) for key, item in pairs]
        try:
            if tagged:
                values.check_hashes([key for key, _ in made])
            return dict(made)
        except TypeError as error:
            raise Misfit(str(error)) from error

    return unstructure, structure


def typed_dict_hooks(
    name: str, writes: Mapping[str, Hook], reads: Mapping[str, Hook], required: Set[str]
) -> tuple[Hook, Hook]:
    """Return the hooks of a `TypedDict`, which is stored as a dict after its keys are checked."""

    def check(value: dict[Any, Any]) -> None:
        if missing := [key for key in required if key not in value]:
            msg = f"the key {short(missing[0])} of {name} is missing"
            raise Misfit(msg)
        if unknown := [key for key in value if key not in writes]:
            msg = f"{short(unknown[0])} is not a key of {name}"
            raise Misfit(msg)

    def each_of(hooks: Mapping[str, Hook], value: Any) -> dict[str, Any]:
        check(value)
        out = {}
        key = None
        try:
            for key, item in value.items():
                out[key] = hooks[key](item)
        except Misfit as misfit:
            raise misfit.at_key(key) from misfit.__cause__
        return out

    def unstructure(value: Any) -> Any:
        if type(value) is not dict:
            raise expected(f"dict ({name})", value)
        wires = each_of(writes, value)
        if any(key.startswith("$") for key in wires):
            return {"$dict": [list(pair) for pair in wires.items()]}
        return wires

    def structure(wire: Any) -> Any:
        if type(wire) is not dict:
            raise expected(f"dict ({name})", wire)
        if len(wire) == 1 and "$dict" in wire:
            wire = {values.from_wire(key): item for key, item in values.pairs_of(wire["$dict"])}
        return each_of(reads, wire)

    return unstructure, structure
