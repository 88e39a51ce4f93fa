"""Which events may be given to several attempts: those in which nothing can be changed."""

from __future__ import annotations

import enum
import types
import typing
from typing import TYPE_CHECKING, Any, Final

from blazen_trio._codec.names import Misfit
from blazen_trio._codec.scalars import SCALARS
from blazen_trio._codec.shapes import field_types
from blazen_trio._definitions.events import DynamicEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from blazen_trio._definitions.events import Event

__all__ = ["sharing"]

_FIXED: Final = frozenset({*SCALARS, str, bool, type(None)})


def sharing(cls: type[Event]) -> Callable[[Event], bool]:
    """Return a function that tells whether nothing in an event of this class can be changed.

    Most classes have only fields of types of which that is known; of others, the values are
    looked at, as far as they are single ones.
    """
    if issubclass(cls, DynamicEvent):
        return lambda _event: False
    try:
        open_fields = [name for name, type_ in field_types(cls).items() if not _is_fixed(type_)]
    except Misfit:
        open_fields = list(getattr(cls, "__annotations__", {}))
    if not open_fields:
        return lambda _event: True
    return lambda event: all(type(getattr(event, name, None)) in _FIXED for name in open_fields)


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
    return origin is None and type_ in _FIXED
