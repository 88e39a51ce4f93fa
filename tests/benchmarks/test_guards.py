"""Costs of the benchmarks' workloads, counted, so that a regression is found without a clock.

Each bound is a tenth above the count, which its docstring names. If a count falls, lower its bound.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from benchmarks.harness import Stopwatch
from benchmarks.idle import FLOW
from benchmarks.workloads import CHAIN, FAN, run_many
from blazen_trio import MemoryStore, RunStatus, open_runtime
from blazen_trio.telemetry import instrument, uninstrument

if TYPE_CHECKING:
    from collections.abc import Callable


async def calls_of(function: Any) -> int:
    """Return the number of calls of Python functions, Trio's included."""
    found = 0

    def see(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal found
        found += event == "call"

    await function()  # so that one-time costs are not counted
    gc.disable()  # so that its callbacks (Hypothesis has one) are not counted
    sys.setprofile(see)
    try:
        await function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return found


async def calls_per(function: Any, few: int, many: int) -> tuple[float, float]:
    """Return the calls per unit of a function's size, and the calls of a function of size 0."""
    less, more = [await calls_of(partial(function, size)) for size in (few, many)]
    each = (more - less) / (many - few)
    return each, less - few * each


@pytest.mark.parametrize(
    ("checkpoint", "step", "run"),
    [(False, 20.5, 310), (True, 49, 310)],
    ids=["plain", "checkpoint"],
)
async def test_calls_per_step_of_a_chain_in_memory(
    checkpoint: bool, step: float, run: float
) -> None:
    """Counted: 18.8 and 272, with a checkpoint 44.8 and 272.

    A step is called in a frame of its own, and only that frame admits KeyboardInterrupt. Before the
    next step runs, the task checks if this one has changed context variables. The dispatcher is
    always in its loop. One table decides what comes next: once in a run without a store, including
    a wait for a signal.
    """
    each, none = await calls_per(CHAIN[checkpoint].run, 100, 600)
    assert each < step
    assert none < run


@pytest.mark.parametrize(
    ("checkpoint", "bound"), [(False, 28.5), (True, 52)], ids=["plain", "checkpoint"]
)
async def test_calls_per_member_of_a_fan_out(checkpoint: bool, bound: float) -> None:
    """Counted: 25.9, with a checkpoint 47.5, since the step's own frame is resumed twice.

    This is the member's step and its place in the join, at every width.
    """
    for few, many in ((100, 600), (1000, 3000)):
        each, _ = await calls_per(FAN[checkpoint].run, few, many)
        assert each < bound


@pytest.mark.parametrize(
    ("checkpoint", "bound"), [(False, 490), (True, 850)], ids=["plain", "checkpoint"]
)
async def test_calls_per_run_of_ten_steps_among_many(checkpoint: bool, bound: float) -> None:
    """Counted: 445, with a checkpoint up to 771.

    Trio's share depends on which tasks are scheduled together.
    """
    many = partial(run_many, Stopwatch(), steps=10, checkpoint=checkpoint)
    each, _ = await calls_per(lambda runs: many(runs=runs), 10, 60)
    assert each < bound


@pytest.mark.parametrize(("durability", "bound"), [("sync", 85), ("async", 51.5), ("exit", 37)])
async def test_calls_per_stored_step(durability: str, bound: float) -> None:
    """Counted: 77.4, 46.9 and 33.8, with a store that costs little itself.

    This includes checks of the driver's token, that each event consists of its fields, and that no
    attempt gets a changed event.
    """

    async def run(steps: int) -> None:
        await CHAIN[False].run(steps, store=MemoryStore(), durability=durability)

    each, _ = await calls_per(run, 100, 600)
    assert each < bound


def counter_of(*packages: str) -> tuple[Counter[str], Callable[..., None]]:
    """Return a counter of calls by function name, and a profiler that counts in these packages."""
    found: Counter[str] = Counter()

    def see(frame: Any, event: str, _argument: Any) -> None:
        if event == "call" and any(
            f"/{package}" in frame.f_code.co_filename for package in packages
        ):
            found[frame.f_code.co_name] += 1

    return found, see


@pytest.mark.parametrize("store", [None, MemoryStore()], ids=["in memory", "stored"])
async def test_telemetry_costs_one_call_per_run_without_a_listener(
    store: MemoryStore | None,
) -> None:
    """The call checks the log's level. Steps make none, even after a listener has been removed."""
    run = partial(CHAIN[True].run, 50, store=store)
    await run()
    found, see = counter_of(
        "blazen_trio/_telemetry/", "blazen_trio/_dispatch/heard", "opentelemetry/", "logging/"
    )
    for listened in (False, True):
        if listened:
            instrument()
            await run()
            uninstrument()
        sys.setprofile(see)
        try:
            await run()
        finally:
            sys.setprofile(None)
        assert found == {"isEnabledFor": 1}
        found.clear()


class Tasks(trio.abc.Instrument):
    spawned = 0

    def task_spawned(self, task: Any) -> None:
        self.spawned += 1


async def tasks_of(function: Any) -> int:
    tasks = Tasks()
    trio.lowlevel.add_instrument(tasks)
    try:
        await function()
    finally:
        trio.lowlevel.remove_instrument(tasks)
    return tasks.spawned


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_a_run_takes_one_task_besides_its_callers(checkpoint: bool) -> None:
    runs = 20
    assert (
        await tasks_of(partial(run_many, Stopwatch(), runs=runs, steps=10, checkpoint=checkpoint))
        == 2 * runs
    )


async def test_a_fan_out_of_short_steps_takes_few_tasks() -> None:
    """Counted: 8, and 114 to 122. A run adds step tasks while it has more deliveries than tasks."""
    assert await tasks_of(partial(FAN[False].run, 1000)) <= 12
    assert await tasks_of(partial(FAN[True].run, 1000)) <= 140


async def test_a_run_in_a_runtime_takes_two_tasks_and_none_while_it_waits() -> None:
    """One task drives the run and one runs its steps."""
    runs = 20

    async def start_all() -> None:
        for _ in range(runs):
            run = await runtime.start(FLOW)
            while run.status is not RunStatus.WAITING:
                await trio.lowlevel.checkpoint()

    async with open_runtime(MemoryStore(), [FLOW]) as runtime:
        living = trio.lowlevel.current_statistics().tasks_living
        assert await tasks_of(start_all) <= 2 * runs
        while runtime.statistics().resting < runs:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()  # until the last of them has ended
        assert trio.lowlevel.current_statistics().tasks_living == living


class Sizes(MemoryStore):
    """A store that counts the bytes committed to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    async def create(self, run: Any, first: Any, **more: Any) -> Any:
        self.written += sum(len(data) for _, data in first.entries)
        return await super().create(run, first, **more)

    async def commit(self, driver: Any, commit: Any) -> None:
        self.written += sum(len(data) for _, data in commit.entries)
        await super().commit(driver, commit)


async def test_bytes_per_step_and_per_run() -> None:
    """Counted: 123 for a step of a chain, 1,480 for a run of ten, including its start and end."""
    written = []
    for steps in (10, 110):
        store = Sizes()
        await CHAIN[False].run(steps, store=store)
        written.append(store.written)
    assert (written[1] - written[0]) / 100 < 135
    assert written[0] < 1630
