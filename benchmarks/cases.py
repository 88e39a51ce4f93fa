"""The cases: each pairs a workload of the engine with its limit, and sets the size of both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from benchmarks import limits, workloads
from benchmarks.harness import Aim, Case

_SPAWN = "bare Trio, a task per step"
_SPAWN_CHECKPOINT = "that, with a checkpoint"

WIDTHS = (1_000, 10_000, 100_000)
"""Widths of the fan-outs."""


def chain(steps: int = 2000, *, checkpoint: bool = False) -> Case:
    """Return the case of one long run in memory."""
    return Case(
        "chain-checkpoint" if checkpoint else "chain",
        steps,
        workloads.chain(steps, checkpoint=checkpoint),
        limits.chain(steps, checkpoint=checkpoint),
        _SPAWN_CHECKPOINT if checkpoint else _SPAWN,
        Aim(1.8 if checkpoint else 3.0),
    )


def fan(width: int, *, checkpoint: bool = False) -> Case:
    """Return the case of one wide run in memory."""
    name = "fan-checkpoint" if checkpoint else "fan"
    return Case(
        f"{name}-{width}",
        width,
        workloads.fan(width, checkpoint=checkpoint),
        limits.fan(width, checkpoint=checkpoint),
        _SPAWN_CHECKPOINT if checkpoint else _SPAWN,
        Aim(0.9 if checkpoint else 1.5),
        curve=(name, width),
    )


def many(runs: int = 500, steps: int = 10, *, checkpoint: bool = False) -> Case:
    """Return the case of many concurrent runs in memory."""
    return Case(
        "many-checkpoint" if checkpoint else "many",
        runs * steps,
        workloads.many(runs, steps, checkpoint=checkpoint),
        limits.many(runs, steps, checkpoint=checkpoint),
        _SPAWN_CHECKPOINT if checkpoint else _SPAWN,
        Aim(1.0 if checkpoint else 1.1),
    )


IN_MEMORY = [
    chain(),
    chain(checkpoint=True),
    *(fan(width) for width in WIDTHS),
    *(fan(width, checkpoint=True) for width in WIDTHS),
    many(),
    many(checkpoint=True),
]


def durable_chain(kind: str, steps: int = 300) -> Case:
    """Return the case of one stored run that commits each step before the next one starts."""
    return Case(
        f"durable-chain-{kind}",
        steps,
        partial(workloads.durable_chain, steps=steps),
        partial(limits.sql_one_by_one, steps=steps),
        "INSERT + COMMIT per step",
        Aim(0.7),
        kind,
    )


def async_chain(kind: str, steps: int = 300) -> Case:
    """Return the case of one stored run that does not wait for the commits of its steps."""
    return Case(
        f"async-chain-{kind}",
        steps,
        partial(workloads.durable_chain, steps=steps, durability="async"),
        partial(limits.sql_by_hundreds, steps=steps),
        "100 INSERTs per COMMIT",
        database=kind,
    )


def durable_many(kind: str, runs: int = 200, steps: int = 10) -> Case:
    """Return the case of many stored runs, whose steps share commits."""
    return Case(
        f"durable-many-{kind}",
        runs * steps,
        partial(workloads.durable_many, runs=runs, steps=steps),
        partial(limits.sql_by_hundreds, steps=runs * steps),
        "100 INSERTs per COMMIT",
        Aim(0.3),
        kind,
    )


def async_many(kind: str, runs: int = 200, steps: int = 10) -> Case:
    """Return the case of many stored runs that do not wait for the commits of their steps."""
    return Case(
        f"async-many-{kind}",
        runs * steps,
        partial(workloads.durable_many, runs=runs, steps=steps, durability="async"),
        partial(limits.sql_by_hundreds, steps=runs * steps),
        "100 INSERTs per COMMIT",
        database=kind,
    )


def durable_beside_busy(kind: str, steps: int = 300) -> Case:
    """Return the case of one stored run beside a task that keeps the event loop busy.

    Its limit is the same run alone.
    """
    return Case(
        f"durable-busy-{kind}",
        steps,
        partial(workloads.durable_beside_busy, steps=steps),
        partial(workloads.durable_chain, steps=steps),
        "the same alone",
        Aim(0.1),
        database=kind,
    )


def all_cases(kinds: Sequence[str]) -> list[Case]:
    """Return every case, the durable ones once for each of these kinds of databases."""
    return [
        *IN_MEMORY,
        *(
            make(kind)
            for make in (durable_chain, async_chain, durable_many, async_many)
            for kind in kinds
        ),
        durable_beside_busy("sqlite"),
    ]


def named(known: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return the known names that these names stand for.

    A name that is not known stands for all known names that start with it and a dash.

    Raises:
        ValueError: A name matches nothing.
    """
    known = set(known)
    found: set[str] = set()
    for name in names:
        meant = {name} & known or {one for one in known if one.startswith(f"{name}-")}
        if not meant:
            msg = f"there is no {name!r}, only {', '.join(sorted(known))}"
            raise ValueError(msg)
        found |= meant
    return found
