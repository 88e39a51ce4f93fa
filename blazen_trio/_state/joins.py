"""What joins can collect, and when they are due: once nothing can bring them anything more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_trio._state.apply import firing, noted
from blazen_trio.errors import StepOutputError

if TYPE_CHECKING:
    from collections.abc import Container, Generator, Iterable, Iterator, Sequence

    from blazen_trio._definitions.steps import StepDefinition
    from blazen_trio._state.entry import Entry, Output, Targets
    from blazen_trio._state.model import FanOut, RunState
    from blazen_trio._state.routing import Routing

__all__ = ["check_collectable", "firing_due", "half_collected"]


def check_collectable(
    step: StepDefinition,
    kinds: Iterable[Targets],
    pending: Container[str],
    outputs: Iterable[Output],
) -> None:
    """Refuse what no join can collect. Delayed ones too: when they are due it would be too late to
    tell their step.
    """
    for kind in kinds:
        for join in kind.collects:
            if join not in pending:
                event = next(output.event for output in outputs if output.targets is kind)
                raise StepOutputError(
                    f"step {step.name!r} made a {event.event_type} that the join {join!r} can't collect any "
                    "more: no declared path leads from the elements of the fan-out to it. Declare in the return "
                    "annotations on the way what the steps really emit",
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
    """Fire the joins of a group that are due, and those around it that are due by that.

    Args:
        routing: The workflow's.
        state: The run's state.
        group: A fan-out, or the root.
        entry: The entry by which they are due: the deliveries made are among its effects.
        fired: Gets a (fan-out id, join) of each.
        most: How many items are dealt with in one slice.
    """
    # A join that has nothing to fire with lets go of its place in the fan-out around it, whose joins
    # may be due by that, before the others of its own; and so on, through however many levels.
    levels = [_joins_of(routing, group)]
    while levels:
        group, joins, left = levels[-1]
        join = next(left, None)
        if join is None:
            levels.pop()
            continue
        root = group.id == 0
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
    """Return a group, its joins that may be due, and those of them that are still to be looked at."""
    if group.id == 0:
        joins = [join for join in routing.root_joins if "member:" + join in group.live]
    else:
        joins = list(group.pending)
    return group, joins, iter(joins)


def _comes_later(routing: Routing, join: str, due: Sequence[str]) -> bool:
    """Tell whether another root join that is due with this one leads to it, so that what that one
    returns is collected first.

    Which of the two became due first would be a matter of time. Two that lead to each other go in
    order of declaration.
    """
    holds = routing.holds
    return any(
        join in holds(one, root=True) and one not in holds(join, root=True)
        for one in due
        if one != join
    )


def half_collected(state: RunState) -> tuple[str, ...]:
    """Return what waits in joins and collect buffers for more, a sentence each."""
    lines = []
    for (step, types), by_type in state.buffers.items():
        have = ", ".join(f"{len(events)} {name}" for name, events in by_type.items() if events)
        lines.append(f"step {step!r} collects [{', '.join(types)}] and has {have}")
    for fan_out in (*state.fan_outs.values(), *([state.root] if state.root else [])):
        for node, count in fan_out.live.items():
            if node.startswith("member:"):
                lines.append(f"join {node[7:]!r} has collected {count}")
    return tuple(lines)
