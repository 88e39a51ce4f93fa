"""How often handlers have led back to steps that failed, so that none does so for ever.

`RunState.recovered` has an item's id only if it descends from a failure that a handler took: with
the steps that have failed so, and how often each. What an entry brings in has it from the item that
it consumes, and from the events that it takes out of collect buffers; what a join returns, from its
fan-out and from all that it has collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Recovered = Mapping[str, int]

__all__ = ["inherit", "inherited", "merged"]


def merged(one: Recovered | None, other: Recovered | None) -> Recovered | None:
    """Return what descends from both has: of each step the greater number."""
    if not one or not other or one is other:
        return one or other
    return {step: max(one.get(step, 0), other.get(step, 0)) for step in {**one, **other}}


def inherited(
    table: dict[int, Recovered], consumed: Iterable[int], recovers: str | None
) -> Recovered | None:
    """Return what an entry brings in has; it is taken from what the entry consumes.

    Args:
        table: The run's `RunState.recovered`.
        consumed: Ids of the items and of the buffered events that the entry consumes.
        recovers: The step whose failure it hands to a handler.
    """
    found: Recovered | None = None
    for id_ in consumed:
        found = merged(found, table.pop(id_, None))
    if recovers is not None:
        found = dict(found or {})
        found[recovers] = found.get(recovers, 0) + 1
    return found


def inherit(table: dict[int, Recovered], ids: Iterable[int], found: Recovered | None) -> None:
    """Note it for all that was given these ids."""
    if found:
        table.update(dict.fromkeys(ids, found))
