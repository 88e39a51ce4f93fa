"""Counts of recoveries, which keep a handler from leading back to a failed step for ever.

`RunState.recovered` contains the id of an item only if the item descends from a failure that a
handler took. Its value counts, by step, how often the step has failed in this way. The items that
an entry adds inherit the counts of the item that it consumes, and of the events that it takes out
of collect buffers. The output of a join inherits those of its fan-out and of everything that it has
collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Recovered = Mapping[str, int]

__all__ = ["inherit", "inherited", "merged"]


def merged(one: Recovered | None, other: Recovered | None) -> Recovered | None:
    """Return the counts of what descends from both: the larger one of each step."""
    if not one or not other or one is other:
        return one or other
    return {step: max(one.get(step, 0), other.get(step, 0)) for step in {**one, **other}}


def inherited(
    table: dict[int, Recovered], consumed: Iterable[int], recovers: str | None
) -> Recovered | None:
    """Return the counts of the items that an entry adds, and remove those of what it consumes.

    Args:
        table: The run's `RunState.recovered`.
        consumed: The ids of the items and of the buffered events that the entry consumes.
        recovers: The step whose failure the entry passes to a handler.
    """
    found: Recovered | None = None
    for id_ in consumed:
        found = merged(found, table.pop(id_, None))
    if recovers is not None:
        found = dict(found or {})
        found[recovers] = found.get(recovers, 0) + 1
    return found


def inherit(table: dict[int, Recovered], ids: Iterable[int], found: Recovered | None) -> None:
    """Store these counts for all items with these ids."""
    if found:
        table.update(dict.fromkeys(ids, found))
