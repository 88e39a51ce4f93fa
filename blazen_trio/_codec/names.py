"""What the codec's parts share: refusals that know their path, and the names under which a workflow knows its classes."""

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
    """A value that does not fit; on its way out it gathers where it was. The codec makes a `SerializationError` of it."""

    def __init__(self, message: str, path: str = "", *, newer: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.newer = newer

    def under(self, place: str | int) -> Misfit:
        """The same, seen from one level up: `place` is a field's name, or an index."""
        step = f"[{place}]" if isinstance(place, int) else place
        self.path = step + ("." if self.path and self.path[0] != "[" else "") + self.path
        return self

    def at_key(self, key: object) -> Misfit:
        """The same, seen from the dict that has it under `key`."""
        self.path = (
            f"[{short(key)}]" + ("." if self.path and self.path[0] != "[" else "") + self.path
        )
        return self


def short(value: object) -> str:
    """A value in an error message, never longer than a line; never an exception of a user's `__repr__`."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # a broken __repr__ must not hide the error that is being told
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."


@attrs.frozen
class DynamicValue:
    """A stored attrs object, dataclass or enum member whose class is not at hand.

    Attributes:
        type_name: The name of its class.
        data: Its fields as JSON values (of an enum, the member's name).
    """

    type_name: str
    data: Any

    def __hash__(self) -> int:
        # The class that it stands for may have been in a set or a dict's key, with many others.
        return hash((self.type_name, frozen(self.data)))


class Names:
    """The names under which classes are found again: never by import, only here.

    Attributes:
        events: Event classes by `event_type`.
        types: Attrs classes, dataclasses and enums by class name.
        closed: Whether what is not among them is refused; else it becomes a `DynamicEvent` or `DynamicValue`.
        strict: Whether encoding, too, refuses what could not be decoded again.
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
    """The names that the encoding or decoding going on in this thread looks things up in."""

    names = Names({}, {}, closed=False)


current = _Current()
