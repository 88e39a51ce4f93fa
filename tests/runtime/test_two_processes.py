"""A process without steps and one with steps act on the same runs."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from blazen_trio import (
    DynamicEvent,
    Event,
    InputRequiredError,
    InputResponseError,
    InputResponseEvent,
    NoHandlerError,
    RunCancelledError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    RunPausedError,
    RunStatus,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    open_runtime,
    step,
)
from tests.runtime.flows import (
    ALL,
    Approved,
    approvals,
    asks,
    fails,
    serving,
    status_is,
    ticks,
    until,
)

FAST: Any = {"poll_interval": 0.05}


async def test_a_process_without_steps_submits_and_gets_the_result(opened: Any) -> None:
    async with (
        opened() as here,
        opened() as there,
        serving(there, **FAST),
        open_runtime(here, **FAST) as front,
    ):
        run_id = await front.submit("ticks", 3)
        assert await front.result(run_id) == 4
        assert (await here.get_run(run_id)).status is RunStatus.COMPLETED
        assert await front.result(run_id) == 4


async def test_a_submitted_run_is_queued_until_a_runtime_takes_it(opened: Any) -> None:
    async with opened() as store:
        async with open_runtime(store, **FAST) as front:
            await front.submit("ticks", 3, run_id="run", metadata={"customer": 7})
            info = await store.get_run("run")
            assert (info.status, info.workflow, info.version) == (RunStatus.QUEUED, "ticks", "")
            snapshot = await store.load_snapshot("run")
            assert snapshot.status is RunStatus.QUEUED
            with pytest.raises(RunExistsError):
                await front.submit("ticks", 3, run_id="run")
        async with open_runtime(store, ALL, **FAST) as runtime:
            assert await runtime.recover() == ["run"]
            assert await runtime.result("run") == 4
        info = await store.get_run("run")
        assert (info.status, info.version) == (RunStatus.COMPLETED, "1")
        kinds = [record.kind for record in await store.history("run")]
        assert kinds == ["workflow_started", "workflow_completed"]


async def test_a_queued_run_is_resumed_by_its_id(opened: Any) -> None:
    async with opened() as store:
        async with open_runtime(store) as front:
            await front.submit(ticks, 2, run_id="run")
        assert await ticks.resume_from("run", store=store) == 3


async def test_a_question_is_answered_from_another_process(opened: Any) -> None:
    async with (
        opened() as here,
        opened() as there,
        serving(there, **FAST),
        open_runtime(here, **FAST) as front,
    ):
        run_id = await front.submit("asks", "sure")
        with pytest.raises(InputRequiredError, match=r"sure\?") as caught:
            await front.result(run_id)
        assert caught.value.request.prompt == "sure?"
        with pytest.raises(InputResponseError, match="unknown"):
            await front.respond(run_id, InputResponseEvent("other", 1))
        await front.respond(run_id, "yes")
        assert await front.result(run_id) == "yes"
        with pytest.raises(RunFinishedError):
            await front.respond(run_id, "again")


async def test_an_answer_is_accepted_once(opened: Any) -> None:
    async with opened() as store:
        async with open_runtime(store, [asks], **FAST) as runtime:
            await runtime.submit(asks, "sure", run_id="run")
            await runtime.recover()
            await until(status_is(store, "run", "waiting"))
        async with open_runtime(store, **FAST) as front:
            await front.respond("run", "yes")
            with pytest.raises(InputResponseError, match="0 open questions"):
                await front.respond("run", "no")
            async with serving(store, **FAST):
                assert await front.result("run") == "yes"


async def test_events_can_be_sent_to_a_run_that_any_process_or_none_drives(opened: Any) -> None:
    async with opened() as here, opened() as there, open_runtime(here, **FAST) as front:
        run_id = await front.submit("approvals", 3)
        assert await front.send(run_id, Approved("queued"), key="first")
        async with serving(there, idle_after=0.1, **FAST) as worker:
            await until(status_is(here, run_id, "waiting"))
            assert await worker.send(run_id, Approved("by the worker"))
            assert not await worker.send(run_id, Approved("twice"), key="first")
            assert not await front.send(run_id, Approved("twice"), key="first")
            with pytest.raises(NoHandlerError, match="accepts StopEvent"):
                await worker.send(run_id, StopEvent())
            await until(status_is(here, run_id, "waiting"))
            assert await front.send(
                run_id, DynamicEvent("Approved", {"by": "from afar"}), key="third"
            )
            assert await front.result(run_id) == ["queued", "by the worker", "from afar"]
            with pytest.raises(RunFinishedError):
                await front.send(run_id, Approved("too late"))
            with pytest.raises(RunNotFoundError):
                await front.send("unknown", Approved("x"))


async def test_an_event_that_no_step_accepts_is_recorded_as_rejected(opened: Any) -> None:
    @attrs.frozen
    class Unknown(Event):
        pass

    async with (
        opened() as here,
        opened() as there,
        serving(there, **FAST),
        open_runtime(here, **FAST) as front,
    ):
        run_id = await front.submit("approvals", 1)
        await front.send(run_id, Unknown())
        await front.send(run_id, Approved("ann"))
        assert await front.result(run_id) == ["ann"]
        assert "event_rejected" in [record.kind for record in await here.history(run_id)]


@pytest.mark.parametrize("driven", [True, False])
async def test_a_run_is_cancelled_from_another_process(opened: Any, driven: bool) -> None:
    async with opened() as here, opened() as there, open_runtime(here, **FAST) as front:
        await front.submit("approvals", 1, run_id="run")
        async with serving(there, **FAST):
            await until(status_is(here, "run", "waiting"))
            if driven:
                await front.cancel("run", "enough")
                with pytest.raises(RunCancelledError, match="enough"):
                    await front.result("run")
        if not driven:
            await front.cancel("run", "enough")
            assert (await here.get_run("run")).status is RunStatus.CANCELLED
        with pytest.raises(RunCancelledError, match="enough") as caught:
            await front.result("run")
        assert caught.value.reason == "enough"
        await front.cancel("run", "again")
        with pytest.raises(RunFinishedError):
            await front.send("run", Approved("x"))
        assert [record.kind for record in await here.history("run")][-1] == "workflow_cancelled"
        async with open_runtime(there, [approvals], **FAST) as runtime:
            run = await runtime.resume_from("run")
            await run.send(Approved("ann"))
            assert await run.result() == ["ann"]


async def test_a_cancellation_that_a_former_driver_missed_is_not_repeated(
    opened_in_sqlite: Any,
) -> None:
    opened = opened_in_sqlite
    async with opened() as here, open_runtime(here, [approvals], **FAST) as front:
        async with opened() as there, open_runtime(there, [approvals], poll_interval=60) as deaf:
            await deaf.start(approvals, 1, run_id="run")
            await until(status_is(here, "run", "waiting"))
            await front.cancel("run")
        assert (await here.get_run("run")).status is RunStatus.WAITING
        await front.cancel("run")
        run = await front.resume_from("run")
        await run.send(Approved("ann"))
        assert await run.result() == ["ann"]


async def test_a_queued_run_is_cancelled_and_paused(opened: Any) -> None:
    async with opened() as store, open_runtime(store, ALL, **FAST) as runtime:
        await runtime.submit("ticks", 1, run_id="cancelled")
        await runtime.cancel("cancelled")
        await runtime.submit("ticks", 1, run_id="paused")
        assert (await runtime.pause("paused")).status is RunStatus.PAUSED
        assert await runtime.recover() == []
        with pytest.raises(RunPausedError):
            await runtime.result("paused")
        assert await (await runtime.resume_from("paused")).result() == 2
        assert await (await runtime.resume_from("cancelled")).result() == 2


async def test_a_run_is_paused_from_another_process(opened: Any) -> None:
    async with (
        opened() as here,
        opened() as there,
        open_runtime(here, ALL, **FAST) as front,
        serving(there, **FAST),
    ):
        await front.submit(ticks, 100, run_id="run")
        await until(status_is(here, "run", "running"))
        snapshot = await front.pause("run")
        assert snapshot.status is RunStatus.PAUSED
        assert (await front.pause("run")).seq == snapshot.seq
        with pytest.raises(RunPausedError):
            await front.result("run")
        await trio.sleep(0.3)
        assert (await here.get_run("run")).status is RunStatus.PAUSED
        run = await front.resume_from("run")
        assert await run.result() == 101
        with pytest.raises(RunFinishedError):
            await front.pause("run")


async def test_an_input_that_the_workflow_does_not_start_with_fails_the_run(opened: Any) -> None:
    @attrs.frozen
    class Order(Event):
        number: int

    @step
    async def take(ev: Order) -> StopEvent:
        return StopEvent(ev.number)

    orders = Workflow("orders", [take])
    async with opened() as store, serving(store, [orders], **FAST) as runtime:
        with pytest.raises(NoHandlerError):
            await runtime.submit(orders, "plain")
        async with open_runtime(store, **FAST) as front:
            run_id = await front.submit("orders", "plain")
            with pytest.raises(NoHandlerError, match="starts with Order"):
                await front.result(run_id)
            assert (await store.get_run(run_id)).status is RunStatus.FAILED
            assert await front.result(await front.submit("orders", Order(7))) == 7
            assert (
                await front.result(
                    await front.submit("orders", DynamicEvent("Order", {"number": 8}))
                )
                == 8
            )


async def test_a_failure_is_raised_where_another_process_waits_for_the_result(opened: Any) -> None:
    async with (
        opened() as here,
        opened() as there,
        serving(there, **FAST),
        open_runtime(here, **FAST) as front,
    ):
        run_id = await front.submit("ticks", "not a number")
        with pytest.raises(StepFailedError) as caught:
            await front.result(run_id)
        assert (caught.value.step_name, caught.value.run_id) == ("begin", run_id)
        with pytest.raises(RunNotFoundError):
            await front.result("unknown")


async def test_a_retry_outlives_its_process(opened_in_memory: Any, autojump_clock: Any) -> None:
    async with opened_in_memory() as store, open_runtime(store) as front:
        run_id = await front.submit("fails", 2)
        async with serving(store):
            await until(status_is(store, run_id, "waiting"))
        async with serving(store):
            assert await front.result(run_id) == 3
        assert fails.name == "fails"


async def test_a_workflow_can_start_with_its_own_start_event(opened: Any) -> None:
    @attrs.frozen
    class Begin(StartEvent):
        pass

    @step
    async def only(ev: Begin) -> StopEvent:
        return StopEvent(ev.data)

    async with opened() as store, serving(store, [Workflow("own", [only])], **FAST) as runtime:
        assert await runtime.result(await runtime.submit("own", Begin(5))) == 5
