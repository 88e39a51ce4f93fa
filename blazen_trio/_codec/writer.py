"""Wire forms shared by journal entries and snapshots."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import orjson

from blazen_trio._state.entry import Collected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from blazen_trio._state.entry import Output
    from blazen_trio._state.model import Cell, Payload, StoredError

__all__ = [
    "collected_wire",
    "collected_wires",
    "error_wire",
    "names_wire",
    "output_wire",
    "reference",
    "size_of",
    "write_cells",
]

_TAKEN: Final = 2048
"""Ids of taken events per wire form. More are split into several forms."""


def reference(payload: Payload, blobs: dict[str, bytes]) -> Any:
    """Return a payload in place, or the digest of a large one, whose bytes are added to `blobs`."""
    if payload.digest is None:
        return orjson.Fragment(payload.data)
    blobs[payload.digest] = payload.data
    return {"$blob": payload.digest}


def names_wire(names: tuple[str, ...]) -> list[Any]:
    """Return names in order. A name repeated in a row is given once, with its count."""
    if len(names) < 3:
        return list(names)
    counted = ((name, sum(1 for _ in same)) for name, same in groupby(names))
    return [name if count == 1 else (name, count) for name, count in counted]


def error_wire(error: StoredError) -> dict[str, Any]:
    """Return a stored error, without its empty fields."""
    wire: dict[str, Any] = {"kind": error.kind, "message": error.message}
    if error.step:
        wire["step"] = error.step
    if error.attempts:
        wire["attempts"] = error.attempts
    if error.error_type:
        wire["error_type"] = error.error_type
    if error.details:
        wire["details"] = error.details
    if error.traceback:
        wire["traceback"] = error.traceback
    return wire


def output_wire(output: Output, blobs: dict[str, bytes], *, routed: bool = True) -> list[Any]:
    """Return an event and its destinations, or only the event if it is not `routed`."""
    payload = output.payload
    assert payload is not None, "a run with a store encodes its events before it records them"
    if not routed:
        return [reference(payload, blobs), ()]
    steps, joins = output.targets.steps, output.targets.joins
    wire: list[Any] = [reference(payload, blobs), steps[0] if len(steps) == 1 else steps]
    if joins or output.due is not None or output.request_id is not None:
        wire += [joins, output.due, output.request_id]
        while wire[-1] is None:
            wire.pop()
    return wire


def write_cells(
    cells: Mapping[str, Cell | None], wire: dict[str, Any], blobs: dict[str, bytes]
) -> None:
    """Add state writes to an entry's wire form."""
    if kept := {
        key: reference(cell.payload, blobs) for key, cell in cells.items() if cell is not None
    }:
        wire["c"] = kept
    if deleted := [key for key, cell in cells.items() if cell is None]:
        wire["x"] = deleted


def collected_wire(collected: Collected, blobs: dict[str, bytes]) -> list[Any]:
    """Return a step's change to a collect buffer."""
    added = None
    if collected.added is not None:
        event_type, _, payload = collected.added
        assert payload is not None, "a run with a store encodes its events before it records them"
        added = [event_type, reference(payload, blobs)]
    return [collected.step, names_wire(collected.types), added, collected.taken]


def collected_wires(
    done: Iterable[Collected], blobs: dict[str, bytes]
) -> Iterator[tuple[list[Any], int]]:
    """Yield a step's changes to collect buffers, each with its size in bytes.

    A change that takes many events is split into several, of which the first adds the event.
    """
    for collected in done:
        first, taken = collected, collected.taken
        for start in range(0, len(taken) or 1, _TAKEN):
            part = Collected(first.types, first.added, taken[start : start + _TAKEN], first.step)
            wire = collected_wire(part, blobs)
            yield wire, 16 * len(part.taken)
            first = Collected(first.types, None, (), first.step)


def size_of(holder: Output | Cell | None) -> int:
    """Return the number of bytes that this adds to a line."""
    payload = None if holder is None else holder.payload
    return 0 if payload is None or payload.digest is not None else len(payload.data)
