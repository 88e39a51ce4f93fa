"""How often handlers have led back to steps that failed, so that none does so for ever.

`RunState.recovered` has an item's id only if it descends from a failure that a handler took: with
the steps that have failed so, and how often each. What an entry brings in has it from the item that
it consumes, and from the events that it takes out of collect buffers; what a join returns, from its
fan-out and from all that it has collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blazen_trio._state.entry import Entry
    from blazen_trio._state.model import RunState

    Recovered = Mapping[str, int]

__all__ = ["inherit", "inherited", "merged"]


def merged(one: Recovered | None, other: Recovered | None) -> Recovered | None:
    """Return what descends from both has: of each step the greater number."""
    if not one or not other or one is other:
        return one or other
    return {step: max(one.get(step, 0), other.get(step, 0)) for step in {**one, **other}}


def inherited(state: RunState, entry: Entry) -> Recovered | None:
    """Return what an entry brings in has; it is taken from what the entry consumes."""
    table = state.recovered
    found = table.pop(entry.done, None)
    for collected in entry.collected:
        for id_ in collected.taken:
            found = merged(found, table.pop(id_, None))
    if entry.recovers is not None:
        found = dict(found or {})
        found[entry.recovers] = found.get(entry.recovers, 0) + 1
    return found


def inherit(state: RunState, first: int, found: Recovered | None) -> None:
    """Note it for all that was given an id from this one on."""
    if found:
        state.recovered.update(dict.fromkeys(range(first, state.next_id), found))
