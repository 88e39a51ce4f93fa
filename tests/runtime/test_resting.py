"""Waiting runs are parked without a task, dispatcher or slot, and resume unchanged."""

from __future__ import annotations

import contextvars
import gc
from typing import Any

import attrs
import pytest
import trio

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputResponseEvent,
    RunStatus,
    StartEvent,
    StopEvent,
    Workflow,
    open_runtime,
    step,
)
from blazen_trio._dispatch.core import RunCore
from tests.runtime.flows import ALL, Approved, approvals, asks, delays, until

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


@attrs.frozen
class Go(Event):
    pass


@step
async def wait(_ev: StartEvent) -> None:
    pass


@step
async def go(_ev: Go) -> StopEvent:
    return StopEvent(WHO.get())


goes = Workflow("goes", [wait, go], external=[Go], history=True)


def parked(runtime: Any, count: int = 1) -> Any:
    async def look() -> bool:
        await trio.lowlevel.checkpoint()
        return runtime.statistics().resting == count

    return look


async def test_a_parked_run_has_no_task_and_no_dispatcher(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store, open_runtime(store, ALL) as runtime:
        before = trio.lowlevel.current_statistics().tasks_living
        gc.collect()
        gc.disable()
        try:
            runs = [await runtime.start(approvals, 1) for _ in range(20)]
            await until(parked(runtime, 20))
            assert trio.lowlevel.current_statistics().tasks_living == before
            # The cores are freed, and not by the garbage collector.
            ids = {run.run_id for run in runs}
            assert [
                one for one in gc.get_objects() if type(one) is RunCore and one.state.run_id in ids
            ] == []
        finally:
            gc.enable()
        assert {run.status for run in runs} == {RunStatus.WAITING}
        assert runtime.statistics().resting == 20  # reading the status does not wake a run
        for run in runs:
            await run.send(Approved("ann"))
        assert [await run.result() for run in runs] == [["ann"]] * 20


async def test_messages_for_parked_runs_are_taken_by_the_next_poll(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with (
        opened_in_memory() as store,
        open_runtime(store) as front,
        open_runtime(store, [goes], poll_interval=0.5) as runtime,
    ):
        runs = [await runtime.start(goes) for _ in range(20)]
        await until(parked(runtime, 20))
        sent = trio.current_time()
        for run in runs:
            assert await front.send(run.run_id, Go())
        for run in runs:
            assert await run.result() == "nobody"
        assert trio.current_time() - sent <= 0.5
        assert runtime.statistics().mail == 20


@pytest.mark.parametrize("flow", [approvals, asks, delays])
async def test_waiting_runs_hold_no_slot(
    opened_in_memory: Any, autojump_clock: Any, flow: Workflow
) -> None:
    async with (
        opened_in_memory() as store,
        open_runtime(store, ALL, max_concurrent_runs=2) as runtime,
    ):
        with trio.fail_after(5):
            runs = [await runtime.start(flow, 100) for _ in range(10)]
        await until(parked(runtime, 10))
        assert runtime.statistics().free_slots == 2
        assert runtime.statistics().driving == 10
        for run in runs:
            run.cancel()


async def test_paused_runs_hold_no_slot_and_get_one_when_they_are_unpaused(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    at_work = most = 0

    @step
    async def work(ev: StartEvent) -> Delayed[Go] | StopEvent:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await trio.sleep(1)
        at_work -= 1
        return Delayed(Go(), 100) if ev.data else StopEvent("done")

    @step
    async def end(_ev: Go) -> StopEvent:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await trio.sleep(1)
        at_work -= 1
        return StopEvent("done")

    flow = Workflow("flow", [work, end])
    async with (
        opened_in_memory() as store,
        open_runtime(store, [flow], max_concurrent_runs=2) as runtime,
    ):
        paused = await runtime.start(flow, 1)
        await paused.pause()
        assert runtime.statistics().free_slots == 2
        runs = [await runtime.start(flow, 1) for _ in range(6)]
        await paused.unpause()
        assert {await run.result() for run in [paused, *runs]} == {"done"}
        assert most == 2


async def test_acting_on_a_parked_run_wakes_it(opened: Any) -> None:
    async with opened() as store, open_runtime(store, [goes]) as runtime:
        run = await runtime.start(goes)
        for act in ("snapshot", "pause", "unpause", "stream"):
            await until(parked(runtime))
            if act == "snapshot":
                assert (await run.snapshot()).status is RunStatus.WAITING
            elif act == "pause":
                assert (await run.pause()).status is RunStatus.PAUSED
                await run.unpause()
            elif act == "stream":
                stream = run.stream()
                await run.send(Go())
                assert [type(event) async for event in stream] == [StopEvent]
        assert await run.result() == "nobody"
        kinds = [record.kind for record in await store.history(run.run_id)]
        assert kinds == [record.kind for record in run.history()]
        assert kinds.count("workflow_resumed") == 1  # by unpause


async def test_every_step_runs_in_the_context_of_the_start(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store, open_runtime(store, [goes]) as runtime:
        WHO.set("ann")
        run_id = (await runtime.start(goes)).run_id
        WHO.set("bob")
        await until(parked(runtime))
        await runtime.send(run_id, Go())
        assert await runtime.result(run_id) == "ann"


async def test_a_question_is_asked_once(opened_in_memory: Any, autojump_clock: Any) -> None:
    @step
    async def ask(_ev: StartEvent) -> tuple[InputRequestEvent, InputRequestEvent]:
        return InputRequestEvent("one?"), InputRequestEvent("two?")

    @step
    async def answered(ev: InputResponseEvent, ctx: Context) -> StopEvent | None:
        answers = [*ctx.get("answers", []), ev.response]
        ctx.set("answers", answers)
        return StopEvent(answers) if len(answers) == 2 else None

    flow = Workflow("flow", [ask, answered], history=True)
    async with opened_in_memory() as store, open_runtime(store, [flow]) as runtime:
        run = await runtime.start(flow)
        await until(parked(runtime))
        one, two = run.input_requests
        await runtime.respond(run.run_id, InputResponseEvent(one.request_id, 1))
        await until(parked(runtime))
        await runtime.respond(run.run_id, InputResponseEvent(two.request_id, 2))
        assert await run.result() == [1, 2]
        assert [record.kind for record in run.history()].count("input_requested") == 2


async def test_the_end_of_the_block_waits_only_for_due_times(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store:
        async with open_runtime(store, ALL) as runtime:
            await runtime.start(delays, 3600, run_id="due")
            await runtime.start(approvals, 1, run_id="sent")
            await runtime.start(asks, "sure", run_id="asked")
            await until(parked(runtime, 3))
            began = trio.current_time()
        assert 3590 < trio.current_time() - began < 3610
        statuses = {info.run_id: info.status.value for info in await store.list_runs()}
        assert statuses == {"due": "completed", "sent": "waiting", "asked": "waiting"}
        # They were released, so other processes can resume them.
        async with approvals.resume_from("sent", store=store) as run:
            await run.send(Approved("ann"))
            assert await run.result() == ["ann"]


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_parked_runs_are_released_however_the_block_ends(
    opened_in_memory: Any, autojump_clock: Any, how: str
) -> None:
    async with opened_in_memory() as store:
        with trio.CancelScope() as scope:
            try:
                async with open_runtime(store, ALL) as runtime:
                    await runtime.start(delays, 3600, run_id="due")
                    await until(parked(runtime))
                    if how == "error":
                        raise KeyError(how)
                    scope.cancel()
            except KeyError:
                pass
        async with open_runtime(store, ALL) as other:
            assert await other.recover() == []  # it is not due yet
            await trio.sleep(3600)
            assert await other.recover() == ["due"]
            assert await other.result("due") == "late"


async def test_a_parked_run_is_left_to_others_only_if_its_process_serves_and_no_handle_is_held(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store, open_runtime(store, ALL, idle_after=60) as runtime:
        held = await runtime.start(approvals, 1, run_id="held")
        await runtime.start(approvals, 1, run_id="loose")
        await trio.sleep(600)
        assert runtime.statistics().resting == 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.serve)
            await trio.sleep(600)
            assert (runtime.statistics().resting, runtime.statistics().left) == (1, 1)
            nursery.cancel_scope.cancel()
        await held.send(Approved("ann"))
        assert await held.result() == ["ann"]


@pytest.mark.parametrize("turns", range(12))
async def test_a_run_stays_available_here_while_it_is_being_parked(
    opened_in_memory: Any, autojump_clock: Any, turns: int
) -> None:
    async with opened_in_memory() as store, open_runtime(store, ALL) as runtime:
        run = await runtime.start(approvals, 1)
        await _wait_until_waiting(run, turns)
        assert await runtime.get(run.run_id) is run
        assert await runtime.get(run.run_id) is run
        run.cancel()


@pytest.mark.parametrize("turns", range(12))
async def test_a_block_can_end_at_any_moment_while_a_run_is_being_parked(
    opened_in_memory: Any, autojump_clock: Any, turns: int
) -> None:
    async with opened_in_memory() as store:
        with trio.fail_after(60):
            async with open_runtime(store, ALL) as runtime:
                run = await runtime.start(approvals, 1)
                await _wait_until_waiting(run, turns)
        # It was released.
        async with approvals.resume_from(run.run_id, store=store) as resumed:
            await resumed.send(Approved("ann"))
            assert await resumed.result() == ["ann"]


async def _wait_until_waiting(run: Any, turns: int) -> None:
    """Wait until the run waits, and then for this many turns of the event loop."""
    while run.status is not RunStatus.WAITING:
        await trio.lowlevel.checkpoint()
    for _ in range(turns):
        await trio.lowlevel.checkpoint()


async def test_a_run_with_a_message_for_a_later_version_is_not_parked(
    opened_in_memory: Any, autojump_clock: Any
) -> None:
    async with opened_in_memory() as store, open_runtime(store, [goes]) as runtime:
        run = await runtime.start(goes)
        await until(parked(runtime))
        await store.post(run.run_id, "of a later version", b"")
        await trio.sleep(30)
        assert runtime.statistics().resting == 0
        await run.send(Go())
        await run.result()
        rejected = [
            each.error for each in await store.history(run.run_id) if each.kind == "event_rejected"
        ]
        assert len(rejected) == 1
        assert "'of a later version'" in str(rejected[0])
