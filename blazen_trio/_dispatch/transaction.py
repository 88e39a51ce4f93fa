"""An attempt's transaction over the run: its reads, its writes, its conflicts."""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from blazen_trio._state.entry import Collected
from blazen_trio._state.model import Cell
from blazen_trio.errors import StateConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blazen_trio._codec.codec import Codec
    from blazen_trio._definitions.events import Event
    from blazen_trio._state.model import Buffered, Delivery, Payload, RunState

__all__ = ["IMMUTABLE", "Transaction", "make_cell"]

_NONE: dict[int, Buffered] = {}

_CONTAINERS = frozenset({list, dict, set})
IMMUTABLE = frozenset({str, int, float, bool, type(None), bytes})


class _Collect(NamedTuple):
    types: tuple[str, ...]
    classes: tuple[type[Event], ...]
    own_type: str
    event: Event
    result: list[tuple[Event, Payload | None]] | None
    """The complete set, each event with its payload (`None` for the step's own event)."""
    taken: tuple[int, ...]
    keeps_own: bool


class _HandedOut(NamedTuple):
    value: Any
    data: bytes


def _place_of(event: Event, classes: tuple[type[Event], ...], wanted: set[str]) -> str:
    """Return the expected type as which an event is collected.

    Of the types that it is an instance of, that is the most specific one still missing from the
    set, or the most specific one if none is missing.
    """
    fitting = [cls.event_type for cls in type(event).__mro__ if cls in classes]
    return next((name for name in fitting if name in wanted), fitting[0])


def make_cell(codec: Codec, key: str, value: Any) -> Cell:
    """Encode a state value.

    Raises:
        SerializationError: The value can't be stored.
    """
    return Cell(
        codec.encode_value(value, f"state key {key!r}"),
        (value,) if type(value) in IMMUTABLE else None,
    )


class Transaction:
    """The data behind a step's `Context`, in memory. No other step sees it before the commit."""

    __slots__ = (
        "_codec",
        "_collects",
        "_handed_out",
        "_reads",
        "_state",
        "_updates",
        "closed",
        "delivery",
        "fault",
        "sent",
        "writes",
    )

    def __init__(self, delivery: Delivery, state: RunState, codec: Codec) -> None:
        self.delivery = delivery
        self.closed = False
        """True once the attempt is over: later changes would be lost."""
        self.fault: Exception | None = None
        """An error that the step may have swallowed, but with which it must not commit."""
        self.sent: list[Any] = []
        self.writes: dict[str, Cell | None] = {}
        self._state = state
        self._codec = codec
        self._reads: dict[str, Cell | None] = {}
        self._updates: dict[str, list[tuple[Callable[[Any], Any], Any]]] = {}
        self._collects: dict[tuple[str, ...], _Collect] = {}
        self._handed_out: dict[str, list[_HandedOut]] = {}
        """Values that the step may have changed in place, by key. Setting a key clears its list."""

    # State

    def get(self, key: str, default: Any, types: tuple[Any, ...]) -> Any:
        """Return this attempt's own value of a key, or else the newest decided one.

        Args:
            key: The key.
            default: Returned if the key has no value.
            types: Empty, or the one type to decode the value as.
        """
        if key in self._updates:
            # The step sees the updated value, so the update becomes a read and a write.
            cell = self._state.cells.get(key)
            self._reads.setdefault(key, cell)
            self.writes[key] = self._updated(key, self._updates.pop(key), cell)
        if key in self.writes:
            cell = self.writes[key]
        else:
            cell = self._state.cells.get(key)
            self._reads.setdefault(key, cell)
        if cell is None:
            if type(default) in _CONTAINERS and not default:
                # A step that fills an empty default in place probably means to change the state.
                self._handed_out.setdefault(key, []).append(
                    _HandedOut(default, make_cell(self._codec, key, default).payload.data)
                )
            return default
        if cell.scalar is not None and not types:
            return cell.scalar[0]
        value = self._decode(key, cell, types)
        if type(value) in IMMUTABLE:
            if not types:
                cell.scalar = (value,)
        else:
            data = (
                self._codec.encode_value(value, f"state key {key!r}").data
                if types
                else cell.payload.data
            )
            self._handed_out.setdefault(key, []).append(_HandedOut(value, data))
        return value

    def set(self, key: str, value: Any) -> None:
        cell = make_cell(self._codec, key, value)
        self._replace(key, cell)

    def delete(self, key: str) -> None:
        self._replace(key, None)

    def _replace(self, key: str, cell: Cell | None) -> None:
        self._updates.pop(key, None)
        self._handed_out.pop(key, None)
        self.writes[key] = cell

    def update(self, key: str, fn: Callable[[Any], Any], default: Any) -> None:
        if key in self.writes:
            self.writes[key] = self._updated(key, [(fn, default)], self.writes[key])
        else:
            self._updates.setdefault(key, []).append((fn, default))

    def _decode(self, key: str, cell: Cell, types: tuple[Any, ...] = ()) -> Any:
        subject = f"state key {key!r}"
        if types:
            return self._codec.decode_value(cell.payload.data, subject, types[0])
        return self._codec.decode_value(cell.payload.data, subject)

    def _updated(
        self, key: str, updates: list[tuple[Callable[[Any], Any], Any]], cell: Cell | None
    ) -> Cell:
        for fn, default in updates:
            if cell is None:
                value = default
            elif cell.scalar is not None:
                value = cell.scalar[0]
            else:
                value = self._decode(key, cell)
            cell = make_cell(self._codec, key, fn(value))
        assert cell is not None
        return cell

    # Collecting

    def collect(self, event: Event, classes: Sequence[type[Event]]) -> list[Event] | None:
        """Return the events of these classes, in that order, or `None` until all are there.

        Raises:
            ValueError: The attempt has collected another event in this buffer.
        """
        types = tuple(cls.event_type for cls in classes)
        if not types:
            return []
        if types not in self._collects:
            if not isinstance(event, tuple(classes)):
                return None
            self._collects[types] = self._look(types, tuple(classes), event)
        elif self._collects[types].event is not event and isinstance(event, tuple(classes)):
            msg = (
                f"step {self.delivery.step!r} called ctx.collect() with a second event for "
                f"[{', '.join(types)}]: an attempt can put only one event into a buffer. "
                "If the step gets a list of events, they are already collected"
            )
            raise ValueError(msg)
        found = self._collects[types].result
        if found is None:
            return None
        # Decoded anew: an earlier attempt may have mutated the objects that it got.
        return [self._codec.fresh_event(one, payload) for one, payload in found]

    def _look(
        self, types: tuple[str, ...], classes: tuple[type[Event], ...], event: Event
    ) -> _Collect:
        by_type = self._state.buffers.get((self.delivery.step, types), {})
        need = Counter(types)
        # Copied in one go, and no more than needed. A synchronous step does this in its thread,
        # while the event loop changes the buffers.
        waiting = {
            name: deque(islice(by_type.get(name, _NONE).values(), count))
            for name, count in need.items()
        }
        own_type = _place_of(
            event, classes, {name for name in need if len(waiting[name]) < need[name]}
        )
        if any(len(waiting[name]) + (name == own_type) < count for name, count in need.items()):
            return _Collect(types, classes, own_type, event, None, (), keeps_own=True)
        keeps_own = True
        events: list[tuple[Event, Payload | None]] = []
        taken: list[int] = []
        for name in types:
            if waiting[name]:
                first = waiting[name].popleft()
                taken.append(first.id)
                events.append((first.event, first.payload))
            else:
                keeps_own = False
                events.append((event, None))
        return _Collect(types, classes, own_type, event, events, tuple(taken), keeps_own)

    # At the commit

    def footprint(self) -> frozenset[object]:
        """Return the keys and buffers that this attempt has read.

        While it holds the turn, no other commit may change them. A buffer counts as read and
        changed, since `collect` looks at it and adds to it.
        """
        return frozenset((*self._reads, *self._collects))

    def touches(self, footprint: frozenset[object]) -> bool:
        """Return whether this commit would change any key or buffer of a footprint."""
        return not footprint.isdisjoint(
            self.writes.keys() | self._updates.keys() | self._collects.keys()
        )

    def conflict(self) -> str | None:
        """Return, in words, a key or buffer that conflicts; `None` if the attempt may commit.

        A key conflicts if the attempt has read and set it and another step has changed it since. A
        buffer conflicts if collecting from it would have another result by now.

        Cells are replaced, never changed, so the identity of a cell is its version. A key that was
        only read does not conflict: two steps that each read what the other sets both commit
        (write skew). A step that must not do so sets the key that it relies on, too.
        """
        cells = self._state.cells
        for key in self.writes:
            if key in self._reads and cells.get(key) is not self._reads[key]:
                return f"state key {key!r}"
        for seen in self._collects.values():
            now = self._look(seen.types, seen.classes, seen.event)
            same = (now.result is None) == (seen.result is None) and now.own_type == seen.own_type
            if not same or now.taken != seen.taken:
                return f"the collect buffer [{', '.join(seen.types)}]"
        return None

    def cells(self) -> dict[str, Cell | None] | None:
        """Return the writes, with updates applied to the newest values.

        Raises:
            StepOutputError: The step tried to send an event that it does not declare.
            StateConflictError: A value that the step got was changed in place and not set.
            SerializationError: An updated value can't be stored.
        """
        if self.fault is not None:
            raise self.fault
        for key, values in self._handed_out.items():
            for value, data in values:
                self._check_unchanged(key, value, data)
        if self._updates:
            writes = dict(self.writes)
            for key, updates in self._updates.items():
                writes[key] = self._updated(key, updates, self._state.cells.get(key))
            return writes
        return self.writes or None

    def _check_unchanged(self, key: str, value: Any, data: bytes) -> None:
        if self._codec.encode_value(value, f"state key {key!r}").data != data:
            raise StateConflictError(
                f"step {self.delivery.step!r} changed the value of state key {key!r} in place: "
                "get() returns a copy, so the change would be lost. "
                f"Write it back with ctx.set({key!r}, value), or use ctx.update",
                step_name=self.delivery.step,
                attempts=self.delivery.attempt,
                error_type="StateConflictError",
            )

    def collected(self, payload: Callable[[Event], Payload | None]) -> list[Collected] | tuple[()]:
        """Return the changes to the collect buffers.

        Args:
            payload: Encodes an event.
        """
        return [
            Collected(
                seen.types,
                (seen.own_type, seen.event, payload(seen.event)) if seen.keeps_own else None,
                seen.taken,
                self.delivery.step,
            )
            for seen in self._collects.values()
        ]
