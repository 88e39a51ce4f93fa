"""Costs, which are counted and never timed: tasks, commits, bytes and memory."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    MemoryStore,
    RunStatus,
    StartEvent,
    StopEvent,
    Workflow,
    open_store,
    step,
)
from blazen_trio._stores.driver import Driver

if TYPE_CHECKING:
    from pathlib import Path


@attrs.frozen
class Tick(Event):
    n: int


@attrs.frozen
class Member(Event):
    n: int


@attrs.frozen
class Done(Event):
    n: int


@step
async def begin(ev: StartEvent) -> Tick:
    return Tick(ev.data)


@step
async def tick(ev: Tick) -> Tick | StopEvent:
    return Tick(ev.n - 1) if ev.n else StopEvent("end")


CHAIN = Workflow("chain", [begin, tick], timeout=None)


@step
async def spread(ev: StartEvent) -> list[Member]:
    return [Member(n) for n in range(ev.data)]


@step
async def work(ev: Member) -> Done:
    return Done(ev.n)


@step
async def gather(done: list[Done]) -> StopEvent:
    return StopEvent(len(done))


FAN = Workflow("fan", [spread, work, gather], timeout=None)


class Tasks(trio.abc.Instrument):
    spawned = 0

    def task_spawned(self, task: Any) -> None:
        self.spawned += 1


async def tasks_of(workflow: Workflow, size: int, store: Any = None) -> int:
    tasks = Tasks()
    trio.lowlevel.add_instrument(tasks)
    await workflow.run(size, store=store)
    trio.lowlevel.remove_instrument(tasks)
    return tasks.spawned


async def test_a_chain_of_any_length_costs_one_task() -> None:
    assert [await tasks_of(CHAIN, size) for size in (1, 10, 1000)] == [1, 1, 1]
    assert await tasks_of(CHAIN, 100, MemoryStore()) == 1


async def test_a_fan_out_of_steps_that_never_wait_costs_few_tasks() -> None:
    assert await tasks_of(FAN, 1000) < 1000 / 8


class Counting(MemoryStore):
    """A store that counts commits and bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0
        self.sizes: list[int] = []

    async def commit(self, driver: Any, commit: Any) -> None:
        self.commits += 1
        self.sizes += [len(data) for _, data in commit.entries]
        await super().commit(driver, commit)


async def test_a_step_is_one_commit_of_few_bytes() -> None:
    store = Counting()
    await CHAIN.run(200, store=store)
    assert store.commits == 202
    assert max(store.sizes) < 200


async def test_the_bytes_per_event_of_a_fan_out_do_not_depend_on_its_width() -> None:
    per_event = []
    for width in (1000, 10_000):
        store = Counting()
        await FAN.run(width, store=store)
        per_event.append(sum(store.sizes) / width)
    assert per_event[1] < per_event[0] * 1.05
    assert per_event[1] < 200


async def test_a_join_of_many_members_is_an_entry_of_few_bytes() -> None:
    store = Counting()
    await FAN.run(5000, store=store)
    # The widest entry is the fan-out itself; the members that the join gets are not written again.
    assert sorted(store.sizes)[-2] < 250


async def test_a_journal_larger_than_its_snapshot_is_folded(tmp_path: Path) -> None:
    store = MemoryStore()
    await CHAIN.run(3000, store=store, run_id="run")
    stored = await store.load("run")
    assert stored.snapshot is not None
    assert sum(len(data) for _, data in stored.entries) < 70_000
    assert len(stored.snapshot[1]) < 2000
    async with open_store(f"sqlite:///{tmp_path / 'runs.db'}") as sql:
        await CHAIN.run(1500, store=sql, run_id="run", durability="async")
        stored = await sql.load("run")
        assert stored.snapshot is not None or sum(len(data) for _, data in stored.entries) < 200_000
        assert await CHAIN.resume_from("run", store=sql) == "end"


async def test_a_large_value_is_written_once() -> None:
    large = "x" * 100_000

    @step
    async def start(ev: StartEvent, ctx: Context) -> Tick:
        ctx.set("large", large)
        return Tick(1000)

    @step
    async def look(ev: Tick, ctx: Context) -> Tick | StopEvent:
        if ev.n == 0:
            return StopEvent(len(ctx.get("large")))
        return Tick(ev.n - 1)

    blobs: list[int] = []

    class Blobs(MemoryStore):
        async def commit(self, driver: Any, commit: Any) -> None:
            blobs.extend(len(data) for data in commit.blobs.values())
            if commit.snapshot is not None:
                assert len(commit.snapshot.data) < 2000
            await super().commit(driver, commit)

    store = Blobs()
    workflow = Workflow("large", [start, look])
    assert await workflow.run(store=store, run_id="run") == 100_000
    assert blobs == [100_002]
    assert (await store.load_snapshot("run")).state["large"] == large


async def test_a_fan_out_of_30_000_resumes_from_its_last_commit() -> None:
    store = MemoryStore()
    ran = 0

    @step
    async def work(ev: Member) -> Done:
        nonlocal ran
        ran += 1
        if ran == 2000:
            scope.cancel()
            await trio.lowlevel.checkpoint()
        return Done(ev.n)

    workflow = Workflow("fan", [spread, work, gather], timeout=None)
    with trio.CancelScope() as scope:
        await workflow.run(30_000, store=store, run_id="run", durability="async")
    assert (await store.get_run("run")).status is RunStatus.RUNNING
    done = 30_000 - len((await store.load_snapshot("run")).deliveries)
    assert 0 < done < 2000
    ran = 10**9  # no second crash
    assert await workflow.resume_from("run", store=store, durability="exit") == 30_000
    assert ran - 10**9 == 30_000 - done


async def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    """A run with ten times as many steps uses no more memory."""
    peaks = []
    for steps in (2000, 20_000):
        gc.collect()
        tracemalloc.start()
        await CHAIN.run(steps)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5


@step
async def ask(ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("?")


@step
async def answer(ev: InputResponseEvent) -> StopEvent:
    return StopEvent(ev.response)


class Forgetful(MemoryStore):
    """A store that acknowledges every commit and keeps nothing in memory, as a database does."""

    async def create(self, run: Any, first: Any) -> Driver:
        await trio.lowlevel.checkpoint()
        return Driver(first.run_id)

    async def commit(self, driver: Any, commit: Any) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()


@pytest.mark.parametrize("kind", ["none", "stored"])
async def test_a_waiting_run_costs_at_most_20_kb(kind: str) -> None:
    workflow = Workflow("idle", [ask, answer])
    store = None if kind == "none" else Forgetful()
    runs = 200
    waiting = 0
    release = trio.Event()

    async def one() -> None:
        nonlocal waiting
        async with workflow.run(store=store) as run:
            # Anything that could wait for it would use memory.
            while run.status is not RunStatus.WAITING:  # noqa: ASYNC110
                await trio.lowlevel.checkpoint()
            waiting += 1
            await release.wait()
            run.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        tracemalloc.start()
        for _ in range(runs):
            nursery.start_soon(one)
        while waiting <= runs:  # noqa: ASYNC110  # each of them has to get there
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] / runs
        tracemalloc.stop()
        release.set()
    assert held <= 20 * 1024
