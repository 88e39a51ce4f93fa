"""Runs whose drivers die continue elsewhere. Runs that keep killing drivers are set aside."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio

from blazen_trio import (
    Context,
    Event,
    MemoryStore,
    RunCrashedError,
    RunStatus,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    step,
)
from tests.runtime.flows import Later, serving, ticks, until


@step
async def prepare(_ev: StartEvent, ctx: Context) -> Later:
    ctx.set("prepared", True)
    return Later()


@step
async def never_ends(_ev: Later) -> StopEvent:
    await trio.sleep_forever()
    return StopEvent()


poison = Workflow("poison", [prepare, never_ends])


async def kill_a_worker(storage: MemoryStore, workflows: Any) -> None:
    """Kill a worker: other processes find its lease expired, and it writes nothing more."""
    store = storage.beside()
    with trio.CancelScope() as scope:
        async with serving(store, workflows) as worker:
            await trio.sleep(5)
            driven = set(worker._supervisor.driving)
            store.expire()
            async with storage.beside() as other:
                # The first process that polls declares it dead. This one asks for runs of no
                # existing workflow, so it takes nothing.
                await other.take(["none of these"], 1)
            scope.cancel()
    assert driven


async def test_a_run_whose_driver_died_continues_elsewhere(autojump_clock: Any) -> None:
    storage = MemoryStore()
    async with open_runtime(storage) as front:
        run_id = await front.submit(ticks, 1000)
        await kill_a_worker(storage, [ticks])
        assert (await storage.load(run_id)).crashes == 1
        async with serving(storage.beside(), [ticks]):
            assert await front.result(run_id) == 1001
        assert (await storage.load(run_id)).crashes == 0


async def test_a_run_that_kills_its_drivers_is_set_aside(autojump_clock: Any) -> None:
    storage = MemoryStore()
    async with open_runtime(storage) as front:
        run_id = await front.submit(poison)
        for deaths in range(1, 4):
            await kill_a_worker(storage, [poison])
            assert (await storage.load(run_id)).crashes == deaths
        async with serving(storage.beside(), [poison], max_crashes=3):
            with pytest.raises(RunCrashedError, match=r"3 times.*pending: never_ends") as caught:
                await front.result(run_id)
            assert caught.value.crashes == 3
        assert (await storage.get_run(run_id)).status is RunStatus.FAILED
        async with open_runtime(storage, [poison]) as runtime:
            # Resuming it by its id tries it again.
            run = await runtime.resume_from(run_id)
            assert (await storage.load(run_id)).crashes == 0
            run.cancel()


async def test_a_worker_drives_one_suspect_at_a_time(autojump_clock: Any) -> None:
    storage = MemoryStore()
    async with open_runtime(storage) as front:
        ids = [await front.submit(poison) for _ in range(3)]
        for _ in range(2):
            await kill_a_worker(storage, [poison])
        harmless = await front.submit(ticks, 3)
        async with serving(storage.beside(), [poison, ticks]) as worker:
            assert await front.result(harmless) == 4
            assert worker.statistics().driving == 1
            assert worker.statistics().taken == 2
            await front.cancel(next(iter(worker._supervisor.driving)))

            async def next_one() -> bool:
                return worker.statistics().taken == 3

            await until(next_one)
            assert worker.statistics().driving == 1
            for run_id in ids:
                await front.cancel(run_id)


async def test_a_run_that_fails_every_driver_is_set_aside_after_growing_pauses(
    autojump_clock: Any,
) -> None:
    """The pause grows with each failure, so five of them take a few seconds."""

    class Panic(BaseException):
        pass

    attempts: list[float] = []

    @step
    async def panics(_ev: StartEvent) -> StopEvent:
        attempts.append(trio.current_time())
        raise Panic("called unwrap() on an Err")

    panicking = Workflow("panicking", [panics])
    storage = MemoryStore()
    async with open_runtime(storage) as front, serving(storage.beside(), [panicking]):
        run_id = await front.submit(panicking)
        with pytest.raises(RunCrashedError, match=r"failed 5 times.*unwrap"), trio.fail_after(120):
            await front.result(run_id)
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert len(pauses) == 4
    assert pauses == sorted(pauses)
    assert pauses[0] >= 0.25  # so that the failing run does not keep the machine busy


async def test_a_run_that_does_not_fit_the_workflow_is_left_to_newer_workers(
    autojump_clock: Any,
) -> None:
    class Unheard(Event):
        pass

    @step
    async def newer(_ev: StartEvent, ctx: Context) -> StopEvent:
        await trio.sleep(1)
        return StopEvent(ctx.workflow_name)

    new = Workflow("flow", [newer])

    @step
    async def older(_ev: StartEvent) -> StopEvent:
        return StopEvent()

    old = Workflow("flow", [older])
    storage = MemoryStore()
    async with open_runtime(storage, [new]) as runtime:
        with trio.move_on_after(0.5):
            async with open_runtime(storage.beside(), [new]) as first:
                await first.start(new, run_id="run")
    async with open_runtime(storage) as front, serving(storage.beside(), [old]) as worker:
        await trio.sleep(20)
        assert (await storage.get_run("run")).status is RunStatus.RUNNING
        assert 3 <= worker.statistics().refused <= 9
        async with serving(storage.beside(), [new]):
            assert await front.result("run") == "flow"
    assert runtime.statistics().taken == 0
