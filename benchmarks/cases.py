"""The cases: what is measured beside what, and how large."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks import limits, workloads
from benchmarks.harness import Case

_SPAWN = "bare Trio, a task per step"
_SPAWN_CHECKPOINT = "that, with a checkpoint"

IN_MEMORY = [
    Case("chain", 2000, workloads.chain(2000), limits.chain(2000), _SPAWN, 2.0),
    Case(
        "chain-checkpoint",
        2000,
        workloads.chain(2000, checkpoint=True),
        limits.chain(2000, checkpoint=True),
        _SPAWN_CHECKPOINT,
    ),
    Case("fan", 1000, workloads.fan(1000), limits.fan(1000), _SPAWN, 1.0),
    Case(
        "fan-checkpoint",
        1000,
        workloads.fan(1000, checkpoint=True),
        limits.fan(1000, checkpoint=True),
        _SPAWN_CHECKPOINT,
    ),
    Case("many", 5000, workloads.many(500, 10), limits.many(500, 10), _SPAWN, 0.9),
    Case(
        "many-checkpoint",
        5000,
        workloads.many(500, 10, checkpoint=True),
        limits.many(500, 10, checkpoint=True),
        _SPAWN_CHECKPOINT,
    ),
]


def durable_chain(kind: str, steps: int = 300) -> Case:
    """One run in a database of this kind, where each step is committed before the next begins."""
    return Case(
        f"durable-chain-{kind}",
        steps,
        partial(workloads.durable_chain, steps=steps),
        partial(limits.sql_one_by_one, steps=steps),
        "INSERT + COMMIT per step",
        0.6,
        kind,
    )


def durable_many(kind: str, runs: int = 200, steps: int = 10) -> Case:
    """Many runs in a database of this kind, whose steps share their commits."""
    return Case(
        f"durable-many-{kind}",
        runs * steps,
        partial(workloads.durable_many, runs=runs, steps=steps),
        partial(limits.sql_by_hundreds, steps=runs * steps),
        "100 INSERTs per COMMIT",
        0.2,
        kind,
    )


def durable_beside_busy(kind: str, steps: int = 300) -> Case:
    """One run in a database of this kind, beside a task that keeps the event loop busy."""
    return Case(
        f"durable-busy-{kind}",
        steps,
        partial(workloads.durable_beside_busy, steps=steps),
        partial(limits.sql_beside_busy, steps=steps),
        "the same in the busy loop",
        database=kind,
    )


def all_cases(kinds: Sequence[str]) -> list[Case]:
    """Every case, the durable ones in each of these kinds of databases."""
    return [
        *IN_MEMORY,
        *(durable_chain(kind) for kind in kinds),
        *(durable_many(kind) for kind in kinds),
        durable_beside_busy("sqlite"),
    ]


def chosen(cases: Sequence[Case], names: Sequence[str]) -> list[Case]:
    """The cases of these names. A name that no case has stands for all that begin with it and a dash.

    Raises:
        ValueError: A name stands for nothing.
    """
    known = {case.name for case in cases}
    found: set[str] = set()
    for name in names:
        meant = {name} & known or {one for one in known if one.startswith(f"{name}-")}
        if not meant:
            msg = f"there is no case {name!r}, only {', '.join(sorted(known))}"
            raise ValueError(msg)
        found |= meant
    return [case for case in cases if case.name in found or not names]
