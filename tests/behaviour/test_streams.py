"""The stream, the lifecycle events and the history of a run."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from blazen_trio import (
    Context,
    HistoryRecord,
    InputRequestEvent,
    InputResponseEvent,
    Lagged,
    LifecycleEvent,
    MemoryStore,
    RetryPolicy,
    RunCancelledError,
    StartEvent,
    StepFailedError,
    StopEvent,
    Workflow,
    step,
)
from tests.behaviour.events import A


@step
async def publishes(ev: StartEvent, ctx: Context) -> StopEvent:
    for n in range(ev.data):
        ctx.publish(A(n))
    await trio.lowlevel.checkpoint()
    return StopEvent("end")


WORKFLOW = Workflow("publishes", [publishes])


async def collected(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def test_two_streams_each_get_every_event() -> None:
    """A stream created before the first checkpoint of the block misses nothing."""
    seen = []

    async def watch(stream: Any) -> None:
        seen.append(await collected(stream))

    async with WORKFLOW.run(3) as run, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(watch, run.stream())
    assert seen == [[A(0), A(1), A(2), StopEvent("end")]] * 2


async def test_a_stream_that_falls_behind_reports_the_missed_events() -> None:
    async with WORKFLOW.run(10) as run:
        stream = run.stream(buffer=4)
        await run.result()
        # The oldest are gone, what is left is the newest, and the end comes last.
        assert await collected(stream) == [Lagged(7), A(7), A(8), A(9), StopEvent("end")]


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_the_stream_ends_however_the_run_does(how: str, autojump_clock: Any) -> None:

    @step
    async def shows(ev: StartEvent, ctx: Context) -> StopEvent:
        ctx.publish(A(1))
        await trio.sleep(5)
        raise OSError("broken")

    with pytest.raises((StepFailedError, RunCancelledError)):
        async with Workflow("ends", [shows]).run() as run:
            async with run.stream() as stream:
                assert await stream.__anext__() == A(1)
                if how == "is cancelled":
                    run.cancel()
                assert await collected(stream) == []
            await run.result()


async def test_a_closed_stream_gets_nothing_more() -> None:
    async with WORKFLOW.run(2) as run:
        stream = run.stream()
        stream.close()
        assert await collected(stream) == []


async def test_a_sync_step_publishes_sends_and_collects() -> None:

    @step
    def threaded(ev: StartEvent, ctx: Context) -> A | None:
        ctx.publish(A(0))
        ctx.send(A(1))
        ctx.send(A(2))
        ctx.set("key", ctx.attempt)
        return None

    @step
    def gathers(ev: A, ctx: Context) -> StopEvent | None:
        found = ctx.collect(ev, [A, A])
        numbers: Any = found
        return StopEvent([*sorted(one.n for one in numbers), ctx.get("key")]) if found else None

    async with Workflow("threads", [threaded, gathers]).run() as run:
        assert await collected(run.stream()) == [A(0), StopEvent([1, 2, 1])]


async def test_lifecycle_events() -> None:

    @step
    async def begin(ev: StartEvent) -> A:
        return A(1)

    @step
    async def end(ev: A) -> StopEvent:
        return StopEvent("end")

    async with Workflow("life", [begin, end], publish_lifecycle=True).run() as run:
        events = await collected(run.stream())
    told = [(event.kind, event.step) for event in events if isinstance(event, LifecycleEvent)]
    assert told == [
        ("workflow_started", None),
        ("step_dispatched", "begin"),
        ("step_completed", "begin"),
        ("event_received", "begin"),
        ("step_dispatched", "end"),
        ("step_completed", "end"),
        ("workflow_completed", "end"),
    ]
    completed = [
        event
        for event in events
        if isinstance(event, LifecycleEvent) and event.kind == "step_completed"
    ]
    assert all(event.duration is not None and event.duration >= 0 for event in completed)


def kinds(history: list[HistoryRecord]) -> list[str]:
    return [record.kind for record in history]


async def test_history_continues_after_a_crash(autojump_clock: Any) -> None:
    @step(retry=RetryPolicy(max_attempts=2, jitter=0))
    async def begin(ev: StartEvent, ctx: Context) -> InputRequestEvent:
        if ctx.attempt == 1:
            raise OSError("once")
        return InputRequestEvent("?", request_id="q")

    @step
    async def end(ev: InputResponseEvent) -> StopEvent:
        return StopEvent(ev.response)

    store = MemoryStore()
    workflow = Workflow("history", [begin, end], history=True)
    with trio.CancelScope() as scope:
        async with workflow.run(store=store, run_id="run") as run:
            while not run.input_requests:  # noqa: ASYNC110
                await trio.sleep(1)
            await run.pause()
            await run.unpause()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    async with workflow.resume_from("run", store=store) as run:
        await run.respond("yes")
        await run.result()
        history = run.history()
    assert history == await store.history("run")
    assert [record.sequence for record in history] == list(range(1, len(history) + 1))
    wanted = [
        "workflow_started",
        "step_dispatched",
        "step_failed",
        "step_retried",
        "step_dispatched",
        "step_completed",
        "input_requested",
        "workflow_paused",
        "workflow_resumed",
        "input_received",
        "step_dispatched",
        "step_completed",
        "workflow_completed",
    ]
    told = kinds(history)
    assert [kind for kind in wanted if kind not in told] == []
    assert told.index("workflow_started") == 0
    assert told[-1] == "workflow_completed"
    failed = next(record for record in history if record.kind == "step_failed")
    assert (failed.step, failed.event_type, failed.error) == (
        "begin",
        "StartEvent",
        "OSError: once",
    )


async def test_without_history_the_start_the_end_and_failures_are_recorded() -> None:
    store = MemoryStore()

    @step
    async def broken(ev: StartEvent) -> StopEvent:
        raise OSError("broken")

    await WORKFLOW.run(1, store=store, run_id="good")
    assert kinds(await store.history("good")) == ["workflow_started", "workflow_completed"]
    with pytest.raises(StepFailedError):
        await Workflow("broken", [broken]).run(store=store, run_id="bad")
    assert kinds(await store.history("bad")) == [
        "workflow_started",
        "step_failed",
        "workflow_failed",
    ]
