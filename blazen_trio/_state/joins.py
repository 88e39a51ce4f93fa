"""Joins: the events that they can collect, and when they fire.

A join is due once no live item can still lead to a member of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._state.apply import firing, noted
from blazen_trio.errors import StepOutputError

if TYPE_CHECKING:
    from collections.abc import Container, Generator, Iterable, Iterator, Sequence

    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._definitions.targets import Targets
    from blazen_trio._state.entry import Entry, Output
    from blazen_trio._state.model import FanOut, RunState
    from blazen_trio._state.routing import Routing

__all__ = ["check_collectable", "firing_due", "half_collected"]


def check_collectable(
    step: StepDefinition,
    kinds: Iterable[Targets],
    pending: Container[str],
    outputs: Iterable[Output],
) -> None:
    """Raise an error for outputs that their join can't collect.

    Delayed outputs are checked now, too: by the time they are due, the step that returned them has
    committed, and there is no attempt left to fail.

    Raises:
        StepOutputError: A join of an output is not in `pending`.
    """
    for kind in kinds:
        for join in kind.collects:
            if join not in pending:
                event = next(output.event for output in outputs if output.targets is kind)
                raise StepOutputError(
                    f"step {step.name!r} returned or sent {event.event_type}, but join {join!r} is "
                    "no longer waiting for it: no declared path leads from the elements of this "
                    "fan-out to that join. Check that the return annotations of the steps in "
                    "between declare every event that they emit",
                    step_name=step.name,
                    error_type="StepOutputError",
                )


def firing_due(
    routing: Routing,
    state: RunState,
    group: FanOut,
    entry: Entry,
    fired: list[tuple[int, str]],
    most: int,
) -> Generator[None, None, None]:
    """Fire the joins of a group that are due, and any in enclosing groups that become due.

    Args:
        routing: The workflow's routing.
        state: The run's state.
        group: A fan-out, or the root.
        entry: The entry that makes them due. The new deliveries are added to its effects.
        fired: The list to which (fan-out id, join) is added for each. It is stored with the entry:
            a replay fires the same joins and examines no others.
        most: The maximum number of items per slice.
    """
    # A join that has no members and does not fire gives up its place in the enclosing fan-out. That
    # may make joins there due. They go first, before the other joins of this group, and the same
    # may happen to them, through any number of levels.
    levels = [_joins_of(routing, group)]
    while levels:
        group, joins, left = levels[-1]
        join = next(left, None)
        if join is None:
            levels.pop()
            continue
        root = group.id == 0
        # Read anew: in the root, the delivery of a join that has just fired may hold others.
        if any(join in routing.holds(node, root=root) for node in group.live):
            continue
        if root and _comes_later(routing, join, joins):
            continue
        fired.append((group.id, join))
        place = None if root else group.pending[join]
        delivery = yield from firing(state, group.id, join, most)
        if delivery is not None:
            noted(entry, delivery)
        elif place is not None and place.group is not None:
            levels.append(_joins_of(routing, place.group))
            if len(levels) % most == 0:
                yield


def _joins_of(routing: Routing, group: FanOut) -> tuple[FanOut, list[str], Iterator[str]]:
    """Return a group, its joins that may be due, and an iterator over those not yet examined."""
    if group.id == 0:
        joins = [join for join in routing.root_joins if "member:" + join in group.live]
    else:
        joins = list(group.pending)
    return group, joins, iter(joins)


def _comes_later(routing: Routing, join: str, due: Sequence[str]) -> bool:
    """Return whether another root join leads to this one, and must therefore fire first.

    Both are due, and this one has to collect the output of the other. Without this rule, timing
    would decide which of them fires first. Two that lead to each other fire in declaration order.
    """
    holds = routing.holds
    return any(
        join in holds(one, root=True) and one not in holds(join, root=True)
        for one in due
        if one != join
    )


def half_collected(state: RunState) -> tuple[str, ...]:
    """Describe the incomplete joins and `ctx.collect` buffers, in one sentence each."""
    lines = []
    for (step, types), by_type in state.buffers.items():
        have = ", ".join(f"{len(events)} {name}" for name, events in by_type.items() if events)
        lines.append(f"step {step!r} collects [{', '.join(types)}] and has {have}")
    for fan_out in (*state.fan_outs.values(), *([state.root] if state.root else [])):
        for node, count in fan_out.live.items():
            if node.startswith("member:"):
                lines.append(f"join {node[7:]!r} has collected {count}")
    return tuple(lines)
