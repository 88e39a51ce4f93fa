"""Encoding of unions and literals.

A member of a union that is a JSON scalar is stored as it is, because JSON distinguishes scalars.
Every other member is tagged with its name: `{"$union": ["Card", {...}]}`.
"""

from __future__ import annotations

import contextlib
import enum
import threading
import types
import typing
from collections.abc import Callable
from typing import Any

import orjson

from blazen_trio._codec import values
from blazen_trio._codec.containers import ARRAYS, DICTS
from blazen_trio._codec.names import Misfit, short
from blazen_trio._codec.scalars import SCALARS

__all__ = ["literal_hooks", "union_hooks"]

Hook = Callable[[Any], Any]

_SCALAR = frozenset({str, int, float, bool, type(None)})
_LISTS = frozenset({list, tuple, set, frozenset})
_MOST_GUESSES = 3
"""Nesting depth up to which an untagged value may match several members. Each level doubles the
work, so without this limit a few bytes of nested lists could take for ever."""


class _Guessing(threading.local):
    depth = 0


_guessing = _Guessing()


def _label(arm: Any) -> str:
    """Return the name under which a member is stored.

    It contains no module paths, so classes can be moved. It is the same in every Python version.
    """
    origin = typing.get_origin(arm)
    if origin is typing.Literal:
        return "Literal"
    arguments = typing.get_args(arm)
    if origin is typing.Union or origin is types.UnionType:
        return " | ".join(map(_label, arguments))
    if isinstance(arm, typing.ForwardRef):
        return arm.__forward_arg__
    name: str = getattr(arm, "__name__", None) or str(arm)
    if not arguments or origin is typing.Annotated:
        return name
    return f"{name}[{', '.join('...' if a is Ellipsis else _label(a) for a in arguments)}]"


class _Arm(typing.NamedTuple):
    label: str
    cls: Any
    plain: bool
    write: Hook
    read: Hook


def _arm(arm: Any, hooks: tuple[Hook, Hook]) -> _Arm:
    literal = typing.get_origin(arm) is typing.Literal
    plain = arm in _SCALAR or (
        literal and {type(value) for value in typing.get_args(arm)} <= _SCALAR
    )
    return _Arm(_label(arm), typing.get_origin(arm) or arm, plain, *hooks)


def union_hooks(
    arms: tuple[Any, ...], hooks_of: Callable[[Any], tuple[Hook, Hook]]
) -> tuple[Hook, Hook]:
    """Return the hooks of `A | B | ...` without `Any`, except `X | None`, which needs no tag."""
    known = [_arm(arm, hooks_of(arm)) for arm in arms]
    by_label = {arm.label: arm for arm in known if not arm.plain}
    plain = [arm for arm in known if arm.plain]
    tagged = [arm for arm in known if not arm.plain]
    what = " | ".join(arm.label for arm in known)
    if len(by_label) != len(tagged):
        msg = f"the union {what} has two members of the same name: rename one of the classes"
        raise Misfit(msg)

    def unstructure(value: Any) -> Any:
        cls = type(value)
        own = [arm for arm in known if arm.cls is cls]
        for arm in own + [arm for arm in known if arm.cls is not cls]:
            try:
                wire = arm.write(value)
            except Misfit as misfit:
                if own == [arm] and not arm.plain and misfit.path:
                    # This is the only member of the value's class, so its own error says more than
                    # that no member fits. Several members (`list[int] | list[str]`) are all tried.
                    raise
            else:
                return wire if arm.plain else {"$union": [arm.label, wire]}
        raise _none_fits(what, value)

    def structure(wire: Any) -> Any:
        if type(wire) is dict and len(wire) == 1 and "$union" in wire:
            label, content = values.named(wire["$union"])
            if label not in by_label:
                msg = f"expected {what}, not {short(label)}"
                raise Misfit(msg)
            return by_label[label].read(content)
        return _guess(plain + [arm for arm in tagged if _may_take(arm, wire)], what, wire)

    return unstructure, structure


def _may_take(arm: _Arm, wire: Any) -> bool:
    """Return whether a member may fit an untagged value, judging by its outermost form.

    A person, or an earlier version of the class, wrote it without tags.
    """
    if type(wire) is list:
        # Instants with a zone or a fold, and timedeltas, are also stored as lists.
        return arm.cls in ARRAYS or arm.cls is tuple or arm.cls in SCALARS
    if type(wire) is dict:
        return True
    return arm.cls not in ARRAYS and arm.cls is not tuple and arm.cls not in DICTS


def _guess(arms: list[_Arm], what: str, wire: Any) -> Any:
    """Decode an untagged value with the first member that fits."""
    if len(arms) == 1:
        return arms[0].read(wire)
    if _guessing.depth >= _MOST_GUESSES:
        msg = f"expected {what}, but this may be several of them: write {{'$union': [name, value]}}"
        raise Misfit(msg)
    _guessing.depth += 1
    try:
        for arm in arms:
            with contextlib.suppress(Misfit):
                return arm.read(wire)
    finally:
        _guessing.depth -= 1
    raise _none_fits(what, wire)


def _none_fits(what: str, value: Any) -> Misfit:
    return Misfit(f"expected {what}, not {short(value)} (a {type(value).__name__})")


def literal_hooks(choices: tuple[Any, ...]) -> tuple[Hook, Hook]:
    """Return the hooks of `Literal[...]`, of str, int, bool, bytes, enum members and None."""
    wires = [_choice_wire(choice) for choice in choices]
    by_value = {(type(choice), choice): wire for choice, wire in zip(choices, wires, strict=True)}
    by_wire = {orjson.dumps(wire): choice for choice, wire in zip(choices, wires, strict=True)}
    what = " or ".join(map(repr, choices))

    def unstructure(value: Any) -> Any:
        try:
            return by_value[type(value), value]
        except (KeyError, TypeError):
            msg = f"expected {what}, not {short(value)}"
            raise Misfit(msg) from None

    def structure(wire: Any) -> Any:
        try:
            return by_wire[orjson.dumps(wire)]
        except (KeyError, TypeError):
            msg = f"expected {what}, not {short(wire)}"
            raise Misfit(msg) from None

    return unstructure, structure


def _choice_wire(choice: Any) -> Any:
    if isinstance(choice, enum.Enum):
        # The annotation names the class, so the workflow's registry need not know it.
        return {"$enum": [type(choice).__name__, values.enum_wire(choice)]}
    return values.to_wire(choice)
