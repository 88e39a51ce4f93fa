"""Waiting runs leave memory and are woken by what they wait for; runs in flight are drained."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import trio

from blazen_trio import (
    Context,
    RunStatus,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    step,
)
from blazen_trio._runtime.supervisor import Supervisor
from tests.runtime.flows import ALL, Approved, Later, serving, status_is, ticks, until

FAST: Any = {"poll_interval": 0.05}


def has_left(runtime: Any) -> Any:
    async def look() -> bool:
        return runtime.statistics().left == 1

    return look


@pytest.mark.parametrize(
    ("flow", "given"), [("asks", "sure"), ("approvals", 1), ("delays", 3600), ("fails", 2)]
)
async def test_a_waiting_run_leaves_memory_and_is_woken(
    opened_in_memory: Any, autojump_clock: Any, flow: str, given: Any
) -> None:
    async with opened_in_memory() as store, serving(store, idle_after=1) as worker:
        run_id = await worker.submit(flow, given)
        await until(status_is(store, run_id, "waiting"))
        await until(has_left(worker))
        assert worker.statistics().left == 1
        if flow == "asks":
            await worker.respond(run_id, "yes")
        elif flow == "approvals":
            await worker.send(run_id, Approved("ann"))
        assert await worker.result(run_id) in ("yes", ["ann"], "late", 3)
        assert worker.statistics().taken >= 2


async def test_a_run_that_waits_for_a_time_is_woken_at_that_time(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store, serving(store, idle_after=0) as worker:
        began = trio.current_time()
        run_id = await worker.submit("delays", 3600)
        await until(has_left(worker))
        taken = worker.statistics().taken
        assert await worker.result(run_id) == "late"
        assert 3600 <= trio.current_time() - began < 3602
        assert worker.statistics().taken == taken + 1


async def test_a_run_whose_handle_is_held_stays_in_memory(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store, serving(store, idle_after=1) as worker:
        run = await worker.start("approvals", 1)
        await trio.sleep(10)
        assert worker.statistics().driving == 1
        run_id = run.run_id
        del run
        gc.collect()
        await until(has_left(worker))
        await worker.send(run_id, Approved("ann"))
        assert await worker.result(run_id) == ["ann"]


async def test_dropping_a_handle_early_in_a_wait_does_not_change_when_the_run_leaves(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store, serving(store, idle_after=1000) as worker:
        await trio.sleep(5000)
        await worker.submit("approvals", 1, run_id="run")
        await until(status_is(store, "run", "waiting"))
        await trio.sleep(10)
        assert worker.statistics().resting == 1
        assert await worker.get("run") is not None
        await trio.sleep(980)
        assert worker.statistics().left == 0
        await trio.sleep(20)
        assert worker.statistics().left == 1


async def test_a_started_run_stays_in_memory_if_its_runtime_does_not_serve(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store, open_runtime(store, ALL, idle_after=0) as runtime:
        await runtime.start("delays", 3600, run_id="run")
        await trio.sleep(10)
        assert (runtime.statistics().driving, runtime.statistics().resting) == (1, 1)
        assert await runtime.result("run") == "late"


async def test_a_pause_succeeds_though_the_driver_leaves_without_reading_it(
    opened_in_sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blazen_trio._runtime.anywhere._LEAVES_WITHIN", 0.05, raising=False)
    opened, paused = opened_in_sqlite, trio.Event()

    async def pause(front: Runtime) -> None:
        snapshot = await front.pause("run")
        assert snapshot.status is RunStatus.PAUSED
        paused.set()

    async with (
        opened() as here,
        opened() as there,
        open_runtime(here, ALL) as front,
        trio.open_nursery() as nursery,
    ):
        async with open_runtime(there, ALL, poll_interval=3600) as driver:
            await driver.start("approvals", 1, run_id="run")
            await until(status_is(here, "run", "waiting"))
            nursery.start_soon(pause, front)
            await trio.sleep(0.3)  # the request is not read, and the run not taken from its driver
            assert not paused.is_set()
        with trio.fail_after(120):
            await paused.wait()
        assert (await here.get_run("run")).status is RunStatus.PAUSED


@pytest.mark.parametrize("leaving", ["lets_rest", "let_parked_go"])
async def test_an_event_sent_while_a_run_leaves_memory_is_not_lost(
    opened_in_memory: Any, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, leaving: str
) -> None:
    """Events arrive at each point at which a run is parked, and at each at which it is released."""
    left = trio.Event()
    leave = getattr(Supervisor, leaving)

    def tell(supervisor: Supervisor, about: Any) -> Any:
        result = leave(supervisor, about)
        if result and about:
            left.set()
        return result

    monkeypatch.setattr(Supervisor, leaving, tell)
    async with (
        opened_in_memory() as here,
        opened_in_memory() as there,
        serving(there, idle_after=1) as worker,
        open_runtime(here) as front,
    ):
        for turns in range(40):
            left = trio.Event()
            run_id = await worker.submit("approvals", 1)
            await left.wait()
            for _ in range(turns // 2):
                await trio.lowlevel.checkpoint()
            await (worker if turns % 2 else front).send(run_id, Approved("ann"))
            with trio.fail_after(120):
                assert await front.result(run_id) == ["ann"]


async def test_a_drained_run_finishes_its_step_and_continues_elsewhere(opened: Any) -> None:
    steps: list[int] = []

    @step
    async def first(_ev: StartEvent) -> Later:
        steps.append(1)
        await trio.sleep(0.3)
        return Later()

    @step
    async def second(_ev: Later) -> StopEvent:
        steps.append(2)
        return StopEvent(steps)

    flow = Workflow("flow", [first, second])
    async with opened() as store:
        async with serving(store, [flow], **FAST) as worker:
            await worker.submit(flow, run_id="run")

            async def begun() -> bool:
                return steps == [1]

            await until(begun)
        assert steps == [1]
        assert (await store.get_run("run")).status is RunStatus.RUNNING
        async with serving(store, [flow], **FAST) as worker:
            assert await worker.result("run") == [1, 2]


async def test_steps_that_take_too_long_to_drain_are_cancelled(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    attempts = 0

    @step
    async def slow(_ev: StartEvent) -> StopEvent:
        nonlocal attempts
        attempts += 1
        await trio.sleep(100 if attempts == 1 else 1)
        return StopEvent(attempts)

    flow = Workflow("flow", [slow])
    async with opened_in_memory() as store:
        began = trio.current_time()
        async with serving(store, [flow], drain_timeout=5) as worker:
            await worker.submit(flow, run_id="run")
            await trio.sleep(1)
        assert trio.current_time() - began == pytest.approx(6)
        assert (await store.get_run("run")).status is RunStatus.RUNNING
        async with open_runtime(store, [flow]) as runtime:
            await runtime.recover()
            assert await runtime.result("run") == 2


async def test_two_workers_share_the_runs(opened: Any) -> None:
    async with opened() as one, opened() as two, open_runtime(one, **FAST) as front:
        ids = [await front.submit(ticks, 3) for _ in range(30)]
        async with (
            serving(one, max_concurrent_runs=3, **FAST) as first,
            serving(two, max_concurrent_runs=3, **FAST) as second,
        ):
            for run_id in ids:
                assert await front.result(run_id) == 4
            counts = [worker.statistics().taken for worker in (first, second)]
        assert sum(counts) == 30
        assert min(counts) > 5


async def test_the_handle_of_a_taken_run_follows_the_run(opened: Any) -> None:
    @step
    async def ask(_ev: StartEvent) -> None:
        pass

    @step
    async def end(ev: Approved, ctx: Context) -> StopEvent:
        ctx.publish(ev)
        return StopEvent(ev.by)

    flow = Workflow("flow", [ask, end], external=[Approved])
    async with (
        opened() as here,
        opened() as there,
        open_runtime(here, **FAST) as front,
        serving(there, [flow], **FAST) as worker,
    ):
        await front.submit(flow, run_id="run")
        await until(status_is(here, "run", "waiting"))
        assert await front.get("run") is None
        assert await worker.get("unknown") is None
        run = await worker.get("run")
        assert run is not None
        assert await worker.get("run") is run
        events = run.stream()
        await front.send("run", Approved("ann"))
        assert [event async for event in events] == [Approved("ann"), StopEvent("ann")]
        assert await run.result() == "ann"
        assert await worker.get("run") is None
        with pytest.raises(ValueError, match="run_id="):
            await worker.get("")


async def test_getting_the_handle_of_a_parked_run_keeps_it_in_memory(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store, serving(store, idle_after=1) as worker:
        await worker.submit("delays", 3600, run_id="run")

        async def rests() -> bool:
            return worker.statistics().resting == 1

        await until(rests)
        run = await worker.get("run")
        assert run is not None
        await trio.sleep(30)
        assert (worker.statistics().driving, worker.statistics().left) == (1, 0)
        assert await worker.get("run") is run
        assert await run.result() == "late"
