"""Retries, timeouts, failure handlers."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import trio

from blazen_trio import (
    Context,
    MemoryStore,
    RetryPolicy,
    RunStatus,
    RunTimeoutError,
    StartEvent,
    StepFailedError,
    StepFailedEvent,
    StepOutputError,
    StepTimeoutError,
    StopEvent,
    Workflow,
    step,
)
from tests.behaviour.events import A, B


def failing(times: int, **policy: Any) -> tuple[Workflow, list[float]]:
    """Return a workflow whose only step fails this often, and the start times of its attempts."""
    began: list[float] = []

    @step(retry=RetryPolicy(jitter=0, **policy))
    async def flaky(ev: StartEvent, ctx: Context) -> StopEvent:
        began.append(trio.current_time())
        assert ctx.attempt == len(began)
        if len(began) <= times:
            raise OSError(f"failure {len(began)}")
        return StopEvent(len(began))

    return Workflow("flaky", [flaky]), began


async def test_a_retried_step_succeeds_after_growing_delays(autojump_clock: Any) -> None:
    workflow, began = failing(3, max_attempts=5, initial_delay=10, multiplier=3, max_delay=60)
    assert await workflow.run() == 4
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(began)]
    assert waits == [10, 30, 60]


async def test_a_step_that_uses_up_its_retries_fails_with_the_last_exception(
    autojump_clock: Any,
) -> None:
    workflow, began = failing(9, max_attempts=3)
    with pytest.raises(StepFailedError, match=r"after 3 attempts: OSError: failure 3") as caught:
        await workflow.run()
    assert caught.value.attempts == 3
    assert str(caught.value.__cause__) == "failure 3"
    assert len(began) == 3


async def test_the_elapsed_limit_of_a_policy_spans_all_attempts_and_delays(
    autojump_clock: Any,
) -> None:
    workflow, began = failing(99, max_attempts=99, initial_delay=10, multiplier=1, max_elapsed=35)
    with pytest.raises(StepFailedError):
        await workflow.run()
    assert len(began) == 4


async def test_retries_due_at_the_same_time_all_run(autojump_clock: Any) -> None:

    @step
    async def spread(ev: StartEvent) -> list[A]:
        return [A(n) for n in range(10)]

    @step(retry=RetryPolicy(initial_delay=5, jitter=0))
    async def flaky(ev: A, ctx: Context) -> B:
        if ctx.attempt == 1:
            raise OSError("once")
        return B(ev.n)

    @step
    async def end(done: list[B]) -> StopEvent:
        return StopEvent([one.n for one in done])

    assert await Workflow("equal", [spread, flaky, end]).run() == list(range(10))


async def test_an_error_that_is_not_retried_fails_immediately(autojump_clock: Any) -> None:
    workflow, began = failing(9, retry_on=ValueError)
    with pytest.raises(StepFailedError):
        await workflow.run()
    assert len(began) == 1


async def test_an_undeclared_output_is_never_retried() -> None:
    attempts = []

    @step(retry=RetryPolicy(max_attempts=5))
    async def wrong(ev: StartEvent, ctx: Context) -> StopEvent:
        attempts.append(ctx.attempt)
        return A()  # type: ignore[return-value]

    with pytest.raises(StepOutputError):
        await Workflow("wrong", [wrong]).run()
    assert attempts == [1]


async def test_exhausted_retries_go_to_the_handler(autojump_clock: Any) -> None:
    seen: list[StepFailedEvent] = []

    @step(retry=RetryPolicy(max_attempts=2))
    async def broken(ev: StartEvent) -> StopEvent:
        raise LookupError("lost")

    @step
    async def mend(ev: StepFailedEvent) -> StopEvent:
        seen.append(ev)
        return StopEvent("mended")

    assert await Workflow("mended", [broken, mend]).run(5, store=MemoryStore()) == "mended"
    assert seen == [StepFailedEvent("broken", StartEvent(5), "LookupError", "lost", 2)]


async def test_the_scope_of_a_failure_selects_its_handlers() -> None:
    """Every handler that accepts the failure gets it."""
    seen = []

    @step
    async def begin(ev: StartEvent) -> tuple[A, B]:
        return A(), B()

    @step
    async def one(ev: A) -> StopEvent:
        raise OSError("one")

    @step
    async def two(ev: B) -> StopEvent:
        raise OSError("two")

    @step(handles=["one"])
    async def of_one(ev: StepFailedEvent) -> None:
        seen.append(("of_one", ev.step_name))

    @step
    async def of_all(ev: StepFailedEvent, ctx: Context) -> StopEvent | None:
        seen.append(("of_all", ev.step_name))
        return StopEvent() if ctx.collect(ev, [StepFailedEvent, StepFailedEvent]) else None

    await Workflow("scopes", [begin, one, two, of_one, of_all], max_concurrency=1).run()
    assert sorted(seen) == [("of_all", "one"), ("of_all", "two"), ("of_one", "one")]


async def test_a_failure_of_a_handler_fails_the_run() -> None:

    @step
    async def broken(ev: StartEvent) -> StopEvent:
        raise OSError("first")

    @step
    async def mend(ev: StepFailedEvent) -> StopEvent:
        raise OSError("second")

    with pytest.raises(StepFailedError, match=r"'mend'.*second"):
        await Workflow("both", [broken, mend]).run()


async def test_the_error_of_a_runs_timeout_names_the_steps_in_flight(autojump_clock: Any) -> None:

    @step
    async def slow(ev: StartEvent) -> StopEvent:
        await trio.sleep(3600)
        return StopEvent()

    with pytest.raises(RunTimeoutError, match=r"timeout of 0.05 s; in flight: slow") as caught:
        await Workflow("slow", [slow], timeout=0.05).run()
    assert caught.value.active_steps == ("slow",)
    assert caught.value.timeout == 0.05


async def test_a_step_timeout_limits_one_attempt(autojump_clock: Any) -> None:
    attempts = []

    @step(timeout=5, retry=RetryPolicy(max_attempts=2, jitter=0))
    async def slow(ev: StartEvent, ctx: Context) -> StopEvent:
        attempts.append(ctx.attempt)
        await trio.sleep(4 if ev.data else 6)
        return StopEvent("in time")

    workflow = Workflow("slow", [slow])
    assert await workflow.run(1) == "in time"
    attempts.clear()
    with pytest.raises(StepTimeoutError, match="timeout of 5 s") as caught:
        await workflow.run(0)
    assert attempts == [1, 2]
    assert isinstance(caught.value, StepFailedError)
    assert caught.value.attempts == 2


async def test_a_shielded_step_that_ends_after_its_timeout_has_timed_out(
    autojump_clock: Any,
) -> None:
    @step(timeout=1)
    async def stubborn(ev: StartEvent) -> StopEvent:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return StopEvent("late")

    with pytest.raises(StepTimeoutError, match="took longer than its timeout of 1 s"):
        await Workflow("stubborn", [stubborn]).run()
    assert trio.current_time() == 5


async def test_a_step_in_a_thread_is_awaited_and_its_late_result_discarded() -> None:
    ended = []

    @step(timeout=0.01)
    def slow(ev: StartEvent) -> StopEvent:
        time.sleep(0.05)
        ended.append(True)
        return StopEvent("late")

    with pytest.raises(StepTimeoutError):
        await Workflow("thread", [slow]).run()
    assert ended == [True]


async def test_the_clean_up_of_cancelled_steps_is_awaited(autojump_clock: Any) -> None:
    cleaned = []

    @step
    async def begin(ev: StartEvent) -> tuple[A, B]:
        return A(), B()

    @step
    async def broken(ev: A) -> StopEvent:
        await trio.sleep(1)
        raise OSError("broken")

    @step
    async def tidy(ev: B) -> StopEvent:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(60)
            cleaned.append(True)
        return StopEvent()

    with pytest.raises(StepFailedError):
        await Workflow("tidy", [begin, broken, tidy]).run()
    assert cleaned == [True]


async def test_a_leaked_cancellation_fails_the_step(autojump_clock: Any) -> None:
    leaked: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep(1)
        except trio.Cancelled as error:
            leaked.append(error)
            raise

    @step
    async def leaks(ev: StartEvent) -> StopEvent:
        raise leaked[0]

    with trio.fail_after(5), pytest.raises(StepFailedError, match="leaked"):
        await Workflow("leaks", [leaks]).run()


async def test_a_step_that_raises_a_group_is_one_failure() -> None:
    @step
    async def groups(ev: StartEvent) -> StopEvent:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(fail)
        return StopEvent()

    async def fail() -> None:
        raise OSError("in a child")

    with pytest.raises(StepFailedError) as caught:
        await Workflow("groups", [groups]).run()
    assert isinstance(caught.value.__cause__, ExceptionGroup)


async def test_a_failed_run_resumes_with_fresh_attempts_and_the_same_keys(
    autojump_clock: Any,
) -> None:
    """Attempts and due times are part of the run."""
    seen: list[tuple[int, str]] = []
    working = False

    @step(retry=RetryPolicy(max_attempts=2))
    async def flaky(ev: StartEvent, ctx: Context) -> StopEvent:
        seen.append((ctx.attempt, ctx.idempotency_key))
        if not working:
            raise OSError("not yet")
        return StopEvent("now")

    workflow = Workflow("flaky", [flaky])
    store = MemoryStore()
    with pytest.raises(StepFailedError):
        await workflow.run(store=store, run_id="run")
    assert (await store.get_run("run")).status is RunStatus.FAILED
    working = True
    assert await workflow.resume_from("run", store=store) == "now"
    assert [attempt for attempt, _ in seen] == [1, 2, 1]
    assert len({key for _, key in seen}) == 1


async def test_a_waiting_retry_survives_the_process(autojump_clock: Any) -> None:
    """The event is kept, with its attempt and its due time."""
    workflow, began = failing(1, initial_delay=50)
    store = MemoryStore()
    with trio.move_on_after(10):
        await workflow.run(store=store, run_id="run")
    snapshot = await store.load_snapshot("run")
    assert snapshot.deliveries[0].attempt == 2
    assert await workflow.resume_from("run", store=store) == 2
    assert began[1] - began[0] == pytest.approx(50, abs=1)
