"""Detection of fields whose annotations rule out every storable value."""

from __future__ import annotations

import enum
import types
import typing
from typing import TYPE_CHECKING, Any, Final

from blazen_trio._codec.containers import ARRAYS, DICTS
from blazen_trio._codec.converter import bare, is_open, unstructure_hook
from blazen_trio._codec.names import Misfit
from blazen_trio._codec.scalars import SCALARS
from blazen_trio._codec.shapes import field_types
from blazen_trio._definitions.events import Event
from blazen_trio._definitions.value_classes import is_typed_dict, is_value_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["field_faults"]

_STORED: Final = frozenset({*SCALARS, str, bool, type(None), Any, object})


def field_faults(events: Iterable[type[Event]]) -> Iterator[str]:
    """Yield a sentence for each field of these event classes that can't have a storable value.

    Types that may have storable values are not reported: a union with one storable member, a
    protocol, an abstract class, and names that can't be resolved yet.
    """
    for cls in events:
        for name, type_ in _fields(cls).items():
            search = _Search()
            fault = search.fault(type_)
            if fault is not None:
                where = f"{cls.__name__}.{'.'.join([name, *reversed(search.path)])}"
                yield (
                    f"event {cls.__name__!r}: the field {where} is annotated {_shown(fault.type)}: "
                    f"{fault.reason}"
                )


class _Fault(typing.NamedTuple):
    type: Any
    reason: str


class _Search:
    """A search for the first part of a type that can't be stored.

    Attributes:
        path: The fields that lead to that part, innermost first.
    """

    def __init__(self) -> None:
        self.path: list[str] = []
        self._seen: dict[Any, tuple[_Fault | None, tuple[str, ...]]] = {}
        self._unknown = False

    def fault(self, type_: Any) -> _Fault | None:
        """Return the first part of the type that can't be stored, or `None` if there is none."""
        try:
            type_ = bare(type_)
        except Misfit:  # a name that does not exist yet
            self._unknown = True
            return None
        if isinstance(type_, str):
            self._unknown = True
            return None
        if typing.get_origin(type_) is typing.Literal:
            return None  # its choices are checked when there is a value
        if type_ not in self._seen:
            self._seen[type_] = (None, ())  # ends the recursion of a type that contains itself
            found = self._fault(type_)
            self._seen[type_] = (found, tuple(self.path))
        found, path = self._seen[type_]
        self.path = list(path)
        return found

    def _fault(self, type_: Any) -> _Fault | None:
        origin, arguments = typing.get_origin(type_), typing.get_args(type_)
        kind = origin or type_
        if kind is typing.Union or kind is types.UnionType:
            return self._of_union(type_, arguments)
        if kind is tuple or kind in ARRAYS or kind in DICTS:
            parts = (each for each in arguments if each is not Ellipsis and each != ())
            return next(filter(None, map(self.fault, parts)), None)
        if is_typed_dict(kind) or (is_value_class(kind) and not issubclass(kind, Event)):
            return self._of_fields(type_)
        known = type_ in _STORED or isinstance(type_, typing.TypeVar)
        named = isinstance(kind, type) and issubclass(kind, (enum.Enum, Event))
        if known or named or is_open(kind):
            return None
        return _Fault(type_, _ADVICE)

    def _of_union(self, type_: Any, arms: tuple[Any, ...]) -> _Fault | None:
        found = []
        for arm in arms:
            self.path = []
            found.append((self.fault(arm), self.path))
        if all(fault is not None for fault, _ in found):
            fault, self.path = found[0]
            return fault
        self.path = []
        if not self._unknown:
            try:
                unstructure_hook(type_)
            except Misfit as misfit:
                return _Fault(type_, misfit.message)
        return None

    def _of_fields(self, type_: Any) -> _Fault | None:
        for name, part in _fields(type_).items():
            fault = self.fault(part)
            if fault is not None:
                self.path.append(name)
                return fault
        return None


_ADVICE: Final = (
    "no value of that type can be stored. Use JSON types, attrs classes, dataclasses, named "
    "tuples, pydantic models, msgspec structs, enums, datetime, UUID, Decimal, bytes, list, tuple, "
    "set, dict or TypedDict; or Any, if you know that its values can be stored or that the run has "
    "no store"
)


def _fields(cls: Any) -> dict[str, Any]:
    try:
        return field_types(cls)
    except Misfit:  # an annotation uses a name that does not exist yet, or not at run time
        return {}


def _shown(type_: Any) -> str:
    return type_.__qualname__ if type(type_) is type else str(type_)
