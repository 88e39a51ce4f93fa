"""The spans of runs in one process."""

from __future__ import annotations

import time

import pytest
import trio.testing
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from blazen_trio import (
    Context,
    Delayed,
    Event,
    InputRequestEvent,
    InputRequiredError,
    MemoryStore,
    RunCancelledError,
    RunExistsError,
    RunTimeoutError,
    StartEvent,
    StepFailedError,
    StopEvent,
    StoreError,
    Workflow,
    step,
)
from blazen_trio.telemetry import uninstrument
from blazen_trio.testing import FaultyStore
from tests.telemetry.seen import Go, Seen, asks, parent_of, ticks, wobbles


def values_of(span: ReadableSpan, *names: str) -> tuple[object, ...]:
    return tuple(span.attributes[name] for name in names)


async def test_a_run_is_a_span_with_a_child_for_each_attempt(seen: Seen) -> None:
    assert await ticks.run(run_id="r") == "gone"
    run, steps = seen.span("workflow.run"), seen.spans("workflow.step")
    assert dict(run.attributes) == {"workflow_name": "ticks", "run_id": "r", "status": "completed"}
    assert [values_of(one, "step_name", "event_type", "attempt", "outcome") for one in steps] == [
        ("begin", "StartEvent", 1, "completed"),
        ("go", "Go", 1, "completed"),
    ]
    for one in steps:
        assert parent_of(one) == run.context.span_id
        assert values_of(one, "workflow_name", "run_id") == ("ticks", "r")
        assert one.attributes["duration_ms"] >= 0
    assert {span.status.status_code for span in seen.spans()} == {StatusCode.UNSET}


async def test_a_run_is_a_child_of_its_callers_span(seen: Seen) -> None:
    with seen.tracers.get_tracer("ours").start_as_current_span("request") as request:
        await ticks.run()
    assert parent_of(seen.span("workflow.run")) == request.get_span_context().span_id


async def test_each_attempt_is_a_span_and_a_failed_one_has_its_exception(
    autojump_clock, seen: Seen
) -> None:
    assert await wobbles.run(3) == 3
    attempts = seen.spans("workflow.step")
    assert [values_of(one, "attempt", "outcome") for one in attempts] == [
        (1, "retried"),
        (2, "retried"),
        (3, "completed"),
    ]
    assert [one.status.status_code for one in attempts] == [StatusCode.ERROR] * 2 + [
        StatusCode.UNSET
    ]
    assert attempts[0].status.description == "OSError: attempt 1"
    [event] = attempts[0].events
    assert event.attributes["exception.type"] == "builtins.OSError"
    assert event.attributes["exception.message"] == "attempt 1"
    assert "raise OSError" in event.attributes["exception.stacktrace"]
    # The wait for a retry is not an error.
    assert seen.span("workflow.run").status.status_code is StatusCode.UNSET


async def test_a_failed_run_has_its_exception(autojump_clock, seen: Seen) -> None:
    with pytest.raises(StepFailedError):
        await wobbles.run(9)
    assert [one.attributes["outcome"] for one in seen.spans("workflow.step")] == [
        "retried",
        "retried",
        "failed",
    ]
    run = seen.span("workflow.run")
    assert run.attributes["status"] == "failed"
    assert run.status.status_code is StatusCode.ERROR
    assert "step 'wobble'" in run.status.description
    [event] = run.events
    assert event.attributes["exception.type"] == "OSError"
    assert event.attributes["exception.message"].endswith("attempt 3")
    assert "raise OSError" in event.attributes["exception.stacktrace"]


async def test_an_exception_whose_message_can_not_be_shown_breaks_nothing(seen: Seen) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    @step
    async def fail(ev: StartEvent) -> StopEvent:
        raise MuteError if ev.data else ValueError("\udcff")

    for data in (True, False):
        with pytest.raises(StepFailedError):
            await Workflow("fails", [fail]).run(data)
    texts = [one.events[0].attributes["exception.message"] for one in seen.spans("workflow.step")]
    assert texts == ["(MuteError.__str__ failed: RuntimeError)", "\\udcff"]


async def test_a_timeout_is_an_error_but_the_attempt_that_it_cancels_is_not(
    autojump_clock, seen: Seen
) -> None:
    @step
    async def sleep(ev: StartEvent) -> StopEvent:
        await trio.sleep_forever()
        return StopEvent()

    with pytest.raises(RunTimeoutError):
        await Workflow("slow", [sleep], timeout=10).run()
    attempt, run = seen.span("workflow.step"), seen.span("workflow.run")
    assert (attempt.attributes["outcome"], attempt.status.status_code) == (
        "cancelled",
        StatusCode.UNSET,
    )
    assert (run.attributes["status"], run.status.status_code) == ("timed_out", StatusCode.ERROR)
    assert [event.attributes["exception.type"] for event in run.events] == ["RunTimeoutError"]


async def test_a_cancelled_run_is_not_an_error(seen: Seen) -> None:
    with pytest.raises(RunCancelledError):
        async with asks.run() as run:
            run.cancel("not needed")
            await run.result()
    span = seen.span("workflow.run")
    assert (span.attributes["status"], span.status.status_code) == ("cancelled", StatusCode.UNSET)


async def test_a_question_is_a_pause_and_not_an_error(seen: Seen) -> None:
    async with asks.run() as run:
        with pytest.raises(InputRequiredError) as waits:
            await run.result()
        await run.respond("yes")
        assert await run.result() == "yes"
    pause, span = seen.span("workflow.pause"), seen.span("workflow.run")
    assert (pause.attributes["pause_type"], pause.attributes["run_id"]) == ("input", run.run_id)
    assert parent_of(pause) == span.context.span_id
    assert pause.start_time <= pause.end_time
    assert span.status.status_code is StatusCode.UNSET
    # The same in a process that resumes the run: the pause lasts for the whole wait.
    since = time.time_ns()
    await trio.sleep(0.01)
    assert await asks.resume_with_input(waits.value.snapshot, "no") == "no"
    later = seen.spans("workflow.pause")[1]
    assert later.start_time < since < later.end_time
    assert later.context.trace_id == span.context.trace_id
    assert {one.status.status_code for one in seen.spans()} == {StatusCode.UNSET}


async def test_a_run_that_is_left_waiting_is_not_an_error(seen: Seen) -> None:
    with pytest.raises(InputRequiredError):
        await asks.run()
    run = seen.span("workflow.run")
    assert (run.attributes["status"], run.status.status_code) == ("waiting", StatusCode.UNSET)
    assert seen.spans("workflow.pause") == []  # the pause is not over


async def test_a_manual_pause_is_a_span(seen: Seen) -> None:
    @step
    async def wait(ev: StartEvent) -> Delayed[Go]:
        return Delayed(Go(), 0.05)

    @step
    async def stop(ev: Go) -> StopEvent:
        return StopEvent()

    async with Workflow("waits", [wait, stop]).run() as run:
        await run.pause()
        await run.unpause()
        await run.result()
    pause = seen.span("workflow.pause")
    assert pause.attributes["pause_type"] == "manual"
    assert seen.span("workflow.run").status.status_code is StatusCode.UNSET


async def test_a_delayed_event_is_neither_a_pause_nor_an_error(autojump_clock, seen: Seen) -> None:
    @step
    async def wait(ev: StartEvent) -> Delayed[Go]:
        return Delayed(Go(), 3600)

    @step
    async def stop(ev: Go) -> StopEvent:
        return StopEvent()

    await Workflow("waits", [wait, stop]).run()
    assert [span.name for span in seen.spans()] == [
        "workflow.step",
        "workflow.step",
        "workflow.run",
    ]
    assert {span.status.status_code for span in seen.spans()} == {StatusCode.UNSET}


async def test_a_step_that_is_rerun_for_a_conflict_is_two_attempts(seen: Seen) -> None:
    both = trio.Event()

    class Both(Event):
        pass

    class Done(Event):
        pass

    @step
    async def fan(ev: StartEvent) -> list[Both]:
        return [Both(), Both()]

    @step
    async def count(ev: Both, ctx: Context) -> Done:
        before = ctx.get("n", 0)
        if ctx.attempt == 1 and not both.is_set():
            both.set()
            await trio.testing.wait_all_tasks_blocked()
        ctx.set("n", before + 1)
        return Done()

    @step
    async def end(done: list[Done], ctx: Context) -> StopEvent:
        return StopEvent(ctx.get("n"))

    assert await Workflow("counts", [fan, count, end]).run() == 2
    counts = [one for one in seen.spans("workflow.step") if one.attributes["step_name"] == "count"]
    assert sorted(values_of(one, "attempt", "outcome") for one in counts) == [
        (1, "completed"),
        (1, "rerun"),
        (2, "completed"),
    ]


@pytest.mark.parametrize("kind", ["async", "with a context", "in a thread"])
async def test_a_step_sees_its_span_and_leaves_nothing_of_it_behind(kind: str, seen: Seen) -> None:
    ids: list[int] = []
    tasks: set[object] = set()

    def look() -> None:
        ids.append(trace.get_current_span().get_span_context().span_id)

    @step
    async def first(ev: StartEvent) -> Go:
        look()
        tasks.add(trio.lowlevel.current_task())
        await trio.lowlevel.checkpoint()
        return Go()

    @step
    async def plain(ev: Go) -> StopEvent:
        look()
        tasks.add(trio.lowlevel.current_task())
        return StopEvent()

    @step
    async def takes_context(ev: Go, ctx: Context) -> StopEvent:
        look()
        tasks.add(trio.lowlevel.current_task())
        return StopEvent()

    @step
    def blocks(ev: Go) -> StopEvent:
        look()
        return StopEvent()

    second = {"async": plain, "with a context": takes_context, "in a thread": blocks}[kind]
    await Workflow("looks", [first, second]).run()
    assert ids == [span.context.span_id for span in seen.spans("workflow.step")]
    assert len(set(ids)) == 2
    assert len(tasks) == 1  # the task of the first step runs the next one, too
    assert not trace.get_current_span().get_span_context().is_valid


async def test_an_input_handlers_spans_are_children_of_the_run(seen: Seen) -> None:
    async def answer(request: InputRequestEvent) -> str:
        with seen.tracers.get_tracer("ours").start_as_current_span("ask"):
            return "yes"

    assert await asks.run(input_handler=answer) == "yes"
    assert parent_of(seen.span("ask")) == seen.span("workflow.run").context.span_id


async def test_a_run_whose_store_fails_is_an_error(seen: Seen) -> None:
    with pytest.raises(StoreError):
        await ticks.run(store=FaultyStore(MemoryStore(), fail_before=2))
    run = seen.span("workflow.run")
    assert run.status.status_code is StatusCode.ERROR
    assert run.status.description.startswith("StoreError")
    assert "status" not in run.attributes


async def test_a_run_that_can_not_start_is_an_error(seen: Seen) -> None:
    store = MemoryStore()
    await ticks.run(store=store, run_id="r")
    with pytest.raises(RunExistsError):
        await ticks.run(store=store, run_id="r")
    assert seen.spans("workflow.run")[1].status.description.startswith("RunExistsError")


async def test_resuming_a_completed_run_makes_no_span(seen: Seen) -> None:
    store = MemoryStore()
    await ticks.run(store=store, run_id="r")
    assert await ticks.resume_from("r", store=store) == "gone"
    assert len(seen.spans("workflow.run")) == 1


async def test_a_run_that_started_before_uninstrument_is_traced_to_its_end(
    seen: Seen,
) -> None:
    async with asks.run() as run:
        uninstrument()
        with pytest.raises(InputRequiredError):
            await run.result()
        await run.respond("yes")
        await run.result()
    assert seen.span("workflow.run").attributes["status"] == "completed"
    await ticks.run()
    assert len(seen.spans("workflow.run")) == 1
