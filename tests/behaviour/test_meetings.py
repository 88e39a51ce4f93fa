"""Pauses, questions and senders that coincide."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    Delayed,
    InputRequestEvent,
    InputRequiredError,
    InputResponseEvent,
    MemoryStore,
    RetryPolicy,
    RunCancelledError,
    RunStatus,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    step,
)
from tests.behaviour.events import A, B


@step
async def ask(ev: StartEvent) -> InputRequestEvent:
    return InputRequestEvent("a", request_id="q")


@step
async def take(ev: InputResponseEvent) -> StopEvent | None:
    return StopEvent(ev.response)


async def test_a_timer_due_during_a_pauses_grace_does_not_busy_loop(
    autojump_clock: trio.testing.MockClock,
) -> None:
    looks = 0

    @step
    async def begin(ev: StartEvent) -> tuple[A, Delayed[B]]:
        return A(), Delayed(B(), 5)

    @step
    async def slow(ev: A) -> None:
        nonlocal looks
        await trio.sleep(8)
        for looks in range(1000):  # noqa: B007
            await trio.lowlevel.checkpoint()

    @step
    async def end(ev: B) -> StopEvent:
        return StopEvent("end")

    async with Workflow("w", [begin, slow, end]).run() as run:
        await trio.sleep(1)
        instrument = Schedules()
        trio.lowlevel.add_instrument(instrument)
        snapshot = await run.pause()
        trio.lowlevel.remove_instrument(instrument)
        assert looks == 999
        assert instrument.count < 1100
        assert not snapshot.deliveries
        await run.unpause()
        assert await run.result() == "end"


class Schedules(trio.abc.Instrument):
    """An instrument that counts how often tasks are scheduled."""

    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_an_answer_sent_twice_with_one_key_is_taken_once() -> None:
    @step
    async def ask(ev: StartEvent) -> tuple[InputRequestEvent, InputRequestEvent]:
        return InputRequestEvent("a", request_id="q"), InputRequestEvent("b", request_id="r")

    @step
    async def take(ev: InputResponseEvent, ctx: Context) -> StopEvent | None:
        return StopEvent("end") if ev.request_id == "r" else None

    async with Workflow("w", [ask, take]).run(store=MemoryStore()) as run:
        with pytest.raises(InputRequiredError):
            await run.result()
        assert await run.send(InputResponseEvent("q", 1), key="k")
        assert not await run.send(InputResponseEvent("q", 1), key="k")
        await run.respond(InputResponseEvent("r", 1))
        await run.result()


async def test_an_input_handler_may_answer_while_the_run_is_paused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(request: InputRequestEvent) -> Any:
        await trio.sleep(5)
        return "x"

    async with Workflow("w", [ask, take], input_handler=handler).run(store=MemoryStore()) as run:
        await trio.sleep(1)
        await run.pause()
        await trio.sleep(10)
        assert not run.input_requests
        await run.unpause()
        assert await run.result() == "x"


async def test_an_input_handler_that_fails_while_the_run_is_paused_fails_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(request: InputRequestEvent) -> Any:
        await trio.sleep(5)
        raise OSError("x")

    with trio.fail_after(1000):
        async with Workflow("w", [ask, take], input_handler=handler).run(
            store=MemoryStore()
        ) as run:
            await trio.sleep(1)
            await run.pause()
            await trio.sleep(10)
            assert run.status is RunStatus.FAILED
            with pytest.raises(StepFailedError):
                await run.result()


async def test_a_run_that_is_paused_or_parked_can_be_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for how in ("pause", "park"):
        async with Workflow("w", [ask, take]).run() as run:
            if how == "pause":
                await run.pause()
            else:
                with pytest.raises(InputRequiredError):
                    await run.result()
            run.cancel()
            with pytest.raises(RunCancelledError):
                await run.result()


async def test_a_step_may_time_out_during_a_pauses_grace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    attempts = []

    @step(timeout=5, retry=RetryPolicy(max_attempts=2, jitter=0))
    async def slow(ev: StartEvent, ctx: Context) -> StopEvent:
        attempts.append(ctx.attempt)
        await trio.sleep(100 if ctx.attempt == 1 else 1)
        return StopEvent("x")

    async with Workflow("w", [slow], timeout=100).run() as run:
        await trio.sleep(1)
        snap = await run.pause(grace=60)
        assert trio.current_time() < 10
        assert snap.deliveries[0].attempt == 2
        await run.unpause()
        assert await run.result() == "x"


async def test_a_run_may_fail_while_its_snapshot_is_taken(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr("blazen_trio._concurrency._SLICE", -1.0)

    async def handler(request: InputRequestEvent) -> Any:
        await gate.wait()
        raise OSError("x")

    gate = trio.Event()

    @step(name="ask")
    async def ask_much(ev: StartEvent, ctx: Context) -> InputRequestEvent:
        for n in range(200):
            ctx.set(f"k{n}", n)
        return InputRequestEvent("a", request_id="q")

    store = MemoryStore()
    with pytest.raises(StepFailedError):
        async with Workflow("w", [ask_much, take], input_handler=handler).run(
            store=store, run_id="r", durability="exit"
        ) as run:
            await trio.sleep(1)
            async with trio.open_nursery() as n:
                n.start_soon(run.snapshot)
                for _ in range(5):
                    await trio.lowlevel.checkpoint()
                gate.set()
    snap = await store.load_snapshot("r")
    info = await store.get_run("r")
    assert snap.status is info.status
