"""Runs that a runtime starts: their slots, their context, and the end of the runtime's block."""

from __future__ import annotations

import contextvars
import gc
from typing import Any

import pytest
import trio

from blazen_trio import (
    InputRequiredError,
    MemoryStore,
    RunExistsError,
    RunLockedError,
    RunStatus,
    SerializationError,
    StartEvent,
    StepFailedError,
    StopEvent,
    StoreError,
    Workflow,
    open_runtime,
    step,
)
from blazen_trio.testing import FaultyStore
from tests.runtime.flows import (
    ALL,
    Approved,
    approvals,
    asks,
    begin,
    delays,
    serving,
    status_is,
    tick,
    ticks,
    until,
)

FAST: Any = {"poll_interval": 0.05}


async def test_a_started_run_is_stored_and_driven_here(opened: Any) -> None:
    async with opened() as store, open_runtime(store, ALL) as runtime:
        run = await runtime.start(ticks, 5, run_id="run", metadata={"customer": 7})
        assert (await store.get_run("run")).status is RunStatus.RUNNING
        assert runtime.statistics().driving == 1
        assert await run.result() == 6
        assert await runtime.result("run") == 6
        with pytest.raises(RunExistsError):
            await runtime.start("ticks", 5, run_id="run")
        with pytest.raises(ValueError, match="no workflow 'unknown'"):
            await runtime.start("unknown", 5)


async def test_a_runtime_starts_a_workflow_that_it_was_not_opened_with(opened: Any) -> None:
    async with opened() as store, open_runtime(store) as runtime:
        run = await runtime.start(ticks, 1)
        assert await runtime.result(run.run_id) == 2


async def test_the_end_of_the_block_waits_for_started_runs(opened: Any) -> None:
    async with opened() as store:
        async with open_runtime(store, ALL) as runtime:
            await runtime.start(ticks, 5, run_id="ends")
            await runtime.start(delays, 0.2, run_id="is delayed")
            await runtime.start(asks, "sure", run_id="waits")
            await runtime.start(ticks, "not a number", run_id="fails")
        found = {run.run_id: run.status.value for run in await store.list_runs()}
        assert found == {
            "ends": "completed",
            "is delayed": "completed",
            "waits": "waiting",
            "fails": "failed",
        }
        with pytest.raises(RuntimeError, match="closed"):
            await runtime.start(ticks, 1)
        assert (
            await asks.resume_with_input(await store.load_snapshot("waits"), "yes", store=store)
            == "yes"
        )


async def test_an_error_in_the_block_leaves_the_runs_resumable(opened: Any) -> None:
    async with opened() as store:
        with pytest.raises(ZeroDivisionError):
            async with open_runtime(store, ALL) as runtime:
                await runtime.start(ticks, 1000, run_id="run")
                await trio.sleep(0.1)
                raise ZeroDivisionError
        assert (await store.get_run("run")).status is RunStatus.RUNNING
        async with open_runtime(store, [ticks]) as runtime:
            assert await runtime.recover() == ["run"]
            assert runtime.statistics().taken == 1
            await runtime.cancel("run")
        assert (await store.get_run("run")).status is RunStatus.CANCELLED


async def test_an_outer_cancellation_leaves_the_runs_resumable(opened: Any) -> None:
    async with opened() as store:
        with trio.move_on_after(0.2) as scope:
            async with serving(store, **FAST) as runtime:
                await runtime.submit(ticks, 1000, run_id="run")
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert (await store.get_run("run")).status is RunStatus.RUNNING
        assert (await store.load_snapshot("run")).seq > 3
        async with open_runtime(store, [ticks]) as runtime:
            assert await runtime.recover() == ["run"]
            await runtime.cancel("run")


async def test_a_failing_run_does_not_affect_others(opened: Any) -> None:
    async with opened() as store, open_runtime(store, ALL) as runtime:
        failing = await runtime.start(ticks, "not a number")
        good = await runtime.start(ticks, 1)
        with pytest.raises(StepFailedError) as caught:
            await failing.result()
        assert isinstance(caught.value.__cause__, SerializationError)
        assert await good.result() == 2


async def test_start_waits_for_a_slot(opened_in_memory: Any, autojump_clock: Any) -> None:
    running = most = 0

    @step
    async def work(_ev: StartEvent) -> StopEvent:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return StopEvent()

    flow = Workflow("flow", [work])
    async with (
        opened_in_memory() as store,
        open_runtime(store, [flow], max_concurrent_runs=3) as runtime,
    ):
        began = trio.current_time()
        for _ in range(6):
            await runtime.start(flow)
        assert trio.current_time() - began == pytest.approx(1)
        with trio.move_on_after(0.5) as scope:
            await runtime.start(flow, run_id="refused")
        assert scope.cancelled_caught
        assert [run.run_id for run in await store.list_runs() if run.run_id == "refused"] == []
    assert most == 3


async def test_a_worker_takes_no_more_than_it_has_slots_for(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    order: list[int] = []
    running = most = 0

    @step
    async def work(ev: StartEvent) -> StopEvent:
        nonlocal running, most
        order.append(ev.data)
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return StopEvent()

    flow = Workflow("flow", [work])
    async with opened_in_memory() as store, open_runtime(store) as front:
        ids = [await front.submit(flow, number) for number in range(20)]
        async with serving(store, [flow], max_concurrent_runs=4) as worker:
            for run_id in ids:
                await front.result(run_id)
            assert worker.statistics().free_slots == 4
    assert most == 4
    assert sorted(order) == list(range(20))
    assert [number // 4 for number in order] == sorted(number // 4 for number in order)


async def test_a_run_has_a_copy_of_its_callers_context(opened: Any) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")

    @step
    async def look(_ev: StartEvent) -> StopEvent:
        seen = tenant.get()
        tenant.set("a step")
        return StopEvent(seen)

    flow = Workflow("flow", [look])
    async with opened() as store, open_runtime(store, [flow]) as runtime:
        tenant.set("ann")
        run = await runtime.start(flow)
        tenant.set("bob")
        assert await run.result() == "ann"
        assert tenant.get() == "bob"


async def test_a_run_that_is_driven_here_is_locked(opened: Any) -> None:
    async with opened() as store, open_runtime(store, ALL) as runtime:
        run = await runtime.start(approvals, 1, run_id="run")
        with pytest.raises(RunLockedError):
            await runtime.resume_from("run")
        with pytest.raises(RunLockedError):
            await approvals.resume_from("run", store=store)
        await runtime.send("run", Approved("ann"))
        assert await run.result() == ["ann"]
        assert await (await runtime.resume_from("run")).result() == ["ann"]


async def test_result_raises_for_a_question_and_returns_after_the_answer(opened: Any) -> None:
    async with opened() as store, open_runtime(store, ALL) as runtime:
        run = await runtime.start(asks, "sure", run_id="run")
        for asked in (run.result, lambda: runtime.result("run")):
            with pytest.raises(InputRequiredError):
                await asked()
        await runtime.respond("run", "yes")
        assert await runtime.result("run") == "yes"


async def test_cancel_waits_for_running_steps(opened_in_memory: Any, autojump_clock: Any) -> None:
    ended = False

    @step
    async def stubborn(_ev: StartEvent) -> StopEvent:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            ended = True

    flow = Workflow("flow", [stubborn])
    async with opened_in_memory() as store, open_runtime(store, [flow]) as runtime:
        await runtime.start(flow, run_id="run")
        await trio.sleep(1)
        await runtime.cancel("run")
        assert ended
        assert (await store.get_run("run")).status is RunStatus.CANCELLED


async def test_a_run_whose_store_failed_is_taken_again(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store:
        failed = False

        def fail_once(number: int) -> None:
            nonlocal failed
            if number == 4 and not failed:
                failed = True
                msg = "the disk is full"
                raise StoreError(msg)

        async with serving(FaultyStore(store, on_commit=fail_once), [ticks]) as worker:
            run_id = await worker.submit(ticks, 5)
            assert await worker.result(run_id) == 6
            assert failed
            assert worker.statistics().taken == 2


async def test_a_paused_run_leaves_memory_once_its_handle_is_gone(opened: Any) -> None:
    async with opened() as store, open_runtime(store, ALL, idle_after=0, **FAST) as runtime:
        run = await runtime.start(ticks, 1000, run_id="run")
        await run.pause()
        await trio.sleep(0.2)
        assert runtime.statistics().driving == 1
        del run
        gc.collect()

        async def left() -> bool:
            return runtime.statistics().driving == 0

        await until(left)
        run = await runtime.resume_from("run")
        await until(status_is(store, "run", "running"))
        run.cancel()


async def test_a_runtime_without_workflows_does_not_serve(opened: Any) -> None:
    async with opened() as store, open_runtime(store) as runtime:
        with pytest.raises(RuntimeError, match="nothing to serve"):
            await runtime.serve()


async def test_a_runtime_can_not_serve_twice_at_a_time(opened: Any) -> None:
    async with opened() as store, serving(store) as runtime:
        await trio.sleep(0.05)
        with pytest.raises(RuntimeError, match="serves already"):
            await runtime.serve()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_concurrent_runs": 0}, "max_concurrent_runs=0"),
        ({"max_crashes": "3"}, "max_crashes='3'"),
        ({"poll_interval": 0}, "poll_interval=0"),
        ({"idle_after": -1}, "idle_after=-1"),
        ({"drain_timeout": float("nan")}, "drain_timeout=nan"),
    ],
)
async def test_invalid_options_are_refused(
    opened_in_memory: Any, options: Any, message: str
) -> None:
    async with opened_in_memory() as store:
        with pytest.raises(ValueError, match=message):
            async with open_runtime(store, ALL, **options):
                pass


async def test_invalid_arguments_are_refused(opened_in_memory: Any) -> None:
    with pytest.raises(TypeError, match="is not a store"):
        async with open_runtime(None, ALL):  # type: ignore[arg-type]
            pass
    async with opened_in_memory() as store:
        with pytest.raises(ValueError, match="two workflows are named 'ticks'"):
            async with open_runtime(store, [ticks, Workflow("ticks", [begin, tick])]):
                pass
        async with open_runtime(store, ALL) as runtime:
            for call in (runtime.result, runtime.resume_from, runtime.cancel, runtime.pause):
                with pytest.raises(ValueError, match="run_id=7"):
                    await call(7)  # type: ignore[operator]
            with pytest.raises(ValueError, match="run_id=''"):
                await runtime.submit(ticks, 1, run_id="")
            with pytest.raises(TypeError, match="metadata=7"):
                await runtime.start(ticks, 1, metadata=7)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="takes an event"):
                await runtime.send("run", "event")  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="take part in a database transaction"):
                await runtime.submit(ticks, 1, connection=object())


async def test_a_run_that_is_stored_while_its_runtime_closes_can_be_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, stored, closed = MemoryStore(), trio.Event(), trio.Event()
    create = store.create

    async def create_slowly(*given: Any, **named: Any) -> Any:
        driver = await create(*given, **named)
        stored.set()
        await closed.wait()
        return driver

    monkeypatch.setattr(store, "create", create_slowly)

    async def start() -> None:
        with pytest.raises(RuntimeError, match=r"closed.*'run' is stored"):
            await runtime.start(ticks, 2, run_id="run")

    async with trio.open_nursery() as nursery:
        async with open_runtime(store) as runtime:
            nursery.start_soon(start)
            await stored.wait()
        closed.set()
    assert await ticks.resume_from("run", store=store) == 3
