"""Unions and literals.

JSON's own scalars in a union stand for themselves, for they tell themselves apart. Every other arm is tagged with the
arm's name: `{"$union": ["Card", {...}]}`.
"""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Callable
from typing import Any

import orjson

from blazen_trio._codec import values
from blazen_trio._codec.names import Misfit, short

__all__ = ["literal_hooks", "union_hooks"]

Hook = Callable[[Any], Any]

_SCALAR = frozenset({str, int, float, bool, type(None)})


def _label(arm: Any) -> str:
    """The arm's name as it is stored: free of module paths, so that classes may move."""
    if typing.get_origin(arm) is typing.Literal:
        return "Literal"
    arguments = typing.get_args(arm)
    name: str = getattr(arm, "__name__", None) or str(arm)
    if not arguments:
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
    """Hooks of `A | B | ...` (without `Any`, and not `X | None`, which needs no tag)."""
    known = [_arm(arm, hooks_of(arm)) for arm in arms]
    by_label = {arm.label: arm for arm in known if not arm.plain}
    plain = [arm for arm in known if arm.plain]
    tagged = [arm for arm in known if not arm.plain]
    what = " | ".join(arm.label for arm in known)
    if len(by_label) != len(tagged):
        msg = f"the union {what} has two arms of one name"
        raise Misfit(msg)

    def unstructure(value: Any) -> Any:
        for arm in sorted(known, key=lambda arm: arm.cls is not type(value)):
            try:
                wire = arm.write(value)
            except Misfit as misfit:
                if arm.cls is type(value) and not arm.plain and misfit.path:
                    raise  # of its own class: what is wrong in it says more than that no arm takes it
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
        for arm in plain + tagged:
            with contextlib.suppress(Misfit):
                return arm.read(wire)
        raise _none_fits(what, wire)

    return unstructure, structure


def _none_fits(what: str, value: Any) -> Misfit:
    return Misfit(f"expected {what}, not {short(value)} (a {type(value).__name__})")


def literal_hooks(choices: tuple[Any, ...]) -> tuple[Hook, Hook]:
    """Hooks of `Literal[...]`: strings, integers, booleans, bytes, enum members, None."""
    wires = [values.to_wire(choice) for choice in choices]
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
