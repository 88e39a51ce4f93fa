"""Shared parts of the codec: errors that collect their path, and a workflow's names of classes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import attrs

from blazen_trio._definitions.events import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blazen_trio._definitions.events import Event

__all__ = ["DynamicValue", "Misfit", "Names", "current", "short"]


class Misfit(Exception):  # noqa: N818  # never seen by users
    """A value that can't be encoded or decoded.

    As it propagates, it collects the path to the value. The codec turns it into a
    `SerializationError`.
    """

    def __init__(self, message: str, path: str = "", *, newer: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.newer = newer

    def under(self, place: str | int) -> Misfit:
        """Extend the path by one level: `place` is the name of a field, or an index."""
        step = f"[{place}]" if isinstance(place, int) else place
        self.path = step + ("." if self.path and self.path[0] != "[" else "") + self.path
        return self

    def at_key(self, key: object) -> Misfit:
        """Extend the path by one level: the value is under `key` in a dict."""
        self.path = (
            f"[{short(key)}]" + ("." if self.path and self.path[0] != "[" else "") + self.path
        )
        return self


def short(value: object) -> str:
    """Format a value for an error message, in at most 60 characters.

    An exception in a user's `__repr__` is suppressed.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # a broken __repr__ must not hide the reported error
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."


@attrs.frozen
class DynamicValue:
    """A stored attrs object, dataclass or enum member whose class is not available.

    Attributes:
        type_name: The name of its class.
        data: Its fields as JSON values; for an enum, the member's name.
    """

    type_name: str
    data: Any

    def __hash__(self) -> int:
        # The original object may be one of many in a set, or part of a dict's key.
        return hash((self.type_name, frozen(self.data)))


class Names:
    """The names under which classes are found again. A class is never imported by its stored name.

    Attributes:
        events: Event classes by `event_type`.
        types: Attrs classes, dataclasses and enums by class name.
        closed: Whether an unknown class is refused. Otherwise it becomes a `DynamicEvent` or
            `DynamicValue`.
        strict: Whether encoding also refuses what could not be decoded again.
    """

    __slots__ = ("closed", "events", "strict", "types")

    def __init__(
        self,
        events: Mapping[str, type[Event]],
        types: Mapping[str, type],
        *,
        closed: bool,
        strict: bool = False,
    ) -> None:
        self.events = events
        self.types = types
        self.closed = closed
        self.strict = strict


class _Current(threading.local):
    """The names that this thread's current encoding or decoding uses."""

    names = Names({}, {}, closed=False)


current = _Current()
